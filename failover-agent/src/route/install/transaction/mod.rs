//! The switch: make before break in the main table.
//!
//! A [`Transaction`] begins with what stands, and ends in one of two ways: it commits, or our routes are made again what they were. Its
//! phases are, in this order:
//!
//! | phase | what it does | file |
//! |---|---|---|
//! | `begin` | reads our routes and the group, to be put back if need be | `undo.rs` |
//! | `outline` | plans our routes (`plan.rs`), the active one first and with the lowest metric; records on disk the foreign default routes that would beat or tie with ours | `outline.rs` |
//! | `lay_group` | puts the group of nexthop objects together, if the new active route is a balance group's | `lay.rs` |
//! | `install` | adds in one request what cannot take traffic yet (a standby behind the active route that stands), then the new active route, then the rest (`place.rs` says how) | `install.rs` |
//! | `confirm` | reads our routes back | `install.rs` |
//! | `remove_others` | removes what is superfluous and the recorded foreign routes, the worst first: while one stands that beats the new active route, it is the old active one | `remove.rs` |
//! | `settle` | removes nexthop objects that nothing needs any more, and notes which foreign routes concern ours | `remove.rs` |
//!
//! Each phase starts from what the kernel shows. So an attempt in whose middle netlink fails is simply made again, on a fresh socket. If
//! that does not help either, or the kernel refuses the new route, or does not show it, or a route of ours that beats the new active one
//! cannot be removed, the transaction rolls back (`undo.rs`).

mod install;
mod lay;
mod outline;
mod remove;
mod undo;

use std::time::Instant;

use anyhow::Result;
use failover_policy::{Family, UplinkSet};
use rtnetlink::packet_route::route::RouteMessage;
use tracing::{debug, warn};

pub(crate) use self::lay::Carriers;
use self::undo::Former;
use super::{foreign::Fixed, report::Confirmed};
use crate::route::{error::Error, router::Router};

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
    /// says so. [`Router::current`] says whose route stands.
    pub fn activate(&mut self, family: Family, to: UplinkSet) -> Result<Confirmed> {
        Transaction::begin(self, family, to)?.run()
    }
}

/// A switch of one family that is under way. It owns its undo: unless it commits it rolls back, at the latest when it is dropped.
struct Transaction<'a> {
    router: &'a mut Router,
    family: Family,
    /// The uplinks that become active.
    to: UplinkSet,
    started: Instant,
    former: Former,
    /// Others' routes that have to make way.
    rivals: Vec<RouteMessage>,
    /// Those of them that have done so.
    gone: Vec<RouteMessage>,
    /// Metrics at which a route stood where none was expected.
    surprises: Vec<u32>,
    /// Where the kernel has a route, although it lists none even after a scan for what has just come.
    unlisted: Vec<Fixed>,
    /// What this attempt has come to.
    confirmed: Confirmed,
    /// It has committed, or rolled back as far as that could be had.
    ended: bool,
}

impl<'a> Transaction<'a> {
    /// Changes nothing yet.
    ///
    /// # Errors
    /// What stands cannot be read.
    fn begin(router: &'a mut Router, family: Family, to: UplinkSet) -> Result<Transaction<'a>> {
        let started = Instant::now();
        let former = Former::read(router, family)?;
        Ok(Transaction {
            router,
            family,
            to,
            started,
            former,
            rivals: Vec::new(),
            gone: Vec::new(),
            surprises: Vec::new(),
            unlisted: Vec::new(),
            confirmed: Confirmed::default(),
            ended: false,
        })
    }

    /// Commits, or rolls back and says why.
    fn run(mut self) -> Result<Confirmed> {
        match self.attempts() {
            Ok(()) => Ok(self.commit()),
            Err(refusal) => Err(self.roll_back(refusal)),
        }
    }

    /// Attempts the switch until it has been made, or cannot be.
    fn attempts(&mut self) -> Result<(), Error> {
        let mut failures = 0;
        let mut ours = Some(self.former.routes.clone());
        loop {
            let attempt = match ours.take() {
                Some(ours) => self.attempt(&ours),
                None => (self.router.ours(self.family).map_err(Error::from))
                    .and_then(|ours| self.attempt(&ours)),
            };
            let failed = match attempt {
                Ok(()) => return Ok(()),
                Err(Error::MetricTaken { metric }) if self.surprises.len() < SURPRISES => {
                    match self.rescan(metric) {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(Error::Netlink(error)) => error,
                Err(refusal) => return Err(refusal),
            };
            failures += 1;
            if failures > RETRIES {
                return Err(Error::Netlink(failed));
            }
            debug!("routes: {failed:#}: once more");
            self.router.netlink.renew();
        }
    }

    /// Everything once, from what stands of `ours`.
    fn attempt(&mut self, ours: &[RouteMessage]) -> Result<(), Error> {
        let outline = self.outline(ours)?;
        let carriers = self.lay_group(outline.active.egress)?;
        let wanted: Vec<RouteMessage> = (outline.plan.iter())
            .map(|wanted| self.router.route(self.family, *wanted, &carriers))
            .collect();
        let installed = self.install(&wanted, ours, &outline)?;
        let standing = self.confirm(&wanted[0], ours, installed, &carriers)?;
        self.remove_others(&wanted, &standing)?;
        self.settle(&outline, &carriers)
    }

    /// Looks for the foreign route at a metric at which none was expected.
    fn rescan(&mut self, metric: u32) -> Result<()> {
        if self.surprises.contains(&metric) {
            self.unlisted.push(Fixed::unlisted(metric));
        }
        self.surprises.push(metric);
        self.router.refresh_foreign()
    }

    /// What was done stays.
    fn commit(mut self) -> Confirmed {
        self.ended = true;
        self.router.active[self.family] = self.to;
        std::mem::take(&mut self.confirmed)
    }

    /// Makes everything what it was. Returns why, and what of it could not be had.
    fn roll_back(mut self, refusal: Error) -> anyhow::Error {
        match self.undo() {
            Ok(()) => refusal.into(),
            Err(error) => error.context(format!("{refusal:#}, and undoing failed")),
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.undo()
        {
            warn!("a switch was given up, and undoing failed: {error:#}");
        }
    }
}
