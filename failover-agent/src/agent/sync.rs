//! Follows what others change: carrier, addresses, gateways, routes.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::{Agent, attach, log_report, on_link_prefixes};
use crate::{
    policy::{Family, Input, UplinkId},
    route::{Change, Link},
};

/// Changes come in bursts (link, addresses, routes): wait for the end of one before looking.
const SETTLE: Duration = Duration::from_millis(50);

/// Least time between two looks, so that a quarrel with another program about a route costs neither of us much.
const PAUSE: Duration = Duration::from_secs(1);

/// When to look next, and when we looked last.
#[derive(Debug, Default)]
pub(super) struct Sync {
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Sync {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn schedule(&mut self) {
        let settled = Instant::now() + SETTLE;
        let rested = self.last.map(|last| last + PAUSE);
        self.due
            .get_or_insert(rested.map_or(settled, |rested| rested.max(settled)));
    }

    fn begin(&mut self) {
        self.due = None;
        self.last = Some(Instant::now());
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
                info!(
                    uplink = self.name(uplink),
                    carrier = up,
                    "carrier {}",
                    if up { "is back" } else { "lost" }
                );
                self.machine
                    .handle(Input::Carrier { uplink, up }, self.clock.now());
            }
        }
        self.sync.schedule();
    }

    /// Looks at all uplinks again and brings programs, tables, routes, probes and policy in line with what is there now.
    pub(super) fn synchronize(&mut self) {
        self.sync.begin();
        let links = match self.router.rediscover(self.config) {
            Ok(links) => links,
            Err(error) => {
                warn!("cannot look at the uplinks: {error:#}");
                self.sync.schedule();
                return;
            }
        };
        let known = std::mem::replace(&mut self.links, links);
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
        let routes = self.router.prepare(&self.links).and_then(|tables| {
            log_report("routing tables", &tables);
            self.router.reconcile()
        });
        match routes {
            Ok(report) => log_report("routes", &report),
            Err(error) => warn!("routes could not be brought in line: {error:#}"),
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
            attach(self.datapath, &self.config.uplinks[uplink.0], link)
        } else if link.ifindex != 0 {
            self.datapath
                .set_exempt(link.ifindex, &on_link_prefixes(link))
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
                info!(uplink = self.name(uplink), %family, usable, "way out {}", if usable { "found" } else { "lost" });
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
            if appeared
                && let Some(active) = self.machine.active(family)
                && active != uplink
            {
                self.close_gate(uplink, family);
            }
        }
    }
}
