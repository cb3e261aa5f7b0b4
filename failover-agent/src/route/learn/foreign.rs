//! The default routes of others in the main table, as they stand.

use failover_policy::Family;
use rtnetlink::packet_route::route::RouteMessage;

use crate::route::{
    router::Router,
    wire::list::address_family,
    wire::message::{self, metric},
};

impl Router {
    /// Takes over the main table's default routes, in the kernel's order, except for ours.
    pub(crate) fn keep_foreign(&mut self, family: Family, mut defaults: Vec<RouteMessage>) {
        self.note_overtaken(family, &defaults);
        let ours = self.config.protocol;
        defaults.retain(|route| u8::from(route.header.protocol) != ours);
        self.foreign[family] = defaults;
        self.part_foreign();
    }

    /// In IPv6 the kernel makes one multipath route of all that have one metric, whoever owns them: what leads by uplinks counts for
    /// itself, and so does the rest.
    pub(crate) fn part_foreign(&mut self) {
        let mut parted = Vec::new();
        for route in std::mem::take(&mut self.foreign.v6) {
            if self.is_merged(&route) && self.is_of_uplink(&route) {
                let by_uplink = |ifindex| self.uplink(ifindex).is_some();
                parted.push(message::nexthops_by(&route, by_uplink));
                parted.push(message::nexthops_by(&route, |ifindex| !by_uplink(ifindex)));
            } else {
                parted.push(route);
            }
        }
        self.foreign.v6 = parted;
    }

    /// Takes note of the foreign routes at one metric with the active one of ours that stand in front of it. `routes` are all
    /// default routes in the kernel's order.
    fn note_overtaken(&mut self, family: Family, routes: &[RouteMessage]) {
        let ours = self.config.protocol;
        let is_ours = |route: &RouteMessage| u8::from(route.header.protocol) == ours;
        let mut overtaken = Vec::new();
        for (position, route) in routes.iter().enumerate() {
            let behind = &routes[position + 1..];
            let ours_behind = behind
                .iter()
                .any(|other| is_ours(other) && metric(other) == metric(route));
            if family == Family::V4 && !is_ours(route) && ours_behind {
                overtaken.push(metric(route));
            }
        }
        self.overtaken = match family {
            Family::V4 => overtaken,
            Family::V6 => return,
        };
    }

    /// Whether such a route stood at the last scan, as `ip route` prints it.
    pub fn foreign_stands(&self, family: Family, route: &str) -> bool {
        let mut foreign = self.foreign[family].iter();
        foreign.any(|other| message::describe(other) == route)
    }

    /// Whether one of its next hops is an uplink.
    pub(crate) fn is_of_uplink(&self, route: &RouteMessage) -> bool {
        let hops = message::hops(route);
        hops.iter().any(|hop| self.uplink(hop.ifindex).is_some())
    }

    /// Whether an IPv6 multipath route has next hops that are no uplinks: the kernel may have made it of ours and a foreign one.
    pub(crate) fn is_merged(&self, route: &RouteMessage) -> bool {
        let hops = message::hops(route);
        route.header.address_family == address_family(Family::V6)
            && hops.len() > 1
            && hops.iter().any(|hop| self.uplink(hop.ifindex).is_none())
    }

    /// A route of ours without what the kernel has merged into it.
    pub(crate) fn own_nexthops(&self, route: &RouteMessage) -> RouteMessage {
        match self.is_merged(route) {
            true => message::nexthops_by(route, |ifindex| self.uplink(ifindex).is_some()),
            false => route.clone(),
        }
    }
}
