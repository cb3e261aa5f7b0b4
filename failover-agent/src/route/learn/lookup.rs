//! Questions to the kernel's routing about one packet (`RTM_GETROUTE`). They change nothing.
//!
//! `inet_rtm_getroute` in `net/ipv4/route.c` and `inet6_rtm_getroute` in `net/ipv6/route.c` decide as they would for the packet
//! itself: rules, tables and, for a received one, reverse path filtering.

use std::net::IpAddr;

use anyhow::{Context, Result};
use failover_policy::Family;
use rtnetlink::{
    packet_core::Parseable,
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
        route::{RouteAttribute, RouteFlags, RouteMessage, RouteType},
    },
};

use crate::netlink::Netlink;
use crate::route::{wire::list::address_family, wire::message};

/// A packet that this host sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// 0: none.
    pub(crate) mark: u32,
    /// The interface that its socket is bound to; None: not bound.
    pub(crate) bound_to: Option<u32>,
}

/// What the kernel says to a question about one packet. A refusal is an answer, too: that is how the kernel says that the packet
/// goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<T> {
    /// The packet goes on.
    Passes(T),
    /// It does not, for the reason with this error number.
    Refused(i32),
}

impl<T> Verdict<T> {
    fn map<U>(self, convert: impl FnOnce(T) -> U) -> Verdict<U> {
        match self {
            Verdict::Passes(way) => Verdict::Passes(convert(way)),
            Verdict::Refused(errno) => Verdict::Refused(errno),
        }
    }
}

/// A route that the kernel has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundRoute {
    pub(crate) table: u32,
    pub(crate) prefix_length: u8,
}

/// By which route a packet leaves.
///
/// # Errors
/// Netlink itself fails.
pub(crate) fn outgoing(netlink: &mut Netlink, packet: Outgoing) -> Result<Verdict<FoundRoute>> {
    // For a bound socket IPv6 heeds the interface strictly (`RT6_LOOKUP_F_IFACE` in `ip6_route_output_flags_noref`), here only
    // when no source is named.
    let source = match (packet.destination, packet.bound_to) {
        (IpAddr::V6(_), Some(_)) => None,
        _ => Some(packet.source),
    };
    let mut request = request(source, packet.destination);
    // The entry in the table, not what became of it: IPv4 takes everything for on-link when a bound socket has no route
    // (`ip_route_output_key_hash_rcu`), and only an entry of a table is distinguished from that.
    request.header.flags = RouteFlags::FibMatch;
    if packet.mark != 0 {
        request.attributes.push(RouteAttribute::Mark(packet.mark));
    }
    request
        .attributes
        .extend(packet.bound_to.map(RouteAttribute::Oif));
    Ok(ask(netlink, request)?.map(|route| FoundRoute {
        table: message::table(&route),
        prefix_length: route.header.destination_prefix_length,
    }))
}

/// Whether the kernel takes a packet that arrives on an interface. Strict reverse path filtering gives EXDEV, from Linux 6.14 on
/// EINVAL.
///
/// # Errors
/// Netlink itself fails.
pub(crate) fn incoming(
    netlink: &mut Netlink,
    source: IpAddr,
    destination: IpAddr,
    ifindex: u32,
) -> Result<Verdict<()>> {
    let mut request = request(Some(source), destination);
    request.attributes.push(RouteAttribute::Iif(ifindex));
    Ok(ask(netlink, request)?.map(drop))
}

/// Where the kernel's tables have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Towards {
    pub(crate) prefix_length: u8,
    /// Indexes of the interfaces by which it is reached.
    pub(crate) interfaces: Vec<u32>,
}

/// By which route other hosts' packets to an address would leave; None: by none, or this host has the address.
pub(crate) fn towards(netlink: &mut Netlink, destination: IpAddr) -> Result<Option<Towards>> {
    let mut request = request(None, destination);
    request.header.flags = RouteFlags::FibMatch;
    let Verdict::Passes(route) = ask(netlink, request)? else {
        return Ok(None);
    };
    if route.header.kind != RouteType::Unicast {
        return Ok(None);
    }
    Ok(Some(Towards {
        prefix_length: route.header.destination_prefix_length,
        interfaces: message::hops(&route)
            .iter()
            .map(|hop| hop.ifindex)
            .collect(),
    }))
}

/// The addresses for which this host answers on a link (`ip neigh add proxy`), each with the index of that interface.
pub(crate) fn proxied(netlink: &mut Netlink) -> Result<Vec<(IpAddr, u32)>> {
    let mut request = NeighbourMessage::default();
    request.header.flags = NeighbourFlags::Proxy;
    netlink
        .list(&RouteNetlinkMessage::GetNeighbour(request), |payload| {
            let entry = NeighbourMessage::parse(payload)?;
            let mut attributes = entry.attributes.iter();
            let address = attributes.find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some((*ip).into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some((*ip).into()),
                _ => None,
            });
            Ok(address.map(|address| (address, entry.header.ifindex)))
        })
        .context("cannot list proxy neighbours")
}

/// The family of an address.
pub(crate) fn family_of(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn request(source: Option<IpAddr>, destination: IpAddr) -> RouteMessage {
    let length = if destination.is_ipv4() { 32 } else { 128 };
    let mut request = RouteMessage::default();
    request.header.address_family = address_family(family_of(destination));
    request.header.destination_prefix_length = length;
    request.attributes = vec![RouteAttribute::Destination(destination.into())];
    if let Some(source) = source {
        request.header.source_prefix_length = length;
        request
            .attributes
            .push(RouteAttribute::Source(source.into()));
    }
    request
}

fn ask(netlink: &mut Netlink, request: RouteMessage) -> Result<Verdict<RouteMessage>> {
    let answer = netlink.get(&RouteNetlinkMessage::GetRoute(request), |payload| {
        Ok(Some(RouteMessage::parse(payload)?))
    });
    match answer {
        Ok(route) => Ok(Verdict::Passes(route.context("the kernel names no route")?)),
        Err(error) => match error.refused() {
            Some(refused) => Ok(Verdict::Refused(refused.errno)),
            None => Err(error.into()),
        },
    }
}
