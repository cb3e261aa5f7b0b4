//! What a notification of the kernel changes, compared with what was known before.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use anyhow::Result;
use failover_policy::Family;
use nix::{
    libc::{RTM_DELQDISC, RTM_DELTFILTER},
    net::if_::if_nametoindex,
};
use rtnetlink::{
    packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressMessage,
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteMessage, RouteProtocol},
        rule::{RuleAttribute, RuleMessage},
    },
};

use super::{
    actor::{Actor, Finder},
    change::Change,
};
use crate::route::{
    wire::address::Assigned,
    wire::done::Object,
    wire::message,
    wire::nexthop::{Nexthop, RTM_DELNEXTHOP},
    wire::rule::Rule,
};

/// What is known of the uplinks' interfaces: only a difference is a [`Change`].
pub(super) struct Known {
    /// Ours.
    protocol: u8,
    actors: Finder,
    uplinks: Vec<Watched>,
    /// Addresses of the uplinks as last announced: router advertisements announce the same again and again.
    addresses: HashSet<(u32, IpAddr, u8, u32)>,
}

struct Watched {
    name: String,
    ifindex: Option<u32>,
}

impl Watched {
    fn new(name: &str) -> Self {
        Watched {
            name: name.to_owned(),
            ifindex: if_nametoindex(name).ok(),
        }
    }
}

impl Known {
    /// Knows the interfaces with these names, and nothing about them yet.
    pub(super) fn new<'a>(protocol: u8, interfaces: impl Iterator<Item = &'a str>) -> Self {
        Known {
            protocol,
            actors: Finder::default(),
            uplinks: interfaces.map(Watched::new).collect(),
            addresses: HashSet::new(),
        }
    }

    /// The interfaces with these names from now on, in place of the ones before.
    pub(super) fn watch<'a>(&mut self, interfaces: impl Iterator<Item = &'a str>) {
        self.uplinks = interfaces.map(Watched::new).collect();
    }

    /// The indexes of those interfaces that are there.
    pub(super) fn indexes(&self) -> BTreeSet<u32> {
        let indexes = self.uplinks.iter().filter_map(|uplink| uplink.ifindex);
        indexes.collect()
    }

    /// Begins again: anything may have changed.
    pub(super) fn forget(&mut self) {
        self.addresses.clear();
        for uplink in &mut self.uplinks {
            uplink.ifindex = if_nametoindex(uplink.name.as_str()).ok();
        }
    }

    /// The change that a notification reports; None if there is none, or none that the agent follows.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&mut self, message: NetlinkBuffer<&[u8]>) -> Result<Option<Change>> {
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
        let before = std::mem::replace(&mut watched.ifindex, present);
        Some(Change::Link {
            ifindex,
            name: watched.name.clone(),
            carrier,
            gone,
            replaced: before != present,
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
        let Assigned { ip, flags, .. } = Assigned::read(address)?;
        let known = (ifindex, ip, address.header.prefix_len, flags.bits());
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
        message::may_be_on_link(&route.header).then_some(Change::Near { ifindex, family })
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
            object: Object::Rule(Rule::read(rule).to_string()),
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
