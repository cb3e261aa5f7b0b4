//! Follows what others change: carrier, addresses, gateways, routes.

use std::net::IpAddr;

use failover_policy::{Family, Input, UplinkSet};
use tracing::{debug, info, warn};

use super::{
    Agent,
    setup::{log_report, present},
};
use crate::route::{Change, Report, Scan};

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
            replaced,
            ..
        } = change
        {
            if let Some(uplink) = self.router.uplink_called(name) {
                let up = *carrier && !*gone;
                if !self.router.set_carrier(uplink, up, *replaced) {
                    return;
                }
                let name = self.name(uplink);
                let word = if up { "is back" } else { "lost" };
                info!(uplink = name, carrier = up, "{name}: carrier {word}");
                self.machine
                    .handle(Input::Carrier { uplink, up }, self.clock.now());
            }
            self.programs.suspect();
        }
        if *change == Change::Resync {
            self.programs.suspect();
            self.router.all_interrupted();
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

    /// Scans all uplinks and brings programs, tables, routes, probes and policy in line with what is there now.
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
        let scan = match self.router.scan(&self.config) {
            Ok(scan) => scan,
            Err(error) => {
                warn!("cannot scan the uplinks: {error:#}");
                self.scans.failed();
                return;
            }
        };
        self.lost_addresses.note(&scan.before, self.router.links());
        for (uplink, before) in scan.before.iter() {
            self.follow(uplink, before);
        }
        if let Err(error) = self.datapath.retain(&present(self.router.links())) {
            warn!("programs of a removed interface: {error:#}");
        }
        self.verify_programs();
        for family in Family::ALL {
            self.align_gates(family);
        }
        self.end_lost_addresses();
        self.align_routes(scan);
    }

    /// Brings tables, rules and routes in line with the links that were taken over.
    pub(super) fn align_routes(&mut self, scan: Scan) {
        let aligned = self.router.align(scan);
        let mut changes = Vec::new();
        match aligned.tables {
            Ok(tables) => {
                self.log_report(&tables);
                changes.extend(tables.changes);
            }
            Err(error) => {
                warn!("tables and rules could not be brought in line: {error:#}");
                self.scans.failed();
            }
        }
        let routes = aligned.routes;
        self.scans.note_changed(!routes.changes.is_empty());
        self.scans.note_displaced(routes.displaced);
        self.log_report(&routes);
        changes.extend(routes.changes);
        self.report_repairs(&changes);
        match aligned.released {
            Ok(report) => log_report("routes", &report),
            Err(error) => warn!("routes of removed uplinks could not be restored: {error:#}"),
        }
        self.report_foreign();
        self.resolve_gateways();
        if let Some(time) = aligned.next_scan {
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
        for uplink in self.router.links().ids().collect::<Vec<_>>() {
            for family in Family::ALL {
                if !self.router.links()[uplink].carrier {
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
        let mut links = self.router.links().iter();
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
        self.router.links().values().all(|link| link.carrier) && !self.router.lingers()
    }
}
