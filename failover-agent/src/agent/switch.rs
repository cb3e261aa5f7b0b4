//! Carries out one switch, in the order of invariant 4, and records when each step was done. What it leaves is cut after it, by `cut`.

use std::collections::VecDeque;

use failover_ebpf::Gate;
use tracing::{debug, error, info, warn};

use super::Agent;
use crate::{
    control::status::MAX_SWITCHES,
    policy::{Cause, Family, Input, Members, Time, UplinkId},
};

/// One switch, with the time of each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SwitchRecord {
    pub(super) family: Family,
    /// The active uplink before.
    pub(super) from: Option<UplinkId>,
    /// The new one.
    pub(super) to: UplinkId,
    pub(super) cause: Cause,
    /// When the fact that made it necessary came in.
    pub(super) detected: Time,
    /// When the policy decided.
    pub(super) decided: Time,
    /// When the new route stood and was confirmed; none if that failed.
    pub(super) routed: Option<Time>,
    /// When the gates stood as they should that were closed so far; none if that failed or the mode is `off`.
    pub(super) gated: Option<Time>,
    /// Whether a gate could not be closed.
    ungated: bool,
    /// When everything was cut that was left so far.
    pub(super) cut: Option<Time>,
    /// Sockets of this host that were ended; none: not looked at.
    pub(super) sockets_ended: Option<u64>,
    /// Tracked flows that were deleted; none: not looked at.
    pub(super) flows_deleted: Option<u64>,
    /// Whether it is in the log.
    logged: bool,
}

impl SwitchRecord {
    /// Of a switch that the policy has ordered, and of which nothing is done yet.
    pub(super) fn ordered(
        family: Family,
        from: Option<UplinkId>,
        to: UplinkId,
        cause: Cause,
        detected: Time,
        decided: Time,
    ) -> Self {
        SwitchRecord {
            family,
            from,
            to,
            cause,
            detected,
            decided,
            routed: None,
            gated: None,
            ungated: false,
            cut: None,
            sockets_ended: None,
            flows_deleted: None,
            logged: false,
        }
    }

    /// Takes note of one more gate that does or does not stand as it should.
    pub(super) fn gated(&mut self, stands: bool, now: Time) {
        self.ungated |= !stands;
        self.gated = (!self.ungated).then_some(now);
    }
}

/// The last switches, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<SwitchRecord>);

impl History {
    fn push(&mut self, record: SwitchRecord) {
        if self.0.len() == MAX_SWITCHES {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    /// The last confirmed switch of a family.
    pub(super) fn latest(&mut self, family: Family) -> Option<&mut SwitchRecord> {
        let mut records = self.0.iter_mut().rev();
        records.find(|record| record.family == family && record.routed.is_some())
    }

    /// The one of a family that was decided at `decided`.
    pub(super) fn decided_at(
        &mut self,
        family: Family,
        decided: Time,
    ) -> Option<&mut SwitchRecord> {
        let mut records = self.0.iter_mut().rev();
        records.find(|record| record.family == family && record.decided == decided)
    }

    /// Those that are not in the log yet, oldest first.
    fn unlogged(&mut self) -> Vec<SwitchRecord> {
        let unlogged = self.0.iter_mut().filter(|record| !record.logged);
        unlogged
            .map(|record| {
                record.logged = true;
                record.clone()
            })
            .collect()
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &SwitchRecord> {
        self.0.iter().rev()
    }
}

impl Agent<'_> {
    /// Carries out what the policy ordered, completes its `record`, and tells the policy how it ended.
    pub(super) fn switch(&mut self, mut record: SwitchRecord) {
        let SwitchRecord { family, to, .. } = record;

        // Opening cuts nothing, and the new route must not lead to a closed gate for an instant.
        let gate_before = self.gate(to, family);
        self.set_gate(to, family, Gate::Open);
        match self.router.activate(family, Members::only(to)) {
            Ok(confirmed) => {
                record.routed = Some(self.clock.now());
                for change in &confirmed.changes {
                    debug!("routes: {change}");
                }
                for problem in &confirmed.problems {
                    warn!("routes: {problem}");
                }
            }
            Err(error) => {
                error!(
                    to = self.name(to),
                    %family,
                    "no switch to {}: its default route could not be confirmed, nothing was cut: {error:#}",
                    self.name(to),
                );
                self.set_gate(to, family, gate_before);
            }
        }
        let confirmed = record.routed.is_some();
        self.history.push(record);
        self.machine.handle(
            Input::Switched {
                family,
                to,
                confirmed,
            },
            self.clock.now(),
        );
    }

    /// Logs the switches that are carried out, with what was cut at once.
    pub(super) fn log_switches(&mut self) {
        for record in self.history.unlogged() {
            self.log(&record);
        }
    }

    fn gate(&self, uplink: UplinkId, family: Family) -> Gate {
        match self.datapath.gates(self.links[uplink.0].ifindex) {
            Ok(gates) => gates[family as usize],
            Err(error) => {
                warn!(
                    uplink = self.name(uplink),
                    "gate could not be read: {error:#}"
                );
                Gate::Open
            }
        }
    }

    /// Sets one gate; returns whether it stands as it should.
    pub(super) fn set_gate(&mut self, uplink: UplinkId, family: Family, gate: Gate) -> bool {
        let before = self.gate(uplink, family);
        if before == gate {
            return true;
        }
        let name = &self.config.uplinks[uplink.0].name;
        match self
            .datapath
            .set_gate(self.links[uplink.0].ifindex, family, gate)
        {
            Ok(()) => {
                let word = match gate {
                    Gate::Open => "open",
                    Gate::Closed => "closed",
                };
                info!(uplink = name, %family, gate = word, "{name}: {family} gate {word}");
                true
            }
            Err(error) => {
                error!(uplink = name, %family, "{name}: gate could not be set: {error:#}");
                false
            }
        }
    }

    fn log(&self, record: &SwitchRecord) {
        let Some(routed) = record.routed else { return };
        let micros =
            |time: Time| u64::try_from(time.since(record.detected).as_micros()).unwrap_or(u64::MAX);
        info!(
            family = %record.family,
            from = record.from.map(|uplink| self.name(uplink)),
            to = self.name(record.to),
            cause = %record.cause,
            decided_us = micros(record.decided),
            routed_us = micros(routed),
            gated_us = record.gated.map(micros),
            logged_us = micros(self.clock.now()),
            "{}: {} is the active uplink for {}",
            record.cause,
            self.name(record.to),
            record.family,
        );
        if let Some(from) = record.from
            && let Some(until) = self.machine.draining(from, record.family)
        {
            let (name, seconds) = (self.name(from), until.since(self.clock.now()).as_secs_f64());
            info!(
                uplink = name,
                family = %record.family,
                drain_s = seconds,
                "{name} ({}): old connections may finish for {seconds:.1} s",
                record.family,
            );
        }
    }
}
