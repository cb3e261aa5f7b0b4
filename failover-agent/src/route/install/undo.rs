//! Giving a switch up: everything becomes what it was.

use anyhow::{Context, Result, bail};
use failover_policy::Family;
use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE},
    packet_route::{RouteNetlinkMessage, route::RouteMessage},
};

use super::{
    displaced,
    place::{in_place, removal},
    plan,
    report::Report,
    table,
};
use crate::route::{
    router::Router,
    wire::done::Done,
    wire::list::Request,
    wire::message::{self, metric, same},
    wire::nexthop::Nexthop,
};

/// How often undoing is tried when netlink itself fails.
const ATTEMPTS: usize = 3;

/// What a switch finds, to be put back if it fails.
pub(crate) struct Former {
    /// Ours.
    pub(crate) routes: Vec<RouteMessage>,
    /// The group of nexthop objects.
    group: Option<Nexthop>,
    /// Others' that have to make way.
    pub(crate) rivals: Vec<RouteMessage>,
    /// Those of them that have done so.
    pub(crate) gone: Vec<RouteMessage>,
    displaced: displaced::Snapshot,
}

impl Router {
    pub(crate) fn former(&mut self, family: Family) -> Result<Former> {
        Ok(Former {
            routes: self.ours(family)?,
            group: match family {
                Family::V4 => self.standing_group()?,
                Family::V6 => None,
            },
            rivals: Vec::new(),
            gone: Vec::new(),
            displaced: self.displaced.snapshot(),
        })
    }

    /// Gives a switch up because of `refusal`.
    pub(crate) fn fail<T>(&mut self, family: Family, former: &Former, refusal: &str) -> Result<T> {
        let mut attempts = 1;
        while let Err(error) = self.undo(family, former) {
            if attempts == ATTEMPTS {
                return Err(error).with_context(|| format!("{refusal}, and undoing failed"));
            }
            attempts += 1;
            self.netlink.renew();
        }
        bail!("{refusal}");
    }

    /// Makes our routes what they were: what is missing comes back first, then goes what was not there. Goes on after what the kernel
    /// refuses.
    fn undo(&mut self, family: Family, former: &Former) -> Result<()> {
        if family == Family::V4 {
            self.undo_group(former.group.as_ref())?;
        }
        let now = self.ours(family)?;
        let fixed = self.fixed(family, &now);
        let taken: Vec<u32> = fixed.iter().map(|fixed| fixed.metric).collect();
        let mut requests: Vec<Request> = Vec::new();
        let mut done = Vec::new();
        for route in former
            .routes
            .iter()
            .filter(|route| !now.iter().any(|other| same(route, other)))
        {
            let route = message::reinstall(&self.own_legs(route));
            for (request, _) in in_place(family, &route, &now, &now, &taken, false) {
                done.push(Done::added(message::object(&route)));
                requests.push(request);
            }
        }
        for route in now
            .iter()
            .filter(|route| !former.routes.iter().any(|other| same(route, other)))
        {
            done.push(Done::removed(message::object(route)));
            requests.push(removal(route));
        }
        // An IPv6 one that tied with ours was replaced by it.
        let replaced = former.rivals.iter().filter(|route| {
            family == Family::V6 && plan::is_ours(&self.links, &self.config, metric(route))
        });
        for route in former.gone.iter().chain(replaced) {
            done.push(Done::added(message::object(route)));
            requests.push((
                RouteNetlinkMessage::NewRoute(message::reinstall(route)),
                NLM_F_CREATE | NLM_F_APPEND,
            ));
        }
        let mut report = Report::default();
        table::commit(&mut self.netlink, requests, done, &mut report)?;
        self.displaced.rollback(&former.displaced);
        if family == Family::V4 {
            self.tidy_objects(former.group.as_ref(), &mut report)?;
        }
        if !report.problems.is_empty() {
            bail!("{}", report.problems.join("; "));
        }
        Ok(())
    }

    /// A route of ours without what the kernel has merged into it.
    pub(crate) fn own_legs(&self, route: &RouteMessage) -> RouteMessage {
        match self.is_merged(route) {
            true => message::legs(route, |ifindex| self.uplink(ifindex).is_some()),
            false => route.clone(),
        }
    }
}
