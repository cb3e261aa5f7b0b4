//! What a switch is to come to, and which foreign routes have to make way for it.

use failover_policy::UplinkId;
use rtnetlink::packet_route::route::RouteMessage;

use super::Transaction;
use crate::route::{
    error::Error,
    install::{
        foreign::Fixed,
        plan::{self, Wanted, plan},
        report::Confirmed,
    },
    wire::message::{self, metric},
};

/// What a switch is to come to.
pub(super) struct Outline {
    /// The routes of ours that are wanted, the active one first.
    pub(super) plan: Vec<Wanted>,
    /// The first of them.
    pub(super) active: Wanted,
    /// Foreign default routes that stay.
    pub(super) fixed: Vec<Fixed>,
    /// Their metrics.
    pub(super) taken: Vec<u32>,
}

impl Transaction<'_> {
    /// Plans our routes around the foreign ones that stay, and puts those on record that have to make way.
    pub(super) fn outline(&mut self, ours: &[RouteMessage]) -> Result<Outline, Error> {
        let (router, family) = (&mut *self.router, self.family);
        let withdrawn = router.withdrawn[family];
        let mut fixed = router.fixed(family, ours);
        fixed.extend_from_slice(&self.unlisted);
        let taken: Vec<u32> = fixed.iter().map(|fixed| fixed.metric).collect();
        let plan = plan(
            &router.links,
            family,
            &router.config,
            self.to,
            withdrawn,
            &taken,
        );
        let Some(active) = plan.first().copied() else {
            return Err(Error::NoEgressPath {
                uplinks: self.to,
                family,
            });
        };
        self.rivals = self.rivals_of(&plan);
        let router = &mut *self.router;
        if !self.rivals.is_empty() {
            router
                .displaced
                .record(&self.rivals, &router.foreign[family]);
        }
        self.confirmed = Confirmed {
            displaced: !self.rivals.is_empty(),
            ..Confirmed::default()
        };
        Ok(Outline {
            plan,
            active,
            fixed,
            taken,
        })
    }

    /// Foreign default routes of the uplinks that beat the active one, tie with one of ours, or belong to a withdrawn uplink.
    fn rivals_of(&self, plan: &[Wanted]) -> Vec<RouteMessage> {
        let router = &*self.router;
        let withdrawn = router.withdrawn[self.family];
        let best = plan.first().map_or(0, |active| active.metric);
        let is_rival = |route: &&RouteMessage| {
            let uplinks: Vec<Option<UplinkId>> = message::hops(route)
                .iter()
                .map(|hop| router.uplink(hop.ifindex))
                .collect();
            let of_uplink = uplinks.iter().any(Option::is_some);
            let out = uplinks.iter().all(|uplink| {
                uplink.is_some_and(|uplink| withdrawn.contains(uplink) && !self.to.contains(uplink))
            });
            let metric = metric(route);
            let ties = plan::is_ours(&router.links, &router.config, metric)
                || plan.iter().any(|ours| ours.metric == metric);
            of_uplink && (out || ties || metric < best)
        };
        let foreign = router.foreign[self.family].iter();
        foreign.filter(is_rival).cloned().collect()
    }
}
