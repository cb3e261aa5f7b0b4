//! Carries out one switch, in the order of invariant 4, and records when each step was done.

use std::{collections::VecDeque, time::Duration};

use failover_ebpf::Gate;
use tracing::{error, info, warn};

use super::Agent;
use crate::{
    config::CutoffMode,
    policy::{Cause, Family, Input, Time, UplinkId},
};

/// How many switches the status remembers.
const REMEMBERED: usize = 20;

/// One switch, with the time of each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchRecord {
    /// Which family.
    pub family: Family,
    /// The active uplink before.
    pub from: Option<UplinkId>,
    /// The new one.
    pub to: UplinkId,
    /// Why.
    pub cause: Cause,
    /// When the fact that made it necessary came in.
    pub detected: Time,
    /// When the policy decided.
    pub decided: Time,
    /// When the new route stood and was confirmed; none if that failed.
    pub routed: Option<Time>,
    /// When the gates stood as they should; none if that failed or the mode is `off`.
    pub gated: Option<Time>,
}

/// The last switches, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<SwitchRecord>);

impl History {
    fn push(&mut self, record: SwitchRecord) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &SwitchRecord> {
        self.0.iter().rev()
    }
}

/// What the policy ordered.
pub(super) struct Order {
    pub(super) family: Family,
    pub(super) from: Option<UplinkId>,
    pub(super) to: UplinkId,
    pub(super) cause: Cause,
    pub(super) detected: Time,
    pub(super) decided: Time,
}

impl Agent {
    /// Carries out `order` and tells the policy how it ended.
    pub(super) async fn switch(&mut self, order: Order) {
        let Order { family, from, to, cause, detected, decided } = order;
        let mut record =
            SwitchRecord { family, from, to, cause, detected, decided, routed: None, gated: None };

        // Opening cuts nothing, and the new route must not lead to a closed gate for an instant.
        let gate_before = self.gate(to, family);
        self.set_gate(to, family, Gate::Open);
        let confirmed = match self.router.activate(family, to.0).await {
            Ok(()) => {
                record.routed = Some(self.clock.now());
                true
            }
            Err(error) => {
                error!(
                    to = self.name(to),
                    %family,
                    "the new default route could not be confirmed, nothing was cut: {error:#}"
                );
                self.set_gate(to, family, gate_before);
                false
            }
        };
        if confirmed && self.close_standby_gates(to, family) {
            record.gated = Some(self.clock.now());
        }
        self.log(&record);
        self.history.push(record);
        self.machine.handle(Input::Switched { family, to, confirmed }, self.clock.now());
    }

    /// Closes the gates of all uplinks but `active`. Returns whether all stand as they should.
    fn close_standby_gates(&mut self, active: UplinkId, family: Family) -> bool {
        if self.config.cutoff.mode == CutoffMode::Off {
            return false;
        }
        let standbys = (0..self.links.len()).map(UplinkId).filter(|&uplink| uplink != active);
        standbys.fold(true, |all, uplink| self.set_gate(uplink, family, Gate::Closed) && all)
    }

    fn log(&self, record: &SwitchRecord) {
        let Some(routed) = record.routed else { return };
        let micros = |time: Time| time.since(record.detected).as_micros();
        info!(
            family = %record.family,
            from = record.from.map(|uplink| self.name(uplink)),
            to = self.name(record.to),
            cause = %record.cause,
            decided_us = micros(record.decided),
            routed_us = micros(routed),
            gated_us = record.gated.map(micros),
            "switch: {} is active",
            self.name(record.to),
        );
    }

    fn gate(&self, uplink: UplinkId, family: Family) -> Gate {
        match self.datapath.gates(self.links[uplink.0].ifindex) {
            Ok(gates) => gates[family as usize],
            Err(error) => {
                warn!(uplink = self.name(uplink), "gate could not be read: {error:#}");
                Gate::Open
            }
        }
    }

    /// Sets one gate; returns whether it stands as it should.
    fn set_gate(&mut self, uplink: UplinkId, family: Family, gate: Gate) -> bool {
        let before = self.gate(uplink, family);
        let ifindex = self.links[uplink.0].ifindex;
        match self.datapath.set_gate(ifindex, family, gate) {
            Ok(()) => {
                if before != gate {
                    info!(uplink = self.name(uplink), %family, gate = ?gate, "gate {gate:?}");
                }
                true
            }
            Err(error) => {
                error!(uplink = self.name(uplink), %family, "gate could not be set: {error:#}");
                false
            }
        }
    }
}

/// How long a step may take before the log complains: the loop does nothing else meanwhile, and the lease must be kept.
pub(super) const SLOW_STEP: Duration = Duration::from_millis(500);
