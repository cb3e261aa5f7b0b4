//! Default routes of others that are not ours to displace: those of interfaces that are no uplinks (a VPN, a second LAN), and
//! `unreachable`, `blackhole`, `prohibit` and `throw` ones (kill switches). They stay whatever metric they have; ours find a place
//! beside them (`plan.rs`), and the status says which ones concern ours.

use failover_policy::{Family, UplinkSet};
use rtnetlink::packet_route::route::{RouteMessage, RouteType};

use super::plan::{Egress, Wanted};
use crate::route::{
    router::Router,
    wire::list::address_family,
    wire::message::{self, interface_name, metric},
};

/// A foreign default route that concerns ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignDefault {
    /// Its family.
    pub family: Family,
    /// As `ip route` prints it.
    pub route: String,
    /// Whether it rejects or drops what it applies to.
    pub rejects: bool,
    /// What it means for ours.
    pub effect: Effect,
}

/// What a foreign default route means for one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It stands in front of the route of the active uplinks, which has this metric: where new traffic leaves is its decision.
    InFront {
        /// Whose route it is.
        uplinks: UplinkSet,
        /// The metric of that route.
        metric: u32,
    },
    /// It has the metric that the route of these uplinks should have.
    HasMetric {
        /// Whose route it is.
        uplinks: UplinkSet,
        /// The metric that it should have.
        wanted: u32,
        /// The metric that it has: the same where both can stand, ours in front.
        metric: u32,
    },
}

/// A default route that stays, as far as the places of ours depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) metric: u32,
    route: String,
    rejects: bool,
}

impl Fixed {
    fn of(route: &RouteMessage) -> Self {
        Fixed {
            metric: metric(route),
            route: message::describe(route),
            rejects: route.header.kind != RouteType::Unicast,
        }
    }

    /// One that the kernel does not list, but says that it has: an IPv6 route without a gateway between the legs of a multipath route.
    pub(crate) fn unlisted(metric: u32) -> Self {
        Fixed {
            metric,
            route: format!("a default route with metric {metric} that the kernel does not list"),
            rejects: false,
        }
    }
}

impl Router {
    /// The default routes that stay. `ours` are those that bear our protocol number: in IPv6 a foreign one that was appended to
    /// ours is in the list as a part of it.
    pub(crate) fn fixed(&self, family: Family, ours: &[RouteMessage]) -> Vec<Fixed> {
        let foreign = self.foreign[family].iter();
        let listed = foreign
            .filter(|route| !self.is_of_uplink(route))
            .map(Fixed::of);
        let merged = ours
            .iter()
            .filter(|route| self.is_merged(route))
            .map(|route| {
                let mut foreign = message::hops(route);
                foreign.retain(|hop| self.uplink(hop.ifindex).is_none());
                let mut text = "default".to_owned();
                for hop in foreign {
                    if let Some(gateway) = hop.gateway {
                        text += &format!(" via {gateway}");
                    }
                    text += &format!(" dev {}", interface_name(hop.ifindex));
                }
                Fixed {
                    metric: metric(route),
                    route: format!("{text} metric {}", metric(route)),
                    rejects: false,
                }
            });
        listed.chain(merged).collect()
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
                parted.push(message::legs(&route, by_uplink));
                parted.push(message::legs(&route, |ifindex| !by_uplink(ifindex)));
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

    /// The foreign default routes that concern ours, as the last switch or scan has found them.
    pub fn foreign_defaults(&self) -> impl Iterator<Item = &ForeignDefault> {
        self.concerning.values().flatten()
    }
}

/// What the routes that stay mean for the plan that was made around them.
pub(crate) fn concerning(family: Family, plan: &[Wanted], fixed: &[Fixed]) -> Vec<ForeignDefault> {
    let Some(active) = plan.first() else {
        return Vec::new();
    };
    let uplinks = |wanted: &Wanted| match wanted.egress {
        Egress::One(uplink) => UplinkSet::only(uplink),
        Egress::Group(members) => members,
    };
    let mut all = Vec::new();
    for fixed in fixed {
        let effect = if fixed.metric < active.metric {
            Effect::InFront {
                uplinks: uplinks(active),
                metric: active.metric,
            }
        } else if let Some(ours) = plan.iter().find(|ours| ours.intended == fixed.metric) {
            Effect::HasMetric {
                uplinks: uplinks(ours),
                wanted: ours.intended,
                metric: ours.metric,
            }
        } else {
            continue;
        };
        all.push(ForeignDefault {
            family,
            route: fixed.route.clone(),
            rejects: fixed.rejects,
            effect,
        });
    }
    all
}
