//! Our default routes as messages.

use std::net::IpAddr;

use failover_policy::{Family, UplinkSet};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};

use super::{
    plan::{Egress, Wanted},
    transaction::Carriers,
};
use crate::route::{
    link::EgressPath,
    link::Link,
    router::Router,
    wire::message::{self, Hop, MAIN_TABLE},
};

impl Router {
    /// A route of the plan; that of a balance group by `carriers` only. Without a group of nexthop objects it is a plain multipath
    /// route.
    pub(crate) fn route(
        &self,
        family: Family,
        wanted: Wanted,
        carriers: &Carriers,
    ) -> RouteMessage {
        let Wanted { metric, egress, .. } = wanted;
        let protocol = self.config.protocol;
        let members = match egress {
            Egress::One(uplink) => UplinkSet::only(uplink),
            Egress::Group(_) => carriers.members,
        };
        let paths: Vec<(&Link, &EgressPath)> = (self.links.in_order(members))
            .filter_map(|uplink| {
                let link = &self.links[uplink];
                Some((link, link.families[family].as_ref()?))
            })
            .collect();
        let mut route = match (egress, &carriers.group, paths.as_slice()) {
            (Egress::Group(_), Some(group), _) => {
                message::by_object(family, protocol, group.id, metric)
            }
            (_, _, [(link, path)]) => {
                return self.default_route(link, family, path, MAIN_TABLE, metric);
            }
            (_, _, paths) => {
                let ways: Vec<(Hop, u32)> = paths
                    .iter()
                    .map(|(link, path)| (hop(link, path), link.weight))
                    .collect();
                message::multipath(family, protocol, &ways, metric)
            }
        };
        // What all have in common: a source address is one uplink's, and so is an MTU that is not everybody's.
        if let Some((_, first)) = paths.first()
            && paths
                .iter()
                .all(|(_, path)| path.template.metrics == first.template.metrics)
        {
            let prefsrc = first.template.prefsrc.filter(|_| paths.len() == 1);
            shape(&mut route, prefsrc, &first.template.metrics);
        }
        route
    }

    /// A default route of ours by one uplink.
    pub(crate) fn default_route(
        &self,
        link: &Link,
        family: Family,
        path: &EgressPath,
        table: u32,
        metric: u32,
    ) -> RouteMessage {
        let mut route = message::unicast(
            family,
            table,
            self.config.protocol,
            message::everywhere(family),
            hop(link, path),
            metric,
        );
        shape(&mut route, path.template.prefsrc, &path.template.metrics);
        route
    }
}

/// The egress path of an uplink.
pub(crate) fn hop(link: &Link, path: &EgressPath) -> Hop {
    Hop {
        ifindex: link.ifindex,
        gateway: path.gateway,
        onlink: path.template.onlink,
    }
}

/// What a route of ours copies from the one that was there.
fn shape(route: &mut RouteMessage, prefsrc: Option<IpAddr>, metrics: &[RouteMetric]) {
    let source = prefsrc.map(|source| RouteAttribute::PrefSource(source.into()));
    route.attributes.extend(source);
    if !metrics.is_empty() {
        let metrics = RouteAttribute::Metrics(metrics.to_vec());
        route.attributes.push(metrics);
    }
}
