//! Follows what others change: carrier, addresses, gateways, routes.

use std::net::IpAddr;

use failover_policy::{Family, Input, UplinkId, UplinkSet};
use tracing::{debug, info, warn};

use super::{
    Agent,
    setup::{attach, describe, log_report, warn_of_duplicates},
};
use crate::route::{Change, EgressPath, Link, Report};

impl Agent<'_> {
    /// Takes note of a change; what follows from it is done by [`Agent::scan`] a little later, except for the carrier, which
    /// the policy must know at once.
    pub(super) fn changed(&mut self, change: &Change) {
        debug!("netlink: {change:?}");
        if let Change::Neighbour { ifindex, address } = change {
            self.suspect(*ifindex, *address);
            return;
        }
        if let Change::Programs { ifindex, by } = change {
            self.programs.removed(*ifindex, by);
            self.scans.soon(true);
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
            self.programs.suspect();
            let links = &mut self.links;
            let known = links.iter().find(|(_, link)| link.interface == *name);
            if let Some(uplink) = known.map(|(uplink, _)| uplink) {
                let up = *carrier && !*gone;
                // A switch that follows at once must not count on it.
                links[uplink].carrier = up;
                if !up {
                    self.router.interrupted(&self.uplinks[uplink].interface);
                }
                let name = self.name(uplink);
                let word = if up { "is back" } else { "lost" };
                info!(uplink = name, carrier = up, "{name}: carrier {word}");
                self.machine
                    .handle(Input::Carrier { uplink, up }, self.clock.now());
            }
        }
        if *change == Change::Resync {
            self.programs.suspect();
            // Whatever is gone may have gone with its interface.
            for link in self.links.values() {
                self.router.interrupted(&link.interface);
            }
        }
        let contested = matches!(
            change,
            Change::Route { .. }
                | Change::Near { .. }
                | Change::Rule { .. }
                | Change::Nexthop { .. }
        );
        self.scans.soon(contested);
    }

    /// Looks at all uplinks again and brings programs, tables, routes, probes and policy in line with what is there now.
    pub(super) fn scan(&mut self) {
        let begun = self.scans.begin();
        self.bring_in_line();
        self.scans.end(begun);
        debug!(
            took_us = u64::try_from(self.scans.took().as_micros()).unwrap_or(u64::MAX),
            "scanned uplinks and routes"
        );
    }

    fn bring_in_line(&mut self) {
        let links = match self.router.scan(&self.config) {
            Ok(links) => links,
            Err(error) => {
                warn!("cannot scan the uplinks: {error:#}");
                self.scans.failed();
                return;
            }
        };
        let known = std::mem::replace(&mut self.links, links);
        self.lost_addresses.note(&known, &self.links);
        for (uplink, known) in known.iter() {
            self.follow(uplink, known);
        }
        let present = self
            .links
            .values()
            .map(|link| link.ifindex)
            .filter(|&ifindex| ifindex != 0);
        if let Err(error) = self.datapath.retain(&present.collect::<Vec<_>>()) {
            warn!("programs of a removed interface: {error:#}");
        }
        self.verify_programs();
        for family in Family::ALL {
            self.align_gates(family);
        }
        self.end_lost_addresses();
        self.align_routes();
    }

    /// Brings tables, rules and routes in line with the links.
    pub(super) fn align_routes(&mut self) {
        let mut changes = Vec::new();
        match self.router.prepare(&self.links) {
            Ok(tables) => {
                self.log_report(&tables);
                changes.extend(tables.changes);
            }
            Err(error) => {
                warn!("tables and rules could not be brought in line: {error:#}");
                self.scans.failed();
            }
        }
        let report = self.router.settle();
        self.scans.note_changed(!report.changes.is_empty());
        self.scans.note_displaced(report.displaced);
        self.log_report(&report);
        changes.extend(report.changes);
        self.report_repairs(&changes);
        self.report_foreign();
        self.resolve_gateways();
        if let Some(time) = self.router.next_scan() {
            self.scans.by(time);
        }
    }

    /// Takes the default routes of these uplinks out, and puts those of the others back.
    pub(super) fn withdraw(&mut self, family: Family, uplinks: UplinkSet) {
        match self.router.set_withdrawn(family, uplinks) {
            Ok(report) => self.log_report(&report),
            Err(error) => warn!("default routes could not be withdrawn: {error:#}"),
        }
    }

    /// Has the kernel find out the gateways' link-layer addresses before they are needed. Probes do that by the way; families without
    /// targets have none.
    pub(super) fn resolve_gateways(&mut self) {
        for uplink in self.links.ids().collect::<Vec<_>>() {
            for family in Family::ALL {
                if !self.links[uplink].carrier {
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
        let mut links = self.links.iter();
        let uplink = links.find(|(_, link)| {
            let path = link.families[family].as_ref();
            link.ifindex == ifindex && path.is_some_and(|path| path.gateway == Some(address))
        });
        let Some((uplink, _)) = uplink else {
            return;
        };
        let name = self.name(uplink);
        debug!(uplink = name, %family, gateway = %address, "{name}: gateway {address} does not answer");
        let now = self.clock.now();
        self.machine.handle(Input::Suspect { uplink, family }, now);
    }

    /// While an interface is down, or has lost its address, the kernel refuses its routes; that is no news, and it is tried again when
    /// it comes up.
    fn log_report(&self, report: &Report) {
        if self.expects_all_routes() {
            log_report("routes", report);
        } else {
            debug!("routes: {report:?}");
        }
    }

    /// Whether a route of ours that the kernel refuses is news.
    pub(super) fn expects_all_routes(&self) -> bool {
        self.links.values().all(|link| link.carrier) && !self.router.lingers()
    }

    /// Brings one uplink's programs, probes and policy in line with its link.
    fn follow(&mut self, uplink: UplinkId, known: &Link) {
        let link = &self.links[uplink];
        if link == known {
            return;
        }
        warn_of_duplicates(self.name(uplink), link, &known.duplicates);
        // Known already, unless the notification was lost.
        let carrier = Input::Carrier {
            uplink,
            up: link.carrier,
        };
        self.machine.handle(carrier, self.clock.now());
        let appeared = link.ifindex != known.ifindex && link.ifindex != 0;
        let done = if appeared {
            attach(
                self.datapath,
                &self.config.cutoff,
                &self.uplinks[uplink],
                &self.links[uplink],
            );
            Ok(())
        } else if link.ifindex != 0 {
            describe(self.datapath, &self.config.cutoff, &self.links[uplink])
        } else {
            Ok(())
        };
        if let Err(error) = done {
            warn!(uplink = self.name(uplink), "{error:#}");
        }
        for family in Family::ALL {
            let path = self.links[uplink].families[family].as_ref();
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
            let way = |path: Option<&EgressPath>| path.map(|path| (path.source, path.gateway));
            let before = way(known.families[family].as_ref());
            if usable && before.is_some() && before != way(path) {
                let moved = Input::Moved { uplink, family };
                self.machine.handle(moved, self.clock.now());
            }
            if usable != before.is_some() {
                let name = self.name(uplink);
                let reason = self.router.why_lost(uplink, family);
                match (usable, reason) {
                    (false, Some(reason)) => {
                        info!(uplink = name, %family, usable, "{name}: {family} egress path lost: {reason}");
                    }
                    _ => {
                        let word = if usable { "found" } else { "lost" };
                        info!(uplink = name, %family, usable, "{name}: {family} egress path {word}");
                    }
                }
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
