//! Default routes of others that are not ours to displace: those of interfaces that are no uplinks (a VPN, a second LAN), and
//! `unreachable`, `blackhole`, `prohibit` and `throw` ones (kill switches). They stay whatever metric they have; ours find a place
//! beside them (`plan.rs`), and the status says which ones concern ours.

use failover_policy::{Family, UplinkSet};
use rtnetlink::packet_route::route::{RouteMessage, RouteType};

use super::plan::{Egress, Wanted};
use crate::route::{
    router::Router,
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

    /// One that the kernel does not list, but says that it has: an IPv6 route without a gateway between the nexthops of a multipath route.
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
