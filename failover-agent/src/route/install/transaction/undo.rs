//! Giving a switch up: everything becomes what it was.

use anyhow::{Result, bail};
use failover_policy::Family;
use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE},
    packet_route::{RouteNetlinkMessage, route::RouteMessage},
};

use super::Transaction;
use crate::route::{
    install::{
        displaced,
        place::{in_place, removal},
        plan,
        report::Report,
        table,
    },
    router::Router,
    wire::done::Done,
    wire::list::Request,
    wire::message::{self, metric, same},
    wire::nexthop::Nexthop,
};

/// How often undoing is tried when netlink itself fails.
const ATTEMPTS: usize = 3;

/// What a switch finds.
pub(super) struct Former {
    /// Our routes.
    pub(super) routes: Vec<RouteMessage>,
    /// The group of nexthop objects.
    pub(super) group: Option<Nexthop>,
    displaced: displaced::Snapshot,
}

impl Former {
    /// # Errors
    /// Netlink itself fails.
    pub(super) fn read(router: &mut Router, family: Family) -> Result<Former> {
        Ok(Former {
            routes: router.ours(family)?,
            group: match family {
                Family::V4 => router.standing_group()?,
                Family::V6 => None,
            },
            displaced: router.displaced.snapshot(),
        })
    }
}

impl Transaction<'_> {
    /// Makes everything what it was, and ends the transaction.
    ///
    /// # Errors
    /// Netlink fails again and again, or the kernel refuses something.
    pub(super) fn undo(&mut self) -> Result<()> {
        self.ended = true;
        let mut attempts = 1;
        while let Err(error) = self.try_to_undo() {
            if attempts == ATTEMPTS {
                return Err(error);
            }
            attempts += 1;
            self.router.netlink.renew();
        }
        Ok(())
    }

    /// Makes our routes what they were: what is missing comes back first, then goes what was not there. Goes on after what the kernel
    /// refuses.
    fn try_to_undo(&mut self) -> Result<()> {
        let family = self.family;
        if family == Family::V4 {
            self.undo_group()?;
        }
        let (router, former) = (&mut *self.router, &self.former);
        let now = router.ours(family)?;
        let fixed = router.fixed(family, &now);
        let taken: Vec<u32> = fixed.iter().map(|fixed| fixed.metric).collect();
        let mut requests: Vec<Request> = Vec::new();
        let mut done = Vec::new();
        for route in former
            .routes
            .iter()
            .filter(|route| !now.iter().any(|other| same(route, other)))
        {
            let route = message::reinstall(&router.own_nexthops(route));
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
        let replaced = self.rivals.iter().filter(|route| {
            family == Family::V6 && plan::is_ours(&router.links, &router.config, metric(route))
        });
        for route in self.gone.iter().chain(replaced) {
            done.push(Done::added(message::object(route)));
            requests.push((
                RouteNetlinkMessage::NewRoute(message::reinstall(route)),
                NLM_F_CREATE | NLM_F_APPEND,
            ));
        }
        let mut report = Report::default();
        table::commit(&mut router.netlink, requests, done, &mut report)?;
        router.displaced.rollback(&former.displaced);
        if family == Family::V4 {
            router.tidy_objects(former.group.as_ref(), &mut report)?;
        }
        if !report.problems.is_empty() {
            bail!("{}", report.problems.join("; "));
        }
        Ok(())
    }
}
