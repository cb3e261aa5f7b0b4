//! Comparing route messages.

use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};

use super::{destination, hops, metric, metrics, nexthop_id, prefsrc, table};

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

/// Weight less one of each next hop, in the order of [`hops`]; 0 for the only one.
fn weights(route: &RouteMessage) -> Vec<u8> {
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(next_hops) = attribute {
            return next_hops.iter().map(|hop| hop.hops).collect();
        }
    }
    vec![0]
}
