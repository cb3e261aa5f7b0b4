//! Carries out one switch, in the order of invariant 4, and records when each step was done. What it leaves is cut after it, by `cut`.

use std::collections::VecDeque;

use failover_ebpf::Gate;
use failover_policy::{Family, Input, Switch, Time, UplinkId, UplinkSet};
use tracing::{debug, error, info, warn};

use super::Agent;
use crate::control::status::{MAX_SWITCHES, joined};

/// One switch, with the time of each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SwitchRecord {
    /// What the policy has decided.
    pub(super) decision: Switch,
    /// The active uplinks before, by name: a reload may remove them.
    pub(super) from: Option<String>,
    /// The new ones.
    pub(super) to: String,
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
    logged: bool,
}

impl SwitchRecord {
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
        records.find(|record| record.decision.family == family && record.routed.is_some())
    }

    /// The one of a family that was decided at `decided`.
    pub(super) fn decided_at(
        &mut self,
        family: Family,
        decided: Time,
    ) -> Option<&mut SwitchRecord> {
        let mut records = self.0.iter_mut().rev();
        records
            .find(|record| record.decision.family == family && record.decision.decided == decided)
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
    /// Carries out what the policy ordered, records it, and reports to the policy how it ended.
    pub(super) fn switch(&mut self, decision: &Switch) {
        let Switch { family, to, .. } = *decision;
        let mut record = self.record(decision);

        // Opening cuts nothing, and the new route must not lead to a closed gate for an instant. If the switch fails, gates follow the
        // routes as the kernel shows them then.
        let gates: Vec<(UplinkId, Gate)> = to
            .iter()
            .map(|uplink| (uplink, self.gate(uplink, family)))
            .collect();
        for uplink in to.iter() {
            self.set_gate(uplink, family, Gate::Open);
        }
        match self.router.activate(family, to) {
            Ok(confirmed) => {
                record.routed = Some(self.clock.now());
                if confirmed.displaced {
                    self.scans.soon(true);
                }
                for change in &confirmed.changes {
                    debug!("routes: {change}");
                }
                let news = self.expects_all_routes();
                for problem in &confirmed.problems {
                    if news {
                        warn!("routes: {problem}");
                    } else {
                        debug!("routes: {problem}");
                    }
                }
            }
            Err(error) => {
                error!(
                    to = record.to,
                    %family,
                    "no switch to {}: its default route could not be confirmed, nothing was cut: {error:#}",
                    record.to,
                );
                self.follow_routes(family, &gates);
            }
        }
        self.report_foreign();
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

    /// After a switch that could not be confirmed: whoever's default route stands has an open gate, and only the others that have got one for
    /// the switch get back the `gates` that they had. Where the kernel does not say, an open gate is the lesser harm.
    fn follow_routes(&mut self, family: Family, gates: &[(UplinkId, Gate)]) {
        let standing = match self.router.current(family) {
            Ok(standing) => standing,
            Err(error) => {
                warn!(%family, "gates stay open, because the default routes cannot be read: {error:#}");
                self.scans.soon(false);
                return;
            }
        };
        for &(uplink, gate) in gates {
            if !standing.contains(uplink) {
                self.set_gate(uplink, family, gate);
            }
        }
        for uplink in standing.iter() {
            self.set_gate(uplink, family, Gate::Open);
        }
        // What the switch has left behind is restored.
        self.scans.soon(false);
    }

    fn record(&self, decision: &Switch) -> SwitchRecord {
        SwitchRecord {
            decision: *decision,
            from: self.names(decision.from),
            to: self.names(decision.to).unwrap_or_default(),
            routed: None,
            gated: None,
            ungated: false,
            cut: None,
            sockets_ended: None,
            flows_deleted: None,
            logged: false,
        }
    }

    /// The names of all of them; none if there are none.
    pub(super) fn names(&self, members: UplinkSet) -> Option<String> {
        joined(
            self.router
                .links()
                .in_order(members)
                .map(|uplink| self.name(uplink)),
        )
    }

    /// Logs the switches that are carried out, with what was cut at once, and has the user's program run.
    pub(super) fn log_switches(&mut self) {
        for record in self.history.unlogged() {
            self.log(&record);
            if record.routed.is_some() {
                self.log_drains(record.decision.family, record.decision.from);
                self.run_on_switch(&record.decision);
            }
        }
    }

    pub(super) fn gate(&self, uplink: UplinkId, family: Family) -> Gate {
        match self.datapath.gates(self.router.links()[uplink].ifindex) {
            Ok(gates) => gates[family],
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
        // That there are no programs was reported when they could not be attached, and stands in the status.
        if self
            .datapath
            .obstacle(self.router.links()[uplink].ifindex)
            .is_some()
        {
            return gate == Gate::Open;
        }
        self.set_cut_mode(uplink, family, gate);
        let before = self.gate(uplink, family);
        if before == gate {
            return true;
        }
        let name = &self.uplinks[uplink].name;
        match self
            .datapath
            .set_gate(self.router.links()[uplink].ifindex, family, gate)
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
                // The next scan tries again.
                self.scans.failed();
                false
            }
        }
    }

    fn log(&self, record: &SwitchRecord) {
        let Some(routed) = record.routed else { return };
        let Switch {
            family,
            cause,
            detected,
            decided,
            ..
        } = record.decision;
        let micros =
            |time: Time| u64::try_from(time.since(detected).as_micros()).unwrap_or(u64::MAX);
        info!(
            %family,
            from = record.from,
            to = record.to,
            %cause,
            decided_us = micros(decided),
            routed_us = micros(routed),
            gated_us = record.gated.map(micros),
            logged_us = micros(self.clock.now()),
            "{cause}: {} is the active uplink for {family}",
            record.to,
        );
    }

    fn log_drains(&self, family: Family, left: UplinkSet) {
        for uplink in self.router.links().in_order(left) {
            let Some(until) = self.machine.draining(uplink, family) else {
                continue;
            };
            let (name, seconds) = (
                self.name(uplink),
                until.since(self.clock.now()).as_secs_f64(),
            );
            info!(
                uplink = name,
                %family,
                drain_s = seconds,
                "{name} ({family}): old connections may finish for {seconds:.1} s",
            );
        }
    }
}
