//! Route messages: reading them here, building them (`build.rs`), comparing them (`compare.rs`), putting them into words (`words.rs`).

mod build;
mod compare;
mod words;

use std::{net::IpAddr, time::Duration};

use failover_policy::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteNextHopFlags, RoutePreference, RouteScope, RouteType, RouteVia,
    },
};

pub(crate) use self::{
    build::{by_object, deletion, multipath, nexthops_by, reinstall, set_lifetime, unicast},
    compare::{deleted_together, same},
    words::{describe, interface_name, object},
};
use super::list::address_family;

/// The main table.
pub(crate) const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// Clock ticks a second in netlink (`USER_HZ`, 100 on every architecture that Rust's std supports).
pub(crate) const USER_HZ: u32 = 100;

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

/// Whether a route may lead to something on a link, by its header alone: the rest of a full routing table is not read. In IPv4 the scope
/// says so; in IPv6 nothing does, but no route of the internet is longer than 48.
pub(crate) fn may_be_on_link(header: &RouteHeader) -> bool {
    match header.address_family {
        AddressFamily::Inet => header.scope == RouteScope::Link,
        _ => header.destination_prefix_length > shortest(Family::V6),
    }
}

/// Least prefix length of a network that is believed to be on the link: 10.0.0.0/8, and the longest that a site is given (RFC 6177).
pub(crate) fn shortest(family: Family) -> u8 {
    match family {
        Family::V4 => 8,
        Family::V6 => 48,
    }
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
