//! Keeps the programs on the uplinks' interfaces: what the status says of gates is what the kernel has.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use failover_policy::{Family, UplinkId};
use tracing::{debug, warn};

use super::{Agent, setup::attach};
use crate::{interface, route::Origin};

/// Least time from one verification of the programs to the next: some are wanted by each scan and each status.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest time without one. The kernel reports no TCX link that is detached, and no map entry that is deleted.
const REST: Duration = Duration::from_secs(5);

/// Least time from one line about an uplink's programs to the next.
const SILENCE: Duration = Duration::from_secs(60);

/// What is known between two checks of the programs.
#[derive(Debug)]
pub(super) struct Watch {
    checked: Instant,
    /// Something is said to have happened to them.
    suspect: bool,
    /// Who removed a qdisc or filter, by interface index.
    removers: HashMap<u32, Origin>,
    /// By interface index: when they were last put back with a word, and how often without one since then.
    reported: HashMap<u32, (Instant, u64)>,
}

impl Watch {
    /// They have just been attached.
    pub(super) fn new() -> Self {
        Watch {
            checked: Instant::now(),
            suspect: false,
            removers: HashMap::new(),
            reported: HashMap::new(),
        }
    }

    /// Something may have happened to the programs of an interface.
    pub(super) fn suspect(&mut self) {
        self.suspect = true;
    }

    /// Another program removed a qdisc or a filter from an uplink's interface.
    pub(super) fn removed(&mut self, ifindex: u32, by: &Origin) {
        self.suspect = true;
        self.removers.insert(ifindex, by.clone());
    }

    /// How often the programs of an interface were put back without a word; None: this time is without one, too.
    fn report(&mut self, ifindex: u32) -> Option<u64> {
        let now = Instant::now();
        match self.reported.get_mut(&ifindex) {
            Some((when, times)) if now.duration_since(*when) < SILENCE => {
                *times += 1;
                None
            }
            reported => {
                let times = reported.map_or(0, |(_, times)| *times);
                self.reported.insert(ifindex, (now, 0));
                Some(times)
            }
        }
    }
}

impl Agent<'_> {
    /// Verifies the programs if that is due.
    pub(super) fn watch_programs(&mut self) {
        if self.programs.checked.elapsed() >= REST {
            self.verify_programs();
        }
    }

    /// Asks the kernel for the programs of all uplinks, and puts back what is missing. At most once a [`PAUSE`].
    pub(super) fn verify_programs(&mut self) {
        let due = self.programs.checked + PAUSE;
        if Instant::now() < due {
            if self.programs.suspect {
                self.scans.by(due);
            }
            return;
        }
        self.programs.checked = Instant::now();
        self.programs.suspect = false;
        for uplink in self.router.links().ids().collect::<Vec<_>>() {
            let link = &self.router.links()[uplink];
            if link.ifindex == 0 {
                continue;
            }
            // The interface is not the one that was looked at last: a scan must come first.
            if interface::name(link.ifindex).as_ref() != Some(&link.interface) {
                self.scans.soon(false);
                continue;
            }
            match self.datapath.missing(link.ifindex) {
                Ok(None) => {}
                Ok(Some(missing)) => self.put_back(uplink, &missing),
                Err(error) => {
                    debug!(
                        "{}: programs could not be looked at: {error:#}",
                        self.name(uplink)
                    );
                }
            }
        }
        self.programs.removers.clear();
        let links = self.router.links();
        let there = |ifindex: &u32| links.values().any(|link| link.ifindex == *ifindex);
        self.programs.reported.retain(|ifindex, _| there(ifindex));
        if let Err(error) = self.datapath.pin_maps() {
            debug!("the programs' maps are not pinned, a restart will not adopt them: {error:#}");
        }
    }

    /// Attaches an uplink's programs again, with its gates as they should stand.
    fn put_back(&mut self, uplink: UplinkId, missing: &str) {
        let ifindex = self.router.links()[uplink].ifindex;
        let known = self.datapath.obstacle(ifindex).is_some();
        attach(
            self.datapath,
            &self.config.cutoff,
            &self.uplinks[uplink],
            &self.router.links()[uplink],
        );
        if self.datapath.obstacle(ifindex).is_some() {
            return;
        }
        for family in Family::ALL {
            if let Some(cause) = self.machine.cut(uplink, family) {
                self.gate_off(uplink, family, cause);
            }
        }
        if known {
            return;
        }
        let by = match self.programs.removers.get(&ifindex) {
            Some(by @ Origin::Process { .. }) => format!(" ({by} removed something there)"),
            _ => String::new(),
        };
        let name = self.name(uplink).to_owned();
        match self.programs.report(ifindex) {
            Some(0) => warn!(uplink = name, "{name}: {missing}{by}: programs put back"),
            Some(times) => warn!(
                uplink = name,
                times,
                "{name}: {missing}{by}: programs put back, as {times} times before without a word"
            ),
            None => debug!(uplink = name, "{name}: {missing}{by}: programs put back"),
        }
    }
}
