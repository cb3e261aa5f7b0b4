//! The switch: make before break in the main table.
//!
//! `plan.rs` says which routes of ours are wanted, the active one first and with the lowest metric. A switch
//!
//! 1. records on disk the foreign default routes that would beat or tie with ours;
//! 2. puts the group of nexthop objects together, if the new active route is a balance group's;
//! 3. adds in one request what cannot take traffic yet (a standby behind the active route that stands), then the new active
//!    route: in place of ours where ours stands there (the kernel swaps atomically), as a new route otherwise; then the rest;
//! 4. reads our routes back;
//! 5. removes what is superfluous and the foreign routes of step 1, the worst first: while one stands that beats the new
//!    active route, it is the old active one.
//!
//! If step 2, 3 or 4 fails, or a route of ours that beats the new active one cannot be removed, our routes are made again what
//! they were.
//!
//! Two peculiarities of the kernel decide the flags. IPv4 (`fib_table_insert` in `net/ipv4/fib_trie.c`) lets any number of
//! routes share a metric: a plain create goes in front of them, a replace hits the first, whoever owns it. IPv6
//! (`fib6_add_rt2node` in `net/ipv6/ip6_fib.c`) makes routes of one metric siblings of a multipath route, and
//! refuses a second one with the same gateway, whoever owns it.

use std::{cmp::Reverse, time::Instant};

use anyhow::{Context, Result, bail};
use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{RouteNetlinkMessage, route::RouteMessage},
};

use super::{
    Confirmed, Report, Router, displaced,
    group::Laid,
    index,
    list::Request,
    message::{self, metric, same},
    plan::{self, Way, plan},
    table,
};
use crate::{
    failure::Failure,
    policy::{Family, Members, UplinkId},
};

impl Router {
    /// Makes `to` the active uplinks of `family`: one, or members of a balance group. When it returns, their default route has
    /// been read back from the kernel; there was no instant without a default route. Without anything to change it changes
    /// nothing.
    ///
    /// A member that the kernel refuses (its interface is down) is left out and named in [`Confirmed::problems`].
    ///
    /// # Errors
    /// The new route was refused or is not there: then everything is as it was before.
    pub fn activate(&mut self, family: Family, to: Members) -> Result<Confirmed> {
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
        self.active[index(family)] = to;
        Ok(result)
    }

    fn try_activate(&mut self, family: Family, to: Members, started: Instant) -> Result<Attempt> {
        let withdrawn = self.withdrawn[index(family)];
        let plan = plan(&self.links, family, &self.config, to, withdrawn);
        let first = *plan
            .first()
            .with_context(|| format!("uplinks {to:?} have no way out for {family}"))?;
        let rivals = self.rivals(family, to, first.metric)?;
        let former = Former {
            rivals,
            routes: self.ours(family)?,
            displaced: self.displaced.snapshot(),
        };
        if !former.rivals.is_empty() {
            self.displaced
                .record(&former.rivals, &self.foreign[index(family)]);
        }

        let mut confirmed = Confirmed {
            displaced: !former.rivals.is_empty(),
            ..Confirmed::default()
        };
        let group = match first.way {
            Way::One(_) => None,
            Way::Group(members) => {
                match self.groups.hash.set(family) {
                    Ok(change) => confirmed.changes.extend(change),
                    Err(error) => confirmed.problems.push(format!("{error:#}")),
                }
                match family {
                    Family::V4 => self.lay_group(members, &mut confirmed)?,
                    Family::V6 => None,
                }
            }
        };
        let carriers = match (&group, first.way) {
            (Some(group), _) => group.members,
            (None, Way::Group(members)) => self.sharers(family, members, &mut confirmed),
            (None, Way::One(uplink)) => Members::only(uplink),
        };
        let wanted: Vec<RouteMessage> = plan
            .iter()
            .map(|wanted| self.route(family, *wanted, carriers, group.as_ref()))
            .collect();
        let active = &wanted[0];

        let installs = in_order(&wanted, &former.routes);
        let requests = installs
            .iter()
            .map(|route| install(family, route, &former.routes, &former.rivals))
            .collect();
        let mut refusal = None;
        for (route, answer) in installs.iter().zip(self.netlink.commit(requests)?) {
            let line = message::describe(route);
            match answer {
                Ok(()) => confirmed.changes.push(format!("added {line}")),
                Err(refused) if refused.exists() => {
                    return self
                        .undo(family, &former, group.as_ref())
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
            former.routes.clone()
        } else {
            self.ours(family)?
        };
        let stands = after.iter().any(|route| same(route, active));
        let stands = match &group {
            Some(group) => stands && self.group_stands(group)?,
            None => stands,
        };
        if refusal.is_none() && !stands {
            refusal = Some(format!(
                "the kernel does not show {} after accepting it",
                message::describe(active)
            ));
        }
        if let Some(refusal) = refusal {
            return self.fail(family, &former, group.as_ref(), &refusal);
        }
        confirmed.confirmed = started.elapsed();

        let superfluous = after
            .iter()
            .filter(|route| !wanted.iter().any(|other| same(route, other)))
            .map(|route| ("removed", route));
        let mut leaving: Vec<(&str, &RouteMessage)> = superfluous
            .chain(former.rivals.iter().map(|route| ("displaced", route)))
            .collect();
        leaving.sort_by_key(|(_, route)| Reverse(metric(route)));
        let requests = leaving.iter().map(|(_, route)| removal(route)).collect();
        for ((done, route), answer) in leaving.iter().zip(self.netlink.commit(requests)?) {
            let line = format!("{done} {}", message::describe(route));
            let beats = metric(route) < metric(active);
            match answer {
                Err(refused) if !refused.missing() => {
                    let line = format!("not {line}: {refused}");
                    if beats && *done == "removed" {
                        return self.fail(family, &former, group.as_ref(), &line);
                    }
                    confirmed.problems.push(line);
                }
                // A rival that tied in IPv6 has been replaced already.
                _ => confirmed.changes.push(line),
            }
            if beats {
                confirmed.routed = started.elapsed();
            }
        }
        self.foreign[index(family)].retain(|route| !former.rivals.contains(route));
        if family == Family::V4 {
            let mut report = Report::default();
            let group = group.as_ref().map(|group| &group.group);
            self.tidy_objects(group, &mut report)?;
            confirmed.changes.extend(report.changes);
            confirmed.problems.extend(report.problems);
        }
        confirmed.settled = started.elapsed();
        Ok(Attempt::Done(confirmed))
    }

    /// Foreign default routes of the uplinks that beat the active one, tie with one of ours, or belong to a withdrawn uplink.
    fn rivals(
        &self,
        family: Family,
        active: Members,
        active_metric: u32,
    ) -> Result<Vec<RouteMessage>> {
        let withdrawn = self.withdrawn[index(family)];
        let mut rivals = Vec::new();
        for route in &self.foreign[index(family)] {
            let uplinks: Vec<Option<UplinkId>> = message::hops(route)
                .iter()
                .map(|hop| self.uplink(hop.ifindex))
                .collect();
            let of_uplink = uplinks.iter().any(Option::is_some);
            let out = of_uplink
                && uplinks.iter().all(|uplink| {
                    uplink.is_some_and(|uplink| {
                        withdrawn.contains(uplink) && !active.contains(uplink)
                    })
                });
            let key = plan::key_of(&self.links, &self.config, metric(route));
            if of_uplink && (out || key.is_some() || metric(route) < active_metric) {
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

    /// Gives a switch up: everything becomes what it was.
    fn fail(
        &mut self,
        family: Family,
        former: &Former,
        group: Option<&Laid>,
        refusal: &str,
    ) -> Result<Attempt> {
        self.undo(family, former, group)
            .with_context(|| format!("{refusal}, and undoing failed"))?;
        bail!("{refusal}");
    }

    /// Makes our routes what they were: what is missing comes back first, then goes what was not there.
    fn undo(&mut self, family: Family, former: &Former, group: Option<&Laid>) -> Result<()> {
        if let Some(group) = group {
            self.undo_group(group)?;
        }
        let now = self.ours(family)?;
        let mut requests: Vec<Request> = Vec::new();
        let mut lines = Vec::new();
        for route in former
            .routes
            .iter()
            .filter(|route| !now.iter().any(|other| same(route, other)))
        {
            lines.push(format!("added {}", message::describe(route)));
            requests.push(install(family, &message::reinstall(route), &now, &[]));
        }
        for route in now
            .iter()
            .filter(|route| !former.routes.iter().any(|other| same(route, other)))
        {
            lines.push(format!("removed {}", message::describe(route)));
            requests.push(removal(route));
        }
        if family == Family::V6 {
            // One that tied with ours was replaced, not merely outranked.
            for route in former
                .rivals
                .iter()
                .filter(|route| plan::key_of(&self.links, &self.config, metric(route)).is_some())
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
        self.displaced.rollback(&former.displaced);
        if let Some(group) = group {
            self.tidy_objects(group.before.as_ref(), &mut report)?;
        }
        if !report.problems.is_empty() {
            bail!("{}", report.problems.join("; "));
        }
        Ok(())
    }
}

/// What a switch finds, to be put back if it fails.
struct Former {
    /// Ours.
    routes: Vec<RouteMessage>,
    /// Others' that have to make way.
    rivals: Vec<RouteMessage>,
    displaced: displaced::Snapshot,
}

enum Attempt {
    Done(Confirmed),
    /// A route stands where none was expected.
    Taken,
}

/// What is wanted (the active one first) and does not stand, in the order in which it comes.
fn in_order<'a>(wanted: &'a [RouteMessage], ours: &[RouteMessage]) -> Vec<&'a RouteMessage> {
    let best = ours.iter().map(metric).min();
    let behind = |route: &&RouteMessage| best.is_some_and(|best| metric(route) > best);
    let (active, standbys) = wanted.split_at(wanted.len().min(1));
    let (early, late): (Vec<_>, Vec<_>) = standbys.iter().partition(behind);
    early
        .into_iter()
        .chain(active)
        .chain(late)
        .filter(|route| !ours.iter().any(|other| same(route, other)))
        .collect()
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
            in_order(&wanted, &ours).into_iter().map(metric).collect()
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
