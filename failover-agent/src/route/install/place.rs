//! How a route of ours gets its place in the main table. Pure.
//!
//! Two peculiarities of the kernel decide the flags. IPv4 (`fib_table_insert` in `net/ipv4/fib_trie.c`) lets any number of
//! routes share a metric: a plain create goes in front of them, a replace hits the first, whoever owns it. IPv6
//! (`fib6_add_rt2node` in `net/ipv6/ip6_fib.c`) makes routes of one metric siblings of a multipath route, and
//! refuses a second one with the same gateway, whoever owns it.

use failover_policy::Family;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        route::{RouteAttribute, RouteMessage, RouteProtocol},
    },
};

use crate::route::{
    wire::list::{Request, address_family},
    wire::message::{self, metric, same},
};

/// What is wanted (the active one first) and does not stand, in the order in which it comes. The one that is to come to the `front`
/// comes in any case.
pub(crate) fn in_order<'a>(
    wanted: &'a [RouteMessage],
    ours: &[RouteMessage],
    front: Option<&RouteMessage>,
) -> Vec<&'a RouteMessage> {
    let best = ours.iter().map(metric).min();
    let behind = |route: &&RouteMessage| best.is_some_and(|best| metric(route) > best);
    let (active, standbys) = wanted.split_at(wanted.len().min(1));
    let (early, late): (Vec<_>, Vec<_>) = standbys.iter().partition(behind);
    early
        .into_iter()
        .chain(active)
        .chain(late)
        .filter(|route| {
            let to_front = front.is_some_and(|front| std::ptr::eq(front, *route));
            to_front || !ours.iter().any(|other| same(route, other))
        })
        .collect()
}

/// How to put one of our routes in its place: requests, each with whether its answer decides about it. `occupied` are our routes and
/// those that will be displaced, `taken` the metrics of those that stay. `overtaken`: one of these stands in front of ours.
pub(crate) fn in_place(
    family: Family,
    route: &RouteMessage,
    ours: &[RouteMessage],
    occupied: &[RouteMessage],
    taken: &[u32],
    overtaken: bool,
) -> Vec<(Request, bool)> {
    let metric_of_route = metric(route);
    let at_metric = |routes: &[RouteMessage]| {
        let mut routes = routes.iter();
        routes.any(|other| metric(other) == metric_of_route)
    };
    let twin = ours
        .iter()
        .find(|other| message::deleted_together(other, route));
    let add = |flags| vec![(new(route, NLM_F_CREATE | flags), true)];
    match (family, twin) {
        (Family::V4, Some(twin)) if overtaken && taken.contains(&metric_of_route) => {
            to_the_front(route, twin, taken)
        }
        // Ours stands in front, and is the one that is hit. A plain create would do, but the request that deletes the old one
        // afterwards could hit the new one.
        (Family::V4, Some(_)) => add(NLM_F_REPLACE),
        // In front of whatever is there, and goes later or stays.
        (Family::V4, None) if at_metric(occupied) || taken.contains(&metric_of_route) => add(0),
        // Only ours can be hit. A rival would share the traffic with ours beside it: it is on record.
        (Family::V6, _) if at_metric(occupied) => add(NLM_F_REPLACE),
        // No route should be there; if one is, the kernel's refusal says so.
        (_, _) => add(NLM_F_EXCL),
    }
}

/// The kernel does not take the same route twice, so ours has to leave before it can come to the front. Meanwhile a copy carries the
/// traffic that is one better, unless that would put it in front of a foreign route that is better than ours: then this one carries it.
fn to_the_front(route: &RouteMessage, twin: &RouteMessage, taken: &[u32]) -> Vec<(Request, bool)> {
    let better = metric(route).checked_sub(1);
    let copy = better
        .filter(|better| !taken.contains(better))
        .map(|better| with_metric(route, better));
    let mut steps = Vec::new();
    steps.extend(copy.as_ref().map(|copy| (new(copy, NLM_F_CREATE), false)));
    steps.push((removal(twin), false));
    steps.push((new(route, NLM_F_CREATE), true));
    steps.extend(copy.as_ref().map(|copy| (removal(copy), false)));
    steps
}

fn with_metric(route: &RouteMessage, metric: u32) -> RouteMessage {
    let mut route = route.clone();
    route
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Priority(_)));
    route.attributes.push(RouteAttribute::Priority(metric));
    route
}

fn new(route: &RouteMessage, flags: u16) -> Request {
    (RouteNetlinkMessage::NewRoute(route.clone()), flags)
}

/// How to remove a foreign one. Of the next hops of an IPv6 multipath route, which may belong to several owners, the kernel reports the
/// protocol of the first one only.
pub(crate) fn removal_of_foreign(route: &RouteMessage) -> Request {
    let mut deletion = message::deletion(route);
    let attributes = &deletion.attributes;
    let multipath = |attribute| matches!(attribute, &RouteAttribute::MultiPath(_));
    if deletion.header.address_family == address_family(Family::V6)
        && attributes.iter().any(multipath)
    {
        deletion.header.protocol = RouteProtocol::Unspec;
    }
    (RouteNetlinkMessage::DelRoute(deletion), 0)
}

/// How to remove one.
pub(crate) fn removal(route: &RouteMessage) -> Request {
    (RouteNetlinkMessage::DelRoute(message::deletion(route)), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_before_the_active_route_that_would_take_its_traffic() {
        let routes = |metrics: &[u32]| -> Vec<RouteMessage> {
            let route = |metric: &u32| message::by_object(Family::V4, 136, 1, *metric);
            metrics.iter().map(route).collect()
        };
        let order = |wanted: &[u32], ours: &[u32]| -> Vec<u32> {
            let (wanted, ours) = (routes(wanted), routes(ours));
            in_order(&wanted, &ours, None)
                .into_iter()
                .map(metric)
                .collect()
        };
        // The former active one gets its standby route first.
        assert_eq!(order(&[50, 100], &[49, 101]), [100, 50]);
        // 15 beats 20, which is active until 10 stands.
        assert_eq!(order(&[10, 15, 102], &[20, 100, 101]), [102, 10, 15]);
        // Others' routes carry the traffic: nothing of ours may take it before the active one.
        assert_eq!(order(&[50, 100, 101], &[]), [50, 100, 101]);
        assert_eq!(order(&[50, 100], &[50, 100]), Vec::<u32>::new());
    }
}
