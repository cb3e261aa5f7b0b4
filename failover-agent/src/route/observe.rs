//! The kernel's notifications: interfaces, addresses, default routes, rules.
//!
//! A filter in the kernel drops everything else (and what we did ourselves) before it wakes us: the changes of a full
//! routing table cost nothing. What remains is compared with what was known: only a difference is a [`Change`].

use std::{
    collections::{HashSet, VecDeque},
    io,
    net::IpAddr,
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkMessage,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteMessage, RouteProtocol},
    },
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use socket2::{SockFilter, SockRef};

use super::{Router, message};
use crate::{
    netlink::{RECEIVE_BUFFER, messages},
    policy::Family,
};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An uplink's interface appeared, went, or got or lost its carrier.
    Link {
        /// Interface index.
        ifindex: u32,
        /// Interface name.
        name: String,
        /// Whether it is up and has carrier.
        carrier: bool,
        /// Whether it is gone (removed, renamed, or moved to another namespace).
        gone: bool,
    },
    /// An uplink got or lost an address, or one became usable or deprecated.
    Address {
        /// Interface index.
        ifindex: u32,
        /// The address's family.
        family: Family,
    },
    /// Someone else added, changed or removed a default route, in any table.
    Route {
        /// The route's family.
        family: Family,
        /// Whether it bears our protocol number.
        ours: bool,
    },
    /// Someone else removed a rule with our protocol number.
    Rule {
        /// The rule's family.
        family: Family,
    },
    /// Notifications were lost: anything may have changed.
    Resync,
}

/// The stream of changes.
pub struct Observer {
    socket: TokioSocket,
    buffer: Vec<u8>,
    protocol: RouteProtocol,
    uplinks: Vec<Watched>,
    /// Addresses of the uplinks as last announced: router advertisements announce the same again and again.
    addresses: HashSet<(u32, IpAddr, u8, u32)>,
    changes: VecDeque<Change>,
}

struct Watched {
    name: String,
    ifindex: Option<u32>,
    /// None: not known yet.
    carrier: Option<bool>,
}

impl Watched {
    fn new(name: &str) -> Self {
        Watched {
            name: name.to_owned(),
            ifindex: if_nametoindex(name).ok(),
            carrier: None,
        }
    }
}

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_DELRULE: u16 = 33;

const ENOBUFS: i32 = 105;

impl Observer {
    /// Starts to observe the interfaces with these names, in the network namespace of the calling thread, which must be in
    /// a tokio runtime. Changes made through `router` are not reported. To be opened before [`Router::discover`], so that
    /// nothing is missed in between.
    ///
    /// # Errors
    /// No netlink.
    pub fn open(router: &Router, interfaces: &[&str]) -> Result<Observer> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            SockRef::from(socket.socket_ref()).attach_filter(&filter(router.netlink.port()))?;
            let groups = [
                MulticastGroup::Link,
                MulticastGroup::Ipv4Ifaddr,
                MulticastGroup::Ipv4Route,
                MulticastGroup::Ipv4Rule,
                MulticastGroup::Ipv6Ifaddr,
                MulticastGroup::Ipv6Route,
                MulticastGroup::Ipv6Rule,
            ];
            let mask = groups
                .iter()
                .fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
            socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
            Ok(socket)
        };
        let uplinks = interfaces.iter().map(|name| Watched::new(name)).collect();
        Ok(Observer {
            socket: open().context("cannot observe routing changes")?,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            protocol: RouteProtocol::from(router.config.protocol),
            uplinks,
            addresses: HashSet::new(),
            changes: VecDeque::new(),
        })
    }

    /// Observes the interfaces with these names from now on, in place of the ones before.
    pub fn watch<'a>(&mut self, interfaces: impl Iterator<Item = &'a str>) {
        self.uplinks = interfaces.map(Watched::new).collect();
    }

    /// The next change. Cancelling loses nothing.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Ok(change);
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {
                    self.resync()?;
                    return Ok(Change::Resync);
                }
                Err(error) => return Err(error).context("cannot receive routing changes"),
            }
            self.take_in();
        }
    }

    /// After an overrun. The kernel goes on losing notifications, without another word, until everything that is still
    /// queued has been read (`NETLINK_S_CONGESTED` in `net/netlink/af_netlink.c`).
    fn resync(&mut self) -> Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot receive routing changes"),
            }
        }
        self.addresses.clear();
        for uplink in &mut self.uplinks {
            uplink.ifindex = if_nametoindex(uplink.name.as_str()).ok();
            uplink.carrier = None;
        }
        Ok(())
    }

    fn take_in(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        for message in messages(&buffer) {
            let parsed = message.and_then(|message| {
                Ok(NetlinkMessage::<RouteNetlinkMessage>::deserialize(
                    message.into_inner(),
                )?)
            });
            match parsed.map(|message| message.into_parts().1) {
                Ok(rtnetlink::packet_core::NetlinkPayload::InnerMessage(message)) => {
                    let change = self.change(&message);
                    self.changes.extend(change);
                }
                Ok(_) => {}
                // Better to look once too often than to miss something.
                Err(error) => {
                    tracing::debug!("routing change not understood: {error:#}");
                    self.changes.push_back(Change::Resync);
                }
            }
        }
        self.buffer = buffer;
    }

    fn change(&mut self, message: &RouteNetlinkMessage) -> Option<Change> {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.link(link, false),
            RouteNetlinkMessage::DelLink(link) => self.link(link, true),
            RouteNetlinkMessage::NewAddress(address) => self.address(address, false),
            RouteNetlinkMessage::DelAddress(address) => self.address(address, true),
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                self.route(route)
            }
            RouteNetlinkMessage::DelRule(rule) => {
                let ours = rtnetlink::packet_route::rule::RuleAttribute::Protocol(self.protocol);
                let family = family(rule.header.family)?;
                rule.attributes
                    .contains(&ours)
                    .then_some(Change::Rule { family })
            }
            _ => None,
        }
    }

    fn link(&mut self, link: &LinkMessage, removed: bool) -> Option<Change> {
        let ifindex = link.header.index;
        let name = link
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.as_str()),
                _ => None,
            })?;
        // A bridge reports a port that leaves it with RTM_DELLINK too, in its own family.
        if link.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let watched = self
            .uplinks
            .iter_mut()
            .find(|uplink| uplink.name == name || uplink.ifindex == Some(ifindex))?;
        let gone = removed || watched.name != name;
        let carrier = !gone
            && link
                .header
                .flags
                .contains(LinkFlags::Up | LinkFlags::LowerUp);
        let present = (!gone).then_some(ifindex);
        if (watched.ifindex, watched.carrier) == (present, Some(carrier)) {
            return None;
        }
        watched.ifindex = present;
        watched.carrier = Some(carrier);
        Some(Change::Link {
            ifindex,
            name: watched.name.clone(),
            carrier,
            gone,
        })
    }

    fn address(&mut self, address: &AddressMessage, removed: bool) -> Option<Change> {
        let ifindex = address.header.index;
        if !self
            .uplinks
            .iter()
            .any(|uplink| uplink.ifindex == Some(ifindex))
        {
            return None;
        }
        let family = family(address.header.family)?;
        let mut ip = None;
        let mut flags = u32::from(address.header.flags.bits());
        for attribute in &address.attributes {
            match attribute {
                AddressAttribute::Local(local) => ip = Some(*local),
                AddressAttribute::Address(peer) => ip = ip.or(Some(*peer)),
                AddressAttribute::Flags(all) => flags = all.bits(),
                _ => {}
            }
        }
        let known = (ifindex, ip?, address.header.prefix_len, flags);
        let changed = if removed {
            self.addresses.remove(&known);
            true
        } else {
            self.addresses.retain(|(index, ip, _, flags)| {
                (*index, *ip) != (known.0, known.1) || *flags == known.3
            });
            self.addresses.insert(known)
        };
        changed.then_some(Change::Address { ifindex, family })
    }

    fn route(&self, route: &RouteMessage) -> Option<Change> {
        let family = family(route.header.address_family)?;
        let default = message::is_default(&route.header);
        default.then_some(Change::Route {
            family,
            ours: route.header.protocol == self.protocol,
        })
    }
}

fn family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

/// The filter: classic BPF (`linux/filter.h`) over `struct nlmsghdr`, which starts the datagram, and the two first bytes of
/// `struct rtmsg` behind it. The kernel sends each notification in a datagram of its own.
fn filter(own_port: u32) -> Vec<SockFilter> {
    // BPF_LD|BPF_ABS with a size, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K.
    const LOAD_32: u16 = 0x20;
    const LOAD_16: u16 = 0x28;
    const LOAD_8: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NLMSG_TYPE: u32 = 4;
    const NLMSG_PID: u32 = 12;
    const RTM_DST_LEN: u32 = 17;

    let accepted = [
        RTM_NEWLINK,
        RTM_DELLINK,
        RTM_NEWADDR,
        RTM_DELADDR,
        RTM_DELRULE,
    ];
    let routes = [RTM_NEWROUTE, RTM_DELROUTE];
    // Loads take the bytes for big-endian numbers, netlink's are in the host's order.
    let host_16 = |number: u16| u32::from(u16::from_be_bytes(number.to_ne_bytes()));
    let host_32 = |number: u32| u32::from_be_bytes(number.to_ne_bytes());

    // The end of the program: ..., [route:] load length, equal 0 -> accept, [drop:] return 0, [accept:] return all.
    let types = accepted.len() + routes.len();
    let mut program = vec![
        SockFilter::new(LOAD_32, 0, 0, NLMSG_PID),
        SockFilter::new(JUMP_IF_EQUAL, distance(types + 1), 0, host_32(own_port)),
        SockFilter::new(LOAD_16, 0, 0, NLMSG_TYPE),
    ];
    for (position, number) in accepted.iter().enumerate() {
        let rest = types - position - 1;
        program.push(SockFilter::new(
            JUMP_IF_EQUAL,
            distance(rest + 4),
            0,
            host_16(*number),
        ));
    }
    for (position, number) in routes.iter().enumerate() {
        let rest = routes.len() - position - 1;
        program.push(SockFilter::new(
            JUMP_IF_EQUAL,
            distance(rest + 1),
            0,
            host_16(*number),
        ));
    }
    program.extend([
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(LOAD_8, 0, 0, RTM_DST_LEN),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, 0),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]);
    program
}

/// A jump over so many instructions.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the program has fewer than 20 instructions"
)]
fn distance(instructions: usize) -> u8 {
    instructions as u8
}
