//! Routes in words.

use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteType};

use super::{MAIN_TABLE, destination, hops, metric, nexthop_id, prefsrc, source, table};
use crate::{interface, route::wire::done::Object};

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
