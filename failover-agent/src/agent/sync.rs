//! Follows what others change: carrier, addresses, gateways, routes.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{
    Agent,
    setup::{attach, describe, log_report},
};
use crate::{
    policy::{Family, Input, Members, UplinkId},
    route::{Change, Link, Report},
};

/// Changes come in bursts (link, addresses, routes): wait for the end of one before looking.
const SETTLE: Duration = Duration::from_millis(50);

/// Least time between two looks at routes, so that a quarrel with another program about a route costs neither of us much.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a look takes long (a full routing table), a quarrel may take this part of our time; the pause ends after [`LONGEST_PAUSE`] all
/// the same.
const SHARE: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// When to look next, and when we looked last.
#[derive(Debug, Default)]
pub(super) struct Sync {
    due: Option<Instant>,
    /// When the last look was over.
    last: Option<Instant>,
    /// How long it took.
    took: Duration,
}

impl Sync {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Look soon; `contested` changes (routes, rules) may be somebody's answer to what we did, and wait longer.
    fn schedule(&mut self, contested: bool) {
        let settled = Instant::now() + SETTLE;
        let pause = (self.took * SHARE).clamp(PAUSE, LONGEST_PAUSE);
        let rested = self.last.map(|last| last + pause).filter(|_| contested);
        let due = rested.map_or(settled, |rested| rested.max(settled));
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Takes note of a look that began at `begun`.
    fn looked(&mut self, begun: Instant) {
        let now = Instant::now();
        self.last = Some(now);
        self.took = now - begun;
    }
}

impl Agent<'_> {
    /// Takes note of a change; what follows from it is done by [`Agent::synchronize`] a little later, except for the carrier, which
    /// the policy must know at once.
    pub(super) fn changed(&mut self, change: &Change) {
        debug!("netlink: {change:?}");
        if let Change::Neighbour { ifindex, address } = change {
            self.suspect(*ifindex, *address);
            return;
        }
        self.repairs.note(change);
        if let Change::Link {
            name,
            carrier,
            gone,
            ..
        } = change
        {
            let uplinks = self.config.uplinks.iter();
            let uplink = uplinks
                .map(|uplink| &uplink.interface)
                .position(|known| known == name);
            if let Some(uplink) = uplink.map(UplinkId) {
                let up = *carrier && !*gone;
                let name = self.name(uplink);
                let word = if up { "is back" } else { "lost" };
                info!(uplink = name, carrier = up, "{name}: carrier {word}");
                self.machine
                    .handle(Input::Carrier { uplink, up }, self.clock.now());
            }
        }
        let contested = matches!(change, Change::Route { .. } | Change::Rule { .. });
        self.sync.schedule(contested);
    }

    /// Looks at all uplinks again and brings programs, tables, routes, probes and policy in line with what is there now.
    pub(super) fn synchronize(&mut self) {
        let begun = Instant::now();
        self.sync.due = None;
        self.bring_in_line();
        self.sync.looked(begun);
        debug!(
            took_us = u64::try_from(self.sync.took.as_micros()).unwrap_or(u64::MAX),
            "looked at uplinks and routes"
        );
    }

    fn bring_in_line(&mut self) {
        let links = match self.router.rediscover(&self.config) {
            Ok(links) => links,
            Err(error) => {
                warn!("cannot look at the uplinks: {error:#}");
                self.sync.schedule(true);
                return;
            }
        };
        let known = std::mem::replace(&mut self.links, links);
        self.former.note(&known, &self.links);
        for (uplink, known) in known.iter().enumerate() {
            self.follow(UplinkId(uplink), known);
        }
        let present = self
            .links
            .iter()
            .map(|link| link.ifindex)
            .filter(|&ifindex| ifindex != 0);
        if let Err(error) = self.datapath.retain(&present.collect::<Vec<_>>()) {
            warn!("programs of a removed interface: {error:#}");
        }
        self.align_routes();
    }

    /// Brings tables, rules and routes in line with the links.
    pub(super) fn align_routes(&mut self) {
        let mut changes = Vec::new();
        let routes = self.router.prepare(&self.links).and_then(|tables| {
            self.log_report(&tables);
            changes.extend(tables.changes);
            self.router.reconcile()
        });
        match routes {
            Ok(report) => {
                self.log_report(&report);
                changes.extend(report.changes);
            }
            Err(error) => warn!("routes could not be brought in line: {error:#}"),
        }
        self.tell_repairs(&changes);
        self.resolve_gateways();
    }

    /// Takes the default routes of these uplinks out, and puts those of the others back.
    pub(super) fn withdraw(&mut self, family: Family, uplinks: Members) {
        match self.router.set_withdrawn(family, uplinks) {
            Ok(report) => self.log_report(&report),
            Err(error) => warn!("default routes could not be withdrawn: {error:#}"),
        }
    }

    /// Has the kernel find out the gateways' link-layer addresses before they are needed. Probes do that by the way; families without
    /// targets have none.
    pub(super) fn resolve_gateways(&mut self) {
        for uplink in (0..self.links.len()).map(UplinkId) {
            for family in Family::ALL {
                if !self.links[uplink.0].carrier {
                    continue;
                }
                if let Err(error) = self.router.resolve(family, uplink) {
                    debug!("{error:#}");
                }
            }
        }
    }

    /// A neighbour on an uplink does not answer. If it is the gateway, a probe says at once what the next round would say later.
    fn suspect(&mut self, ifindex: u32, address: IpAddr) {
        let family = match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let uplink = self.links.iter().position(|link| {
            let path = link.families[family as usize].as_ref();
            link.ifindex == ifindex && path.is_some_and(|path| path.gateway == Some(address))
        });
        let Some(uplink) = uplink.map(UplinkId) else {
            return;
        };
        let name = self.name(uplink);
        debug!(uplink = name, %family, gateway = %address, "{name}: gateway {address} does not answer");
        let now = self.clock.now();
        self.machine.handle(Input::Suspect { uplink, family }, now);
    }

    /// While an interface is down the kernel refuses its routes; that is no news, and it is tried again when it comes up.
    fn log_report(&self, report: &Report) {
        if self.links.iter().all(|link| link.carrier) {
            log_report("routes", report);
        } else {
            debug!("routes: {report:?}");
        }
    }

    /// Brings one uplink's programs, probes and policy in line with its link.
    fn follow(&mut self, uplink: UplinkId, known: &Link) {
        let link = &self.links[uplink.0];
        if link == known {
            return;
        }
        // Known already, unless the notification was lost.
        let carrier = Input::Carrier {
            uplink,
            up: link.carrier,
        };
        self.machine.handle(carrier, self.clock.now());
        let appeared = link.ifindex != known.ifindex && link.ifindex != 0;
        let done = if appeared {
            attach(self.datapath, &self.config, &self.links, uplink)
        } else if link.ifindex != 0 {
            describe(self.datapath, &self.config, &self.links, uplink)
        } else {
            Ok(())
        };
        if let Err(error) = done {
            warn!(uplink = self.name(uplink), "{error:#}");
        }
        for family in Family::ALL {
            let path = &self.links[uplink.0].families[family as usize];
            let usable = path.is_some();
            let source = path.as_ref().map(|path| path.source);
            if let Some(prober) = self.prober(uplink, family) {
                prober.set_source(source);
            }
            if usable != known.families[family as usize].is_some() {
                let name = self.name(uplink);
                let word = if usable { "found" } else { "lost" };
                info!(uplink = name, %family, usable, "{name}: {family} way out {word}");
                self.machine.handle(
                    Input::Usable {
                        uplink,
                        family,
                        usable,
                    },
                    self.clock.now(),
                );
            }
            // A new interface begins with open gates.
            if appeared && let Some(cause) = self.machine.cut(uplink, family) {
                self.gate_off(uplink, family, cause);
            }
        }
    }
}
