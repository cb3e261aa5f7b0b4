//! Cuts off an uplink: nothing that was begun on it goes on.

use failover_ebpf::Gate;

use super::Agent;
use crate::{
    config::CutoffMode,
    policy::{Cause, Family, UplinkId},
};

impl Agent<'_> {
    /// Carries out the policy's order to cut `uplink`, which was left because of `cause`, and completes the record of the switch.
    pub(super) fn cut(&mut self, family: Family, uplink: UplinkId, cause: Cause) {
        let gated = self.gate_off(uplink, family, cause);
        let gated_at = self.clock.now();
        let mode = self.config.cutoff.mode_for(cause);
        let done = self.clock.now();
        if mode != CutoffMode::Off
            && let Some(record) = self.history.latest(family)
        {
            record.gated(gated, gated_at);
            record.cut = Some(done);
        }
    }

    /// Sets the gate of an uplink that was cut because of `cause`: closed, unless nothing is to be cut then. Returns whether it
    /// stands as it should.
    pub(super) fn gate_off(&mut self, uplink: UplinkId, family: Family, cause: Cause) -> bool {
        let gate = match self.config.cutoff.mode_for(cause) {
            CutoffMode::Reset | CutoffMode::Drop => Gate::Closed,
            CutoffMode::Off => Gate::Open,
        };
        // An interface that is gone has no gate.
        self.links[uplink.0].ifindex == 0 || self.set_gate(uplink, family, gate)
    }
}
