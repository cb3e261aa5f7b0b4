//! The kernel's notifications: interfaces, addresses, default routes, routes to something on an uplink's link, rules, nexthop objects,
//! neighbours that do not answer, qdiscs and filters that go.
//!
//! A filter in the kernel (`filter.rs`) drops everything else (and what we did ourselves) before it wakes us: the changes of a
//! full routing table cost nothing. What remains is compared with what was known: only a difference is a [`Change`].

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    future::pending,
    io,
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result};
use failover_policy::{Family, PerUplink};
use nix::{
    libc::{ENOBUFS, RTM_DELQDISC, RTM_DELTFILTER},
    net::if_::if_nametoindex,
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteMessage, RouteProtocol},
        rule::{RuleAttribute, RuleMessage},
    },
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use socket2::SockRef;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{
    actor::{Actor, Finder},
    change::Change,
    filter,
};
use crate::netlink::{RECEIVE_BUFFER, messages};
use crate::route::{
    install::table,
    learn::survey,
    link::Link,
    router::Router,
    wire::done::Object,
    wire::message,
    wire::nexthop::{Nexthop, RTM_DELNEXTHOP},
};

/// The stream of changes.
pub struct Observer {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// Of the socket through which we make changes ourselves.
    own_port: u32,
    protocol: u8,
    actors: Finder,
    uplinks: Vec<Watched>,
    /// Addresses of the uplinks as last announced: router advertisements announce the same again and again.
    addresses: HashSet<(u32, IpAddr, u8, u32)>,
    changes: VecDeque<Change>,
    /// When everything is begun anew, because the kernel refused something.
    again: Option<Instant>,
    /// Until then nothing is received: the socket failed.
    deaf: bool,
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

/// How long after a refusal the kernel is asked again.
const AGAIN: Duration = Duration::from_secs(1);

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
            let groups = [
                MulticastGroup::Link,
                MulticastGroup::Neigh,
                MulticastGroup::Ipv4Ifaddr,
                MulticastGroup::Ipv4Route,
                MulticastGroup::Ipv4Rule,
                MulticastGroup::Ipv6Ifaddr,
                MulticastGroup::Ipv6Route,
                MulticastGroup::Ipv6Rule,
                MulticastGroup::Nexthop,
                MulticastGroup::Tc,
            ];
            let mask = groups
                .iter()
                .fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
            socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
            Ok(socket)
        };
        // First listen, then look: what appears in between is announced.
        let socket = open().context("cannot observe routing changes")?;
        let uplinks = interfaces.iter().map(|name| Watched::new(name)).collect();
        let observer = Observer {
            socket,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            own_port: router.netlink.port(),
            protocol: router.config.protocol,
            actors: Finder::default(),
            uplinks,
            addresses: HashSet::new(),
            changes: VecDeque::new(),
            again: None,
            deaf: false,
        };
        observer.filter()?;
        Ok(observer)
    }

    /// Tells the kernel what is wanted. To be called when an uplink has got another interface index; what it lets pass of the
    /// new one begins here, and whoever hears of the change looks at everything that was before.
    fn filter(&self) -> Result<()> {
        let uplinks: BTreeSet<u32> = self
            .uplinks
            .iter()
            .filter_map(|uplink| uplink.ifindex)
            .collect();
        SockRef::from(self.socket.socket_ref())
            .attach_filter(&filter::program(self.own_port, self.protocol, &uplinks))
            .context("cannot filter routing changes")
    }

    /// Observes the interfaces with these names from now on, in place of the ones before.
    pub fn watch<'a>(&mut self, interfaces: impl Iterator<Item = &'a str>) {
        self.uplinks = interfaces.map(Watched::new).collect();
        self.try_to_filter();
    }

    /// Tells the kernel what is wanted, or tries again later. Until then it lets pass what was wanted before.
    fn try_to_filter(&mut self) {
        if let Err(error) = self.filter() {
            warn!("{error:#}: tried again in a second, and then everything is looked at");
            self.again = Some(Instant::now() + AGAIN);
        }
    }

    /// Takes over what was seen of the carriers by a scan. The kernel tells late of a carrier, and not at all of one that came back in the
    /// meantime (`linkwatch_schedule_work` in `net/core/link_watch.c`): a scan may have seen it gone, and its return must be a change.
    pub fn note_scan(&mut self, links: &PerUplink<Link>) {
        for uplink in &mut self.uplinks {
            let link = links.values().find(|link| link.interface == uplink.name);
            if let Some(link) = link.filter(|link| uplink.ifindex == Some(link.ifindex)) {
                uplink.carrier = Some(link.carrier);
            }
        }
    }

    /// The next change. Cancelling loses nothing. Where the socket fails, nothing is heard for a second; then everything may have changed.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return change;
            }
            self.buffer.clear();
            let again = self.again;
            let received = tokio::select! {
                () = async {
                    match again {
                        Some(time) => sleep_until(time).await,
                        None => pending().await,
                    }
                } => {
                    self.resync();
                    return Change::Resync;
                }
                received = self.socket.recv(&mut self.buffer), if !self.deaf => received,
            };
            match received {
                Ok(()) => self.take_in(),
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {
                    self.resync();
                    return Change::Resync;
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        warn!(
            "cannot receive routing changes: {error}: tried again in a second, and then everything is looked at"
        );
        self.again = Some(Instant::now() + AGAIN);
        self.deaf = true;
    }

    /// After an overrun. The kernel goes on losing notifications, without another word, until everything that is still
    /// queued has been read (`NETLINK_S_CONGESTED` in `net/netlink/af_netlink.c`).
    fn resync(&mut self) {
        self.again = None;
        self.deaf = false;
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.failed(&error);
                    break;
                }
            }
        }
        self.addresses.clear();
        for uplink in &mut self.uplinks {
            uplink.ifindex = if_nametoindex(uplink.name.as_str()).ok();
            uplink.carrier = None;
        }
        self.try_to_filter();
    }

    fn take_in(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        for message in messages(&buffer) {
            let change = message.map_err(Into::into);
            match change.and_then(|message| self.read(message)) {
                Ok(change) => {
                    if matches!(change, Some(Change::Link { .. })) {
                        self.try_to_filter();
                    }
                    self.changes.extend(change);
                }
                // Better to look once too often than to miss something.
                Err(error) => {
                    tracing::debug!("routing change not understood: {error:#}");
                    self.changes.push_back(Change::Resync);
                }
            }
        }
        self.buffer = buffer;
    }

    fn read(&mut self, message: NetlinkBuffer<&[u8]>) -> Result<Option<Change>> {
        // Filters come in kinds that nobody here knows.
        if matches!(message.message_type(), RTM_DELQDISC | RTM_DELTFILTER) {
            return Ok(self.programs(message.port_number(), message.payload()));
        }
        // `netlink-packet-route` does not know it.
        if message.message_type() == RTM_DELNEXTHOP {
            return self.nexthop(message.port_number(), message.payload());
        }
        let message =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.into_inner())?.into_parts();
        Ok(match message {
            (header, NetlinkPayload::InnerMessage(message)) => {
                self.change(header.port_number, &message)
            }
            _ => None,
        })
    }

    /// `port` is that of the socket through which it was asked for.
    fn change(&mut self, port: u32, message: &RouteNetlinkMessage) -> Option<Change> {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.link(link, false),
            RouteNetlinkMessage::DelLink(link) => self.link(link, true),
            RouteNetlinkMessage::NewAddress(address) => self.address(address, false),
            RouteNetlinkMessage::DelAddress(address) => self.address(address, true),
            RouteNetlinkMessage::NewRoute(route) => self.route(port, route, false),
            RouteNetlinkMessage::DelRoute(route) => self.route(port, route, true),
            RouteNetlinkMessage::DelRule(rule) => self.rule(port, rule),
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.neighbour(neighbour),
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

    fn route(&mut self, port: u32, route: &RouteMessage, removed: bool) -> Option<Change> {
        let family = family(route.header.address_family)?;
        let ours = route.header.protocol == RouteProtocol::from(self.protocol);
        let default =
            message::decides_all(&route.header) || message::is_default_for_source(&route.header);
        if !ours && !default {
            return self.near(family, route);
        }
        Some(Change::Route {
            family,
            ours,
            removed,
            by: Actor {
                protocol: u8::from(route.header.protocol),
                origin: self.actors.find(port),
            },
            object: message::object(route),
        })
    }

    fn near(&self, family: Family, route: &RouteMessage) -> Option<Change> {
        let watched = |ifindex| {
            self.uplinks
                .iter()
                .any(|uplink| uplink.ifindex == Some(ifindex))
        };
        let hops = message::hops(route);
        let mut near = hops.iter().filter(|hop| hop.gateway.is_none());
        let ifindex = near.find(|hop| watched(hop.ifindex))?.ifindex;
        survey::may_be_on_link(&route.header).then_some(Change::Near { ifindex, family })
    }

    fn rule(&mut self, port: u32, rule: &RuleMessage) -> Option<Change> {
        let ours = RuleAttribute::Protocol(RouteProtocol::from(self.protocol));
        if !rule.attributes.contains(&ours) {
            return None;
        }
        Some(Change::Rule {
            family: family(rule.header.family)?,
            by: Actor {
                protocol: self.protocol,
                origin: self.actors.find(port),
            },
            object: Object::Rule(table::Rule::read(rule).to_string()),
        })
    }

    fn nexthop(&mut self, port: u32, payload: &[u8]) -> Result<Option<Change>> {
        let object = Nexthop::read(payload)?;
        Ok((object.protocol == self.protocol).then(|| Change::Nexthop {
            by: Actor {
                protocol: self.protocol,
                origin: self.actors.find(port),
            },
            object: Object::Nexthop(object.to_string()),
        }))
    }

    /// `payload` begins with `struct tcmsg`.
    fn programs(&mut self, port: u32, payload: &[u8]) -> Option<Change> {
        const IFINDEX_AT: usize = 4;
        let ifindex = payload.get(IFINDEX_AT..)?.first_chunk()?;
        let ifindex = u32::from_ne_bytes(*ifindex);
        let watched = |uplink: &Watched| uplink.ifindex == Some(ifindex);
        self.uplinks.iter().any(watched).then(|| Change::Programs {
            ifindex,
            by: self.actors.find(port),
        })
    }

    fn neighbour(&self, neighbour: &NeighbourMessage) -> Option<Change> {
        let ifindex = neighbour.header.ifindex;
        let watched = |uplink: &Watched| uplink.ifindex == Some(ifindex);
        if neighbour.header.state != NeighbourState::Failed || !self.uplinks.iter().any(watched) {
            return None;
        }
        let address = neighbour
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some((*ip).into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some((*ip).into()),
                _ => None,
            })?;
        Some(Change::Neighbour { ifindex, address })
    }
}

fn family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}
