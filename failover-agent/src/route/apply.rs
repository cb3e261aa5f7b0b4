//! The switch: make before break in the main table.
//!
//! The active uplink's default route stands at `active_metric`, those of the others at `standby_metric` + rank. A switch
//!
//! 1. records on disk the foreign default routes that would beat or tie with ours;
//! 2. adds the old active uplink's route at its standby metric, then puts the new one at the active metric, in one
//!    request: in place of ours where ours stands there (the kernel swaps atomically), as a new route otherwise;
//! 3. reads our routes back;
//! 4. removes what is superfluous, and the foreign routes of step 1.
//!
//! If step 2 or 3 fails, our routes are made again what they were.
//!
//! Two peculiarities of the kernel decide the flags. IPv4 (`fib_table_insert` in `net/ipv4/fib_trie.c`) lets any number of
//! routes share a metric: a plain create goes in front of them, a replace hits the first, whoever owns it. IPv6
//! (`fib6_add_rt2node` in `net/ipv6/ip6_fib.c`) makes routes of one metric siblings of a multipath route, and
//! refuses a second one with the same gateway, whoever owns it.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        route::{RouteAttribute, RouteMessage},
    },
};

use super::{
    Confirmed, Path, Report, Router, index,
    list::Request,
    message::{self, Hop, MAIN_TABLE, metric, same},
    table,
};
use crate::{
    failure::Failure,
    policy::{Family, UplinkId},
};

impl Router {
    /// Makes `to` the active uplink of `family`. When it returns, its default route has been read back from the kernel;
    /// there was no instant without a default route. Without anything to change it changes nothing.
    ///
    /// # Errors
    /// The new route was refused or is not there: then everything is as it was before.
    pub fn activate(&mut self, family: Family, to: UplinkId) -> Result<Confirmed> {
        let started = Instant::now();
        let result = match self.try_activate(family, to, started)? {
            Attempt::Done(confirmed) => confirmed,
            Attempt::Taken => {
                // Someone has just put a route where we thought none was: look again, once.
                self.refresh_foreign()?;
                match self.try_activate(family, to, started)? {
                    Attempt::Done(confirmed) => confirmed,
                    Attempt::Taken => {
                        bail!("default routes of {family} change faster than they can be replaced")
                    }
                }
            }
        };
        self.active[index(family)] = Some(to);
        Ok(result)
    }

    fn try_activate(&mut self, family: Family, to: UplinkId, started: Instant) -> Result<Attempt> {
        let wanted = self.wanted(family, to)?;
        let (active, standbys) = wanted.split_first().context("no route to activate")?;
        let rivals = self.rivals(family)?;
        let before = self.ours(family)?;

        let snapshot = self.displaced.snapshot();
        if !rivals.is_empty() {
            self.displaced.record(&rivals)?;
        }

        let mut confirmed = Confirmed::default();
        let mut installs = Vec::new();
        for route in standbys.iter().chain([active]) {
            if !before.iter().any(|other| same(route, other)) {
                installs.push(route);
            }
        }
        let requests = installs
            .iter()
            .map(|route| install(family, route, &before, &rivals))
            .collect();
        let mut refusal = None;
        for (route, answer) in installs.iter().zip(self.netlink.commit(requests)?) {
            let line = message::describe(route);
            match answer {
                Ok(()) => confirmed.changes.push(format!("added {line}")),
                Err(refused) if refused.exists() => {
                    return self
                        .undo(family, &before, &rivals, snapshot)
                        .map(|()| Attempt::Taken);
                }
                Err(refused) if std::ptr::eq(*route, active) => {
                    refusal = Some(format!("the kernel refused {line}: {refused}"));
                }
                Err(refused) => confirmed
                    .problems
                    .push(format!("not added {line}: {refused}")),
            }
        }
        confirmed.routed = started.elapsed();

        let after = if installs.is_empty() {
            before.clone()
        } else {
            self.ours(family)?
        };
        if refusal.is_none() && !after.iter().any(|route| same(route, active)) {
            refusal = Some(format!(
                "the kernel does not show {} after accepting it",
                message::describe(active)
            ));
        }
        if let Some(refusal) = refusal {
            self.undo(family, &before, &rivals, snapshot)
                .with_context(|| format!("{refusal}, and undoing failed"))?;
            bail!("{refusal}");
        }
        confirmed.confirmed = started.elapsed();

        let superfluous: Vec<&RouteMessage> = after
            .iter()
            .filter(|route| !wanted.iter().any(|other| same(route, other)))
            .collect();
        let leaving = || {
            let superfluous = superfluous.iter().map(|route| ("removed", *route));
            superfluous.chain(rivals.iter().map(|route| ("displaced", route)))
        };
        let requests = leaving().map(|(_, route)| removal(route)).collect();
        for ((done, route), answer) in leaving().zip(self.netlink.commit(requests)?) {
            let line = format!("{done} {}", message::describe(route));
            match answer {
                Err(refused) if !refused.missing() => {
                    confirmed.problems.push(format!("not {line}: {refused}"));
                }
                // A rival that tied in IPv6 has been replaced already.
                _ => confirmed.changes.push(line),
            }
        }
        self.foreign[index(family)].retain(|route| !rivals.contains(route));
        confirmed.settled = started.elapsed();
        Ok(Attempt::Done(confirmed))
    }

    /// Our routes as they should be, the active one first.
    fn wanted(&self, family: Family, to: UplinkId) -> Result<Vec<RouteMessage>> {
        let mut wanted = Vec::new();
        for (rank, link) in self.links.iter().enumerate() {
            let Some(path) = &link.families[index(family)] else {
                continue;
            };
            if rank == to.0 {
                wanted.insert(
                    0,
                    self.default_route(rank, family, path, MAIN_TABLE, self.config.active_metric),
                );
            } else {
                wanted.push(self.default_route(
                    rank,
                    family,
                    path,
                    MAIN_TABLE,
                    self.standby_metric(rank),
                ));
            }
        }
        if self
            .links
            .get(to.0)
            .is_none_or(|link| link.families[index(family)].is_none())
        {
            bail!("uplink {} has no way out for {family}", to.0);
        }
        Ok(wanted)
    }

    /// Foreign default routes of the uplinks that beat or tie with one of ours.
    fn rivals(&self, family: Family) -> Result<Vec<RouteMessage>> {
        let mut rivals = Vec::new();
        for route in &self.foreign[index(family)] {
            let of_uplink = message::hops(route)
                .iter()
                .any(|hop| self.uplink(hop.ifindex).is_some());
            let key = self.tie(metric(route));
            if of_uplink && (key.is_some() || metric(route) < self.config.active_metric) {
                rivals.push(route.clone());
            } else if let Some(key) = key {
                return Err(Failure::MetricTaken {
                    key,
                    metric: metric(route),
                    route: message::describe(route),
                }
                .into());
            }
        }
        Ok(rivals)
    }

    /// Which of our metrics this is.
    pub(super) fn tie(&self, metric: u32) -> Option<&'static str> {
        if metric == self.config.active_metric {
            Some("active_metric")
        } else if (0..self.links.len()).any(|rank| metric == self.standby_metric(rank)) {
            Some("standby_metric")
        } else {
            None
        }
    }

    fn standby_metric(&self, rank: usize) -> u32 {
        self.config.standby_metric + table::rank_number(rank)
    }

    /// A default route of ours by one uplink.
    pub(super) fn default_route(
        &self,
        rank: usize,
        family: Family,
        path: &Path,
        table: u32,
        metric: u32,
    ) -> RouteMessage {
        let hop = Hop {
            ifindex: self.links[rank].ifindex,
            gateway: path.gateway,
            onlink: path.template.onlink,
        };
        let everywhere = match family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut route = message::unicast(
            family,
            table,
            self.config.protocol,
            (everywhere, 0),
            hop,
            metric,
        );
        let template = &path.template;
        route.attributes.extend(
            template
                .prefsrc
                .map(|source| RouteAttribute::PrefSource(source.into())),
        );
        if !template.metrics.is_empty() {
            route
                .attributes
                .push(RouteAttribute::Metrics(template.metrics.clone()));
        }
        route
    }

    /// Makes our routes what they were: what is missing comes back first, then goes what was not there.
    fn undo(
        &mut self,
        family: Family,
        before: &[RouteMessage],
        rivals: &[RouteMessage],
        snapshot: super::displaced::Snapshot,
    ) -> Result<()> {
        let now = self.ours(family)?;
        let mut requests: Vec<Request> = Vec::new();
        let mut lines = Vec::new();
        for route in before
            .iter()
            .filter(|route| !now.iter().any(|other| same(route, other)))
        {
            lines.push(format!("added {}", message::describe(route)));
            requests.push(install(family, &message::reinstall(route), &now, &[]));
        }
        for route in now
            .iter()
            .filter(|route| !before.iter().any(|other| same(route, other)))
        {
            lines.push(format!("removed {}", message::describe(route)));
            requests.push(removal(route));
        }
        if family == Family::V6 {
            // One that tied with ours was replaced, not merely outranked.
            for route in rivals
                .iter()
                .filter(|route| self.tie(metric(route)).is_some())
            {
                lines.push(format!("added {}", message::describe(route)));
                requests.push((
                    RouteNetlinkMessage::NewRoute(message::reinstall(route)),
                    NLM_F_CREATE | NLM_F_APPEND,
                ));
            }
        }
        let mut report = Report::default();
        table::commit(&mut self.netlink, requests, lines, &mut report)?;
        self.displaced.rollback(snapshot)?;
        if !report.problems.is_empty() {
            bail!("{}", report.problems.join("; "));
        }
        Ok(())
    }
}

enum Attempt {
    Done(Confirmed),
    /// A route stands where none was expected.
    Taken,
}

/// How to put one of our routes in its place.
fn install(
    family: Family,
    route: &RouteMessage,
    ours: &[RouteMessage],
    rivals: &[RouteMessage],
) -> Request {
    let at_metric =
        |routes: &[RouteMessage]| routes.iter().any(|other| metric(other) == metric(route));
    let flags = match (family, at_metric(ours), at_metric(rivals)) {
        // Only ours can be hit.
        (_, true, false) => NLM_F_CREATE | NLM_F_REPLACE,
        // In front of the rival, which goes later.
        (Family::V4, _, true) => NLM_F_CREATE,
        // Beside the rival they would share the traffic: in its place. It is on record.
        (Family::V6, _, true) => NLM_F_CREATE | NLM_F_REPLACE,
        // Nobody should be there; if somebody is, we want to know.
        (_, false, false) => NLM_F_CREATE | NLM_F_EXCL,
    };
    (RouteNetlinkMessage::NewRoute(route.clone()), flags)
}

/// How to remove one.
pub(super) fn removal(route: &RouteMessage) -> Request {
    (RouteNetlinkMessage::DelRoute(message::deletion(route)), 0)
}
