//! Follows what others change: carrier, addresses, gateways, routes.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::{
    Agent,
    setup::{attach, describe, log_report},
};
use crate::{
    policy::{Family, Input, UplinkId},
    route::{Change, Link, Report},
};

/// Changes come in bursts (link, addresses, routes): wait for the end of one before looking.
const SETTLE: Duration = Duration::from_millis(50);

/// Least time from a look that changed the main table to a look at routes that others have changed since: that may be the answer to
/// what we did, and a quarrel with another program must cost neither of us much.
const PAUSE: Duration = Duration::from_secs(1);

/// When to look next, and when we looked last.
#[derive(Debug, Default)]
pub(super) struct Sync {
    due: Option<Instant>,
    last: Option<Instant>,
    /// The last look changed the main table.
    changed: bool,
}

impl Sync {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Look soon; `contested` changes (routes, rules) may be somebody's answer to what we did, and wait longer.
    fn schedule(&mut self, contested: bool) {
        let settled = Instant::now() + SETTLE;
        let rested = self
            .last
            .map(|last| last + PAUSE)
            .filter(|_| contested && self.changed);
        self.schedule_at(rested.map_or(settled, |rested| rested.max(settled)));
    }

    fn schedule_at(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    fn begin(&mut self) {
        self.due = None;
        self.last = Some(Instant::now());
        self.changed = false;
    }
}

impl Agent<'_> {
    /// Takes note of a change; what follows from it is done by [`Agent::synchronize`] a little later, except for the carrier, which
    /// the policy must know at once.
    pub(super) fn changed(&mut self, change: &Change) {
        debug!("netlink: {change:?}");
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
                if !up {
                    self.router
                        .interrupted(&self.config.uplinks[uplink.0].interface);
                }
                let name = self.name(uplink);
                let word = if up { "is back" } else { "lost" };
                info!(uplink = name, carrier = up, "{name}: carrier {word}");
                self.machine
                    .handle(Input::Carrier { uplink, up }, self.clock.now());
            }
        }
        if *change == Change::Resync {
            // Whatever is gone may have gone with its interface.
            for link in &self.links {
                self.router.interrupted(&link.interface);
            }
        }
        let contested = matches!(change, Change::Route { .. } | Change::Rule { .. });
        self.sync.schedule(contested);
    }

    /// Looks at all uplinks again and brings programs, tables, routes, probes and policy in line with what is there now.
    pub(super) fn synchronize(&mut self) {
        self.sync.begin();
        let links = match self.router.rediscover(self.config) {
            Ok(links) => links,
            Err(error) => {
                warn!("cannot look at the uplinks: {error:#}");
                self.sync.schedule_at(Instant::now() + PAUSE);
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
        match self.router.prepare(&self.links) {
            Ok(tables) => {
                self.log_report(&tables);
                let report = self.router.settle();
                self.sync.changed = !report.changes.is_empty();
                self.log_report(&report);
            }
            Err(error) => warn!("routes could not be brought in line: {error:#}"),
        }
        self.resolve_gateways();
        if let Some(time) = self.router.look_again() {
            self.sync.schedule_at(time);
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

    /// While an interface is down, or has lost its address, the kernel refuses its routes; that is no news, and it is tried again when
    /// it comes up.
    fn log_report(&self, report: &Report) {
        if self.links.iter().all(|link| link.carrier) && !self.router.lingers() {
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
        let appeared = link.ifindex != known.ifindex && link.ifindex != 0;
        let done = if appeared {
            attach(self.datapath, self.config, &self.links, uplink)
        } else if link.ifindex != 0 {
            describe(self.datapath, self.config, &self.links, uplink)
        } else {
            Ok(())
        };
        if let Err(error) = done {
            warn!(uplink = self.name(uplink), "{error:#}");
        }
        for family in Family::ALL {
            let path = self.links[uplink.0].families[family as usize].as_ref();
            let usable = path.is_some();
            if let Some(prober) = self.prober(uplink, family) {
                let (known, now) = (prober.spec(), prober.spec().by(path));
                for (target, address) in &now.targets {
                    if now.on_link.contains(target) && !known.on_link.contains(target) {
                        let name = self.name(uplink);
                        warn!(uplink = name, probed = %address, "{name}: target {address} is on its own link now: its answers count for nothing, choose one beyond the gateway");
                    }
                }
                prober.update(now);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_an_answer_to_us_waits() {
        let mut sync = Sync::default();
        let quick = |sync: &Sync| sync.due().unwrap() <= Instant::now() + SETTLE;
        for _ in 0..3 {
            sync.schedule(true);
            assert!(quick(&sync));
            sync.begin();
        }
        sync.changed = true;
        sync.schedule(true);
        assert_eq!(sync.due(), sync.last.map(|last| last + PAUSE));
        sync.schedule(false);
        assert!(quick(&sync));
        sync.begin();
        assert_eq!(sync.due(), None);
    }
}
