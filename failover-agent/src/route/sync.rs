//! The one door by which links, tables, rules and routes are brought in line with the kernel.
//!
//! The router owns the links; everyone else borrows them ([`Router::links`]). They change in four calls only, and what has to follow a
//! call takes what that call has returned, so that no other order compiles:
//!
//! | when | the links are taken over by | in between, for the caller | brought in line by |
//! |---|---|---|---|
//! | the start | [`Router::start`], with what [`Router::await_uplinks`] has found | | the same call |
//! | something may have changed | [`Router::scan`], which returns a [`Scan`] | programs and gates | [`Router::align`], which consumes it |
//! | another configuration | [`Router::reconfigure`], with what [`Router::await_uplinks`] has found; it returns a [`Scan`] | the same | [`Router::align`] |
//! | a notification reports a carrier | [`Router::set_carrier`] | | a scan, a moment later |
//!
//! Two calls rather than one, because the caller has something to do between them: a new interface gets its programs, with its gates as
//! they should stand, before a route leads there.

use std::time::Instant;

use anyhow::{Result, bail};
use failover_policy::{Family, PerFamily, PerUplink, UplinkId, UplinkSet};

use super::{Link, Report, router::Router};
use crate::config::{Config, RouteConfig};

/// Links that the router has taken over. Tables, rules and routes follow in [`Router::align`].
#[derive(Debug)]
#[must_use = "tables, rules and routes follow in `Router::align`"]
pub struct Scan {
    /// The links as they were known before.
    pub before: PerUplink<Link>,
    /// The uplinks whose interfaces are the same as before. Any other may have the identity of one that is gone.
    pub kept: UplinkSet,
    /// The uplinks are those of another configuration.
    reconfigured: bool,
}

/// What [`Router::align`] has done.
#[derive(Debug)]
pub struct Aligned {
    /// To tables and rules. An error: netlink itself failed, and they may be in line in part.
    pub tables: Result<Report>,
    /// To the default routes in the main table.
    pub routes: Report,
    /// To the displaced routes of interfaces that are uplinks no more. An error: netlink itself failed, or their record.
    pub released: Result<Report>,
    /// When a scan may find something else although the kernel reports no change: what lingers is gone, or an advertised route's
    /// lifetime is over.
    pub next_scan: Option<Instant>,
}

/// What [`Router::start`] has found and done.
#[derive(Debug)]
pub struct Started {
    /// Done to tables and rules.
    pub tables: Report,
    /// The active uplinks that an earlier run has left. They are kept active from now on.
    pub active: PerFamily<UplinkSet>,
    /// Done to the displaced routes of interfaces that are uplinks no more.
    pub released: Report,
}

impl Router {
    /// The uplinks as they were seen last.
    pub fn links(&self) -> &PerUplink<Link> {
        &self.links
    }

    /// Begins with these links: makes tables and rules agree with them, and adopts what an earlier run has left. No default route of the
    /// uplinks changes. May be done again if it fails.
    ///
    /// # Errors
    /// Netlink itself fails, or the record of displaced routes. What the kernel refuses is in the reports.
    pub fn start(&mut self, links: &PerUplink<Link>) -> Result<Started> {
        self.take_over(links.clone());
        Ok(Started {
            tables: self.lay_tables()?,
            active: PerFamily::new(self.current(Family::V4)?, self.current(Family::V6)?),
            released: self.release()?,
        })
    }

    /// Scans every uplink, and takes over what is there. What is missing is None; what was known of an uplink with carrier lingers a
    /// little.
    ///
    /// # Errors
    /// Netlink fails. The links are as they were.
    pub fn scan(&mut self, config: &Config) -> Result<Scan> {
        let links = self.read_links(config)?;
        let (before, kept) = self.take_over(links);
        Ok(Scan {
            before,
            kept,
            reconfigured: false,
        })
    }

    /// Takes over the links of another configuration, and its metrics. Protocol, tables, rule priorities and mark are what we know our own
    /// by, and stay as long as the router lives.
    ///
    /// # Errors
    /// One of these is another. Nothing was taken over then; the caller asks the user for a restart instead.
    pub fn reconfigure(&mut self, links: PerUplink<Link>, config: &RouteConfig) -> Result<Scan> {
        let fixed = RouteConfig {
            active_metric: config.active_metric,
            standby_metric: config.standby_metric,
            on_down: config.on_down,
            ..self.config.clone()
        };
        if fixed != *config {
            bail!(
                "route.protocol, table, rule_priority and mark cannot change while the agent runs"
            );
        }
        self.config = fixed;
        let (before, kept) = self.take_over(links);
        Ok(Scan {
            before,
            kept,
            reconfigured: true,
        })
    }

    /// Brings everything in line with the links that were taken over: tables and rules, and then the main table, where what is missing
    /// or was undone is done again (routes that the kernel removed with the interface; a better default route that a DHCP client has put
    /// back). After a reconfiguration the displaced routes of interfaces that are uplinks no more come back. How often all this happens
    /// is the caller's decision.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a scan is brought in line once: it is consumed"
    )]
    pub fn align(&mut self, scan: Scan) -> Aligned {
        let tables = self.lay_tables();
        let mut routes = Report::default();
        for family in Family::ALL {
            self.hold(family, &mut routes);
        }
        let released = match scan {
            Scan {
                reconfigured: true, ..
            } => self.release(),
            Scan { .. } => Ok(Report::default()),
        };
        Aligned {
            tables,
            routes,
            released,
            next_scan: self.missing.next_scan(),
        }
    }

    /// Takes note of what a notification reports of an uplink's carrier; whether that is news. It is, too, when the interface was `replaced`:
    /// it has appeared, is another one, or went. A switch that follows at once does not count on an uplink without carrier.
    pub fn set_carrier(&mut self, uplink: UplinkId, up: bool, replaced: bool) -> bool {
        let Some(link) = self.links.get_mut(uplink) else {
            return false;
        };
        let news = std::mem::replace(&mut link.carrier, up) != up || replaced;
        if news && !up {
            self.learned.interrupt(&link.interface);
        }
        news
    }

    /// Takes over `links` as the present state of the uplinks. Returns the former ones, and the uplinks that are the same.
    fn take_over(&mut self, links: PerUplink<Link>) -> (PerUplink<Link>, UplinkSet) {
        let same = |(uplink, link): (UplinkId, &Link)| {
            let known = self.links.get(uplink)?;
            (known.interface == link.interface).then_some(uplink)
        };
        let kept: UplinkSet = links.iter().filter_map(same).collect();
        self.active = self.active.map(|active| active.intersection(kept));
        self.withdrawn = self.withdrawn.map(|withdrawn| withdrawn.intersection(kept));
        self.missing.retain(kept);
        let before = std::mem::replace(&mut self.links, links);
        self.part_foreign();
        (before, kept)
    }
}
