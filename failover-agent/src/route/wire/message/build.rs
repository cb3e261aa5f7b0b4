//! Building route messages: new ones of ours, and requests about ones that the kernel has reported.

use std::{net::IpAddr, time::Duration};

use failover_policy::Family;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};

use super::{Hop, MAIN_TABLE, USER_HZ, lifetime};
use crate::route::wire::list::address_family;

/// A unicast route of ours.
pub(crate) fn unicast(
    family: Family,
    table: u32,
    protocol: u8,
    destination: IpNet,
    hop: Hop,
    metric: u32,
) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: address_family(family),
        destination_prefix_length: destination.prefix_len(),
        protocol: RouteProtocol::from(protocol),
        scope: match (family, hop.gateway) {
            (Family::V4, None) => RouteScope::Link,
            _ => RouteScope::Universe,
        },
        kind: RouteType::Unicast,
        flags: if hop.onlink {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
        ..RouteHeader::default()
    };
    // RTA_TABLE holds every number, the header's byte only small ones.
    route.attributes.push(RouteAttribute::Table(table));
    if destination.prefix_len() > 0 {
        route
            .attributes
            .push(RouteAttribute::Destination(destination.addr().into()));
    }
    route.attributes.push(RouteAttribute::Oif(hop.ifindex));
    route.attributes.extend(gateway_attribute(family, hop));
    if metric != 0 {
        route.attributes.push(RouteAttribute::Priority(metric));
    }
    route
}

/// A default route of ours through a nexthop object.
pub(crate) fn by_object(family: Family, protocol: u8, id: u32, metric: u32) -> RouteMessage {
    default_route(family, protocol, RouteAttribute::NhId(id), metric)
}

/// A default route of ours that shares connections out over several ways, each with its weight (1 to 256).
pub(crate) fn multipath(
    family: Family,
    protocol: u8,
    ways: &[(Hop, u32)],
    metric: u32,
) -> RouteMessage {
    let next_hop = |(hop, weight): &(Hop, u32)| {
        let mut next_hop = RouteNextHop::default();
        next_hop.interface_index = hop.ifindex;
        next_hop.hops = u8::try_from(weight.saturating_sub(1)).unwrap_or(u8::MAX);
        if hop.onlink {
            next_hop.flags = RouteNextHopFlags::Onlink;
        }
        next_hop.attributes.extend(gateway_attribute(family, *hop));
        next_hop
    };
    let ways = ways.iter().map(next_hop).collect();
    default_route(family, protocol, RouteAttribute::MultiPath(ways), metric)
}

/// A default route of ours in the main table.
fn default_route(family: Family, protocol: u8, way: RouteAttribute, metric: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: address_family(family),
        protocol: RouteProtocol::from(protocol),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    route.attributes = vec![
        RouteAttribute::Table(MAIN_TABLE),
        way,
        RouteAttribute::Priority(metric),
    ];
    route
}

fn gateway_attribute(family: Family, hop: Hop) -> Option<RouteAttribute> {
    hop.gateway.map(|gateway| match (family, gateway) {
        // RFC 5549: an IPv4 route through an IPv6 gateway.
        (Family::V4, IpAddr::V6(gateway)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        _ => RouteAttribute::Gateway(gateway.into()),
    })
}

/// The part of a multipath route that leaves by these interfaces.
pub(crate) fn nexthops_by(route: &RouteMessage, by: impl Fn(u32) -> bool) -> RouteMessage {
    let mut route = route.clone();
    for attribute in &mut route.attributes {
        if let RouteAttribute::MultiPath(next_hops) = attribute {
            next_hops.retain(|hop| by(hop.interface_index));
        }
    }
    route
}

/// Has a route that is good for some time say how much of it is left.
pub(crate) fn set_lifetime(route: &mut RouteMessage, left: Duration) {
    let ticks = left.as_millis() * u128::from(USER_HZ) / 1000;
    // 0 would be for ever.
    let expires = match i32::try_from(ticks).unwrap_or(i32::MAX) {
        0 => -1,
        ticks => ticks,
    };
    for attribute in &mut route.attributes {
        if let RouteAttribute::CacheInfo(info) = attribute {
            info.expires = expires.cast_unsigned();
        }
    }
}

/// What the kernel reported, as it can be given back to it: without what only describes the moment.
pub(crate) fn reinstall(route: &RouteMessage) -> RouteMessage {
    let mut route = route.clone();
    route.header.flags &= RouteFlags::Onlink;
    // A route through a nexthop object is reported with the object's resolved hops, but not accepted with both.
    let by_object = route
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, RouteAttribute::NhId(_)));
    let expires = lifetime(&route).map(|left| {
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    });
    route.attributes.retain_mut(|attribute| match attribute {
        // Routes learned from router advertisements expire, and one that is over stays so.
        RouteAttribute::CacheInfo(_) => false,
        RouteAttribute::MultiPath(next_hops) => {
            for hop in next_hops {
                hop.flags &= RouteNextHopFlags::Onlink;
            }
            !by_object
        }
        RouteAttribute::Oif(_) | RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => !by_object,
        _ => true,
    });
    route
        .attributes
        .extend(expires.map(RouteAttribute::Expires));
    route
}

/// The request that deletes exactly this route.
pub(crate) fn deletion(route: &RouteMessage) -> RouteMessage {
    let mut route = reinstall(route);
    route.attributes.retain(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Table(_)
                | RouteAttribute::Destination(_)
                | RouteAttribute::Oif(_)
                | RouteAttribute::Gateway(_)
                | RouteAttribute::Via(_)
                | RouteAttribute::MultiPath(_)
                | RouteAttribute::NhId(_)
                | RouteAttribute::Priority(_)
                | RouteAttribute::PrefSource(_)
        )
    });
    route
}
