//! The switch: make before break in the main table.
//!
//! `plan.rs` says which routes of ours are wanted, the active one first and with the lowest metric. A switch
//!
//! 1. records on disk the foreign default routes that would beat or tie with ours;
//! 2. puts the group of nexthop objects together, if the new active route is a balance group's;
//! 3. adds in one request what cannot take traffic yet (a standby behind the active route that stands), then the new active
//!    route, then the rest (`place.rs` says how);
//! 4. reads our routes back;
//! 5. removes what is superfluous and the foreign routes of step 1, the worst first: while one stands that beats the new
//!    active route, it is the old active one.
//!
//! Each step starts from what the kernel shows. So a switch in whose middle netlink fails is simply made again, on a fresh socket. If
//! that does not help either, or the kernel refuses the new route, or does not show it, or a route of ours that beats the new active one
//! cannot be removed, our routes are made again what they were (`undo.rs`).

use std::{cmp::Reverse, time::Instant};

use anyhow::Result;
use failover_policy::{Family, UplinkId, UplinkSet};
use rtnetlink::packet_route::route::RouteMessage;
use tracing::debug;

use super::{
    foreign::{self, Fixed},
    group::Laid,
    place::{in_order, in_place, removal, removal_of_foreign},
    plan::{self, Egress, Wanted, plan},
    report::Confirmed,
    report::Report,
    undo::Former,
};
use crate::route::{
    router::Router,
    wire::done::Done,
    wire::done::Verb,
    wire::message::{self, metric, same},
};

/// How often a switch is made again in whose middle netlink failed.
const RETRIES: usize = 2;
/// How often a switch is made again because a route stood where none was expected.
const SURPRISES: usize = 8;

impl Router {
    /// Makes `to` the active uplinks of `family`: one, or members of a balance group. When it returns, their default route has
    /// been read back from the kernel; there was no instant without a default route. Without anything to change it changes
    /// nothing.
    ///
    /// A member that the kernel refuses (its interface is down) is left out and named in [`Confirmed::problems`].
    ///
    /// # Errors
    /// The new route was refused or is not there: then everything is as it was before, or, if that cannot be had either, the error
    /// says so. [`Router::current`] tells whose route stands.
    pub fn activate(&mut self, family: Family, to: UplinkSet) -> Result<Confirmed> {
        let started = Instant::now();
        let mut former = self.former(family)?;
        let mut ours = Some(former.routes.clone());
        // Where the kernel has a route, although it lists none; after one scan for what has just come.
        let (mut surprises, mut unlisted) = (Vec::new(), Vec::new());
        let mut failures = 0;
        loop {
            let attempt = match ours.take() {
                Some(ours) => self.try_activate(family, to, started, &ours, &unlisted, &mut former),
                None => self.ours(family).and_then(|ours| {
                    self.try_activate(family, to, started, &ours, &unlisted, &mut former)
                }),
            };
            let failed = match attempt {
                Ok(Attempt::Done(confirmed)) => {
                    self.active[family] = to;
                    return Ok(confirmed);
                }
                Ok(Attempt::Refused(refusal)) => return self.fail(family, &former, &refusal),
                Ok(Attempt::Taken(metric)) if surprises.len() < SURPRISES => {
                    if surprises.contains(&metric) {
                        unlisted.push(Fixed::unlisted(metric));
                    }
                    surprises.push(metric);
                    self.refresh_foreign()
                }
                Ok(Attempt::Taken(metric)) => {
                    let refusal = format!("the kernel has a default route with metric {metric}");
                    return self.fail(family, &former, &refusal);
                }
                Err(error) => Err(error),
            };
            if let Err(error) = failed {
                failures += 1;
                if failures > RETRIES {
                    return self.fail(family, &former, &format!("{error:#}"));
                }
                debug!("routes: {error:#}: once more");
                self.netlink.renew();
            }
        }
    }

    fn try_activate(
        &mut self,
        family: Family,
        to: UplinkSet,
        started: Instant,
        ours: &[RouteMessage],
        unlisted: &[Fixed],
        former: &mut Former,
    ) -> Result<Attempt> {
        let withdrawn = self.withdrawn[family];
        let mut fixed = self.fixed(family, ours);
        fixed.extend_from_slice(unlisted);
        let taken: Vec<u32> = fixed.iter().map(|fixed| fixed.metric).collect();
        let plan = plan(&self.links, family, &self.config, to, withdrawn, &taken);
        let Some(first) = plan.first().copied() else {
            return Ok(Attempt::Refused(format!(
                "uplinks {to:?} have no egress path for {family}"
            )));
        };
        former.rivals = self.rivals(family, to, &plan);
        if !former.rivals.is_empty() {
            self.displaced.record(&former.rivals, &self.foreign[family]);
        }

        let mut confirmed = Confirmed {
            displaced: !former.rivals.is_empty(),
            ..Confirmed::default()
        };
        let group = self.lay_shared(family, first.egress, &mut confirmed)?;
        let carriers = match (&group, first.egress) {
            (Some(group), _) => group.members,
            (None, Egress::Group(members)) => self.sharers(family, members, &mut confirmed),
            (None, Egress::One(uplink)) => UplinkSet::only(uplink),
        };
        let wanted: Vec<RouteMessage> = plan
            .iter()
            .map(|wanted| self.route(family, *wanted, carriers, group.as_ref()))
            .collect();
        let active = &wanted[0];

        let overtaken = family == Family::V4 && self.overtaken.contains(&metric(active));
        let front = overtaken.then_some(active);
        let installs = in_order(&wanted, ours, front);
        let occupied = [&former.rivals[..], ours].concat();
        let mut requests = Vec::new();
        // Which install each request belongs to, and whether it decides about it.
        let mut meanings = Vec::new();
        for (position, route) in installs.iter().enumerate() {
            let steps = in_place(family, route, ours, &occupied, &taken, front.is_some());
            for (request, decides) in steps {
                meanings.push((position, decides));
                requests.push(request);
            }
        }
        let mut refusal = None;
        for ((position, decides), answer) in
            meanings.into_iter().zip(self.netlink.commit(requests)?)
        {
            let route = installs[position];
            let line = message::describe(route);
            match answer {
                _ if !decides => {}
                Ok(()) => confirmed.changes.push(Done::added(message::object(route))),
                Err(refused) if refused.exists() => return Ok(Attempt::Taken(metric(route))),
                Err(refused) if std::ptr::eq(route, active) => {
                    refusal = Some(format!("the kernel refused {line}: {refused}"));
                }
                Err(refused) => confirmed
                    .problems
                    .push(format!("not added {line}: {refused}")),
            }
        }
        confirmed.routed = started.elapsed();

        let after = if installs.is_empty() {
            ours.to_vec()
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
            return Ok(Attempt::Refused(refusal));
        }
        confirmed.confirmed = started.elapsed();
        if overtaken {
            self.overtaken.clear();
        }

        if let Some(refusal) =
            self.remove_others(&wanted, &after, former, started, &mut confirmed)?
        {
            return Ok(Attempt::Refused(refusal));
        }
        self.foreign[family].retain(|route| !former.rivals.contains(route));
        if family == Family::V4 {
            let mut report = Report::default();
            let group = group.as_ref().map(|group| &group.group);
            self.tidy_objects(group, &mut report)?;
            confirmed.changes.extend(report.changes);
            confirmed.problems.extend(report.problems);
        }
        self.concerning[family] = foreign::concerning(family, &plan, &fixed);
        confirmed.settled = started.elapsed();
        Ok(Attempt::Done(confirmed))
    }

    /// Prepares the kernel for a route that several uplinks share, and returns its group if there is one.
    fn lay_shared(
        &mut self,
        family: Family,
        egress: Egress,
        confirmed: &mut Confirmed,
    ) -> Result<Option<Laid>> {
        let Egress::Group(members) = egress else {
            return Ok(None);
        };
        match self.groups.hash.set(family) {
            Ok(change) => confirmed.changes.extend(change),
            Err(error) => confirmed.problems.push(format!("{error:#}")),
        }
        match family {
            Family::V4 => self.lay_group(members, confirmed),
            Family::V6 => Ok(None),
        }
    }

    /// Removes what is superfluous among our routes (`after`), and the rivals, the worst first. Returns what is in the way of the new
    /// active route and could not be removed.
    fn remove_others(
        &mut self,
        wanted: &[RouteMessage],
        after: &[RouteMessage],
        former: &mut Former,
        started: Instant,
        confirmed: &mut Confirmed,
    ) -> Result<Option<String>> {
        let best = metric(&wanted[0]);
        let superfluous = after
            .iter()
            .filter(|route| !wanted.iter().any(|other| same(route, other)))
            .map(|route| (Verb::Removed, route));
        let mut leaving: Vec<(Verb, &RouteMessage)> = superfluous
            .chain(former.rivals.iter().map(|route| (Verb::Displaced, route)))
            .collect();
        leaving.sort_by_key(|(_, route)| Reverse(metric(route)));
        let requests = leaving
            .iter()
            .map(|(verb, route)| match *verb {
                Verb::Displaced => removal_of_foreign(route),
                _ => removal(route),
            })
            .collect();
        for ((verb, route), answer) in leaving.iter().zip(self.netlink.commit(requests)?) {
            let merged = *verb == Verb::Removed && self.is_merged(route);
            // What was in the kernel's list as a part of ours stands for itself now.
            confirmed.displaced |= merged;
            let object = match merged {
                true => message::object(&self.own_legs(route)),
                false => message::object(route),
            };
            let done = Done {
                verb: *verb,
                object,
            };
            let beats = metric(route) < best;
            match answer {
                Err(refused) if !refused.missing() => {
                    let line = format!("not {done}: {refused}");
                    if beats && *verb == Verb::Removed {
                        return Ok(Some(line));
                    }
                    confirmed.problems.push(line);
                }
                // A rival that tied in IPv6 has been replaced already.
                answer => {
                    confirmed.changes.push(done);
                    if answer.is_ok() && *verb == Verb::Displaced {
                        former.gone.push((*route).clone());
                    }
                }
            }
            if beats {
                confirmed.routed = started.elapsed();
            }
        }
        Ok(None)
    }

    /// Foreign default routes of the uplinks that beat the active one, tie with one of ours, or belong to a withdrawn uplink.
    fn rivals(&self, family: Family, active: UplinkSet, plan: &[Wanted]) -> Vec<RouteMessage> {
        let withdrawn = self.withdrawn[family];
        let best = plan.first().map_or(0, |active| active.metric);
        let is_rival = |route: &&RouteMessage| {
            let uplinks: Vec<Option<UplinkId>> = message::hops(route)
                .iter()
                .map(|hop| self.uplink(hop.ifindex))
                .collect();
            let of_uplink = uplinks.iter().any(Option::is_some);
            let out = uplinks.iter().all(|uplink| {
                uplink.is_some_and(|uplink| withdrawn.contains(uplink) && !active.contains(uplink))
            });
            let metric = metric(route);
            let ties = plan::is_ours(&self.links, &self.config, metric)
                || plan.iter().any(|ours| ours.metric == metric);
            of_uplink && (out || ties || metric < best)
        };
        let foreign = self.foreign[family].iter();
        foreign.filter(is_rival).cloned().collect()
    }
}

enum Attempt {
    Done(Confirmed),
    /// A route stands with this metric where none was expected.
    Taken(u32),
    /// The new route cannot be had.
    Refused(String),
}
