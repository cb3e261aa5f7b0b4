//! Others' routes in the main table that are no ordinary default routes, as plain data for the diagnosis. Reads only.

use std::net::IpAddr;

use anyhow::Result;
use failover_policy::Family;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage, RouteProtocol, RouteType};

use crate::netlink::Netlink;
use crate::route::{router::main_table, wire::message};

/// A route, as far as the diagnosis needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) family: Family,
    pub(crate) kind: Kind,
    pub(crate) destination: IpNet,
    /// Index of the interface and gateway of each next hop.
    pub(crate) hops: Vec<(u32, Option<IpAddr>)>,
    pub(crate) metric: u32,
    /// As `ip route` prints it.
    pub(crate) text: String,
}

/// What is special about a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It leads to a part of the internet, or to a network of the user's own.
    Specific,
    /// It says that a network is on the link that is too wide to be there.
    Wide,
    /// A default route for packets of one source.
    ForSource,
    /// A default route that refuses or drops: a kill switch.
    Refusing,
}

/// All of both families that do not bear our protocol number. Those of routing daemons are left out: they follow the daemon's own
/// knowledge, and there may be a million of them.
pub(crate) fn routes(netlink: &mut Netlink, ours: u8) -> Result<Vec<Route>> {
    let ours = RouteProtocol::from(ours);
    let mut found = Vec::new();
    for family in Family::ALL {
        let routes = netlink.routes(family, &main_table(), |header| {
            header.protocol != ours && kind(header, family).is_some()
        })?;
        found.extend(routes.iter().filter_map(|route| describe(route, family)));
    }
    Ok(found)
}

fn kind(header: &RouteHeader, family: Family) -> Option<Kind> {
    let refusing = matches!(
        header.kind,
        RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit
    );
    if header.destination_prefix_length == 0 {
        // The kernel has an unreachable one of its own behind all others in IPv6.
        return match header.protocol {
            RouteProtocol::Kernel => None,
            _ if refusing => Some(Kind::Refusing),
            _ => message::is_default_for_source(header).then_some(Kind::ForSource),
        };
    }
    if header.kind != RouteType::Unicast {
        return None;
    }
    match header.protocol {
        RouteProtocol::Kernel | RouteProtocol::Ra
            if header.destination_prefix_length < message::shortest(family) =>
        {
            Some(Kind::Wide)
        }
        RouteProtocol::Boot | RouteProtocol::Static | RouteProtocol::Dhcp | RouteProtocol::Ra => {
            Some(Kind::Specific)
        }
        _ => None,
    }
}

fn describe(route: &RouteMessage, family: Family) -> Option<Route> {
    let hops = message::hops(route);
    let mut kind = kind(&route.header, family)?;
    // A router that advertises a route to a wide network is no claim about the link.
    if kind == Kind::Wide && hops.iter().any(|hop| hop.gateway.is_some()) {
        kind = Kind::Specific;
    }
    Some(Route {
        family,
        kind,
        destination: message::destination(route)?,
        hops: hops.iter().map(|hop| (hop.ifindex, hop.gateway)).collect(),
        metric: message::metric(route),
        text: message::describe(route),
    })
}
