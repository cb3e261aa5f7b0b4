//! Reading and building route messages.

use std::{net::IpAddr, time::Duration};

use failover_policy::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RoutePreference, RouteProtocol, RouteScope, RouteType, RouteVia,
};

use super::done::Object;
use super::list::address_family;
use crate::interface;

/// The main table.
pub(crate) const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// Clock ticks a second in `RTA_CACHEINFO` (`USER_HZ`, 100 on every architecture that Rust's std supports).
const USER_HZ: u32 = 100;

/// One next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Interface index.
    pub(crate) ifindex: u32,
    /// None: the destination itself is on the link.
    pub(crate) gateway: Option<IpAddr>,
    /// The gateway counts as on the link although no prefix contains it.
    pub(crate) onlink: bool,
}

/// Whether it is a default route as we know it: unicast, for every source and type of service.
pub(crate) fn is_default(header: &RouteHeader) -> bool {
    decides_all(header) && header.kind == RouteType::Unicast
}

/// Whether it decides about packets to everywhere, of every source and type of service: a default route, or an `unreachable`,
/// `blackhole`, `prohibit` or `throw` one in its place.
pub(crate) fn decides_all(header: &RouteHeader) -> bool {
    header.destination_prefix_length == 0 && header.source_prefix_length == 0 && header.tos == 0
}

/// Whether it is a default route that holds for packets of one source only (`default from 2001:db8::/56`, IPv6 with
/// `CONFIG_IPV6_SUBTREES`). For these it goes before every other default route, whatever its metric.
pub(crate) fn is_default_for_source(header: &RouteHeader) -> bool {
    header.destination_prefix_length == 0
        && header.source_prefix_length > 0
        && header.tos == 0
        && header.kind == RouteType::Unicast
}

/// Every next hop: one, or several for a multipath route.
pub(crate) fn hops(route: &RouteMessage) -> Vec<Hop> {
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(next_hops) = attribute {
            return next_hops
                .iter()
                .map(|hop| Hop {
                    ifindex: hop.interface_index,
                    gateway: gateway(&hop.attributes),
                    onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
                })
                .collect();
        }
    }
    let ifindex = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(ifindex) => Some(*ifindex),
            _ => None,
        });
    ifindex
        .map(|ifindex| Hop {
            ifindex,
            gateway: gateway(&route.attributes),
            onlink: route.header.flags.contains(RouteFlags::Onlink),
        })
        .into_iter()
        .collect()
}

/// Weight less one of each next hop, in the order of [`hops`]; 0 for the only one.
fn weights(route: &RouteMessage) -> Vec<u8> {
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(next_hops) = attribute {
            return next_hops.iter().map(|hop| hop.hops).collect();
        }
    }
    vec![0]
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Metric; the kernel leaves the attribute out when it is 0.
pub(crate) fn metric(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        })
        .unwrap_or(0)
}

/// Table; the header's byte does for small numbers only.
pub(crate) fn table(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or(u32::from(route.header.table))
}

/// Preferred source address.
pub(crate) fn prefsrc(route: &RouteMessage) -> Option<IpAddr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(address) => ip(address),
            _ => None,
        })
}

/// MTU, window and so on.
pub(crate) fn metrics(route: &RouteMessage) -> Vec<RouteMetric> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => Some(metrics.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

/// Destination prefix; that of all addresses for a default route.
pub(crate) fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip(address),
            _ => None,
        });
    let length = route.header.destination_prefix_length;
    match address {
        Some(address) => IpNet::new(address, length).ok(),
        None if length == 0 => Some(unspecified(&route.header)),
        None => None,
    }
}

/// Source prefix of a route that holds for one source only.
fn source(route: &RouteMessage) -> Option<IpNet> {
    let length = route.header.source_prefix_length;
    let mut attributes = route.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        RouteAttribute::Source(address) => IpNet::new(ip(address)?, length).ok(),
        _ => None,
    })
}

fn unspecified(header: &RouteHeader) -> IpNet {
    everywhere(if header.address_family == address_family(Family::V4) {
        Family::V4
    } else {
        Family::V6
    })
}

/// The destination of a default route: all addresses.
pub(crate) fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

/// How long a route is good for; None: for ever. Zero: it is over, but the kernel has not swept it up yet (`fib6_age` in
/// `net/ipv6/ip6_fib.c` runs every 30 s).
pub(crate) fn lifetime(route: &RouteMessage) -> Option<Duration> {
    let expires = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            // `rta_expires` is signed, and 0 without an end (`rtnl_put_cacheinfo` in `net/core/rtnetlink.c`).
            RouteAttribute::CacheInfo(info) => Some(info.expires.cast_signed()),
            _ => None,
        })?;
    let left = u64::try_from(expires.max(0)).unwrap_or_default();
    (expires != 0).then(|| Duration::from_millis(left * 1000 / u64::from(USER_HZ)))
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

/// What a router says of itself compared with others (RFC 4191, 2.1), the best the greatest. Without a word: medium.
pub(crate) fn preference(route: &RouteMessage) -> i8 {
    let preference = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Preference(preference) => Some(*preference),
            _ => None,
        });
    match preference {
        Some(RoutePreference::High) => 1,
        Some(RoutePreference::Low) => -1,
        _ => 0,
    }
}

/// The nexthop object that a route leaves by.
pub(crate) fn nexthop_id(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::NhId(id) => Some(*id),
            _ => None,
        })
}

/// The part of a multipath route that leaves by these interfaces.
pub(crate) fn legs(route: &RouteMessage, by: impl Fn(u32) -> bool) -> RouteMessage {
    let mut route = route.clone();
    for attribute in &mut route.attributes {
        if let RouteAttribute::MultiPath(next_hops) = attribute {
            next_hops.retain(|hop| by(hop.interface_index));
        }
    }
    route
}

/// Whether two routes do the same: nothing has to be changed when one is wanted and the other stands.
pub(crate) fn same(a: &RouteMessage, b: &RouteMessage) -> bool {
    let way = |route: &RouteMessage| match nexthop_id(route) {
        // The kernel reports what stands behind it, too.
        Some(_) => Vec::new(),
        None => {
            // The kernel sorts them as it likes.
            let hops = hops(route).into_iter().zip(weights(route));
            let mut way: Vec<_> = hops
                .map(|(hop, weight)| (hop.ifindex, hop.gateway, weight))
                .collect();
            way.sort_unstable();
            way
        }
    };
    table(a) == table(b)
        && nexthop_id(a) == nexthop_id(b)
        && metric(a) == metric(b)
        && destination(a) == destination(b)
        && a.header.protocol == b.header.protocol
        && way(a) == way(b)
        && prefsrc(a) == prefsrc(b)
        && metrics(a) == metrics(b)
}

/// Whether the request that deletes one may hit the other: of a multipath route the kernel compares the first next hops only, as many as
/// the other has (`fib_nh_match` in `net/ipv4/fib_semantics.c`).
pub(crate) fn deleted_together(a: &RouteMessage, b: &RouteMessage) -> bool {
    let way = |route: &RouteMessage| match nexthop_id(route) {
        Some(_) => None,
        None => hops(route).first().map(|hop| (hop.ifindex, hop.gateway)),
    };
    nexthop_id(a) == nexthop_id(b)
        && metric(a) == metric(b)
        && prefsrc(a) == prefsrc(b)
        && way(a) == way(b)
}

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

fn gateway_attribute(family: Family, hop: Hop) -> Option<RouteAttribute> {
    hop.gateway.map(|gateway| match (family, gateway) {
        // RFC 5549: an IPv4 route through an IPv6 gateway.
        (Family::V4, IpAddr::V6(gateway)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        _ => RouteAttribute::Gateway(gateway.into()),
    })
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

/// A route as what something was done to.
pub(crate) fn object(route: &RouteMessage) -> Object {
    Object::Route(describe(route))
}

/// The route as `ip route` prints it, as far as a person needs it.
pub(crate) fn describe(route: &RouteMessage) -> String {
    let mut text = match route.header.kind {
        RouteType::BlackHole => "blackhole ".to_owned(),
        RouteType::Unreachable => "unreachable ".to_owned(),
        RouteType::Prohibit => "prohibit ".to_owned(),
        RouteType::Throw => "throw ".to_owned(),
        _ => String::new(),
    };
    text += &match destination(route) {
        Some(destination) if destination.prefix_len() > 0 => destination.to_string(),
        _ => "default".to_owned(),
    };
    if let Some(source) = source(route) {
        text += &format!(" from {source}");
    }
    // One that leads nowhere names the loopback in IPv6.
    let hops = match route.header.kind {
        RouteType::Unicast => hops(route),
        _ => Vec::new(),
    };
    for hop in hops {
        if let Some(gateway) = hop.gateway {
            text += &format!(" via {gateway}");
        }
        text += &format!(" dev {}", interface_name(hop.ifindex));
    }
    if let Some(id) = nexthop_id(route) {
        text += &format!(" nhid {id}");
    }
    if table(route) != MAIN_TABLE {
        text += &format!(" table {}", table(route));
    }
    text += &match route.header.protocol {
        RouteProtocol::Other(number) => format!(" proto {number}"),
        // The crate spells some of them with a capital.
        named => format!(" proto {named}").to_lowercase(),
    };
    if let Some(source) = prefsrc(route) {
        text += &format!(" src {source}");
    }
    text + &format!(" metric {}", metric(route))
}

/// Name of an interface, or its number when it is gone.
pub(crate) fn interface_name(ifindex: u32) -> String {
    interface::name(ifindex).unwrap_or_else(|| format!("if{ifindex}"))
}
