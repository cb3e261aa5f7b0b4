//! A changed configuration for a running machine: what did not change is left alone.

use super::health::Tracker;
use super::machine::FamilyState;
use super::{Machine, MachineConfig, PerUplink, Time, UplinkId, UplinkSet, UplinkSettings};

impl Machine {
    /// Takes over a changed configuration. `kept` are the uplinks that existed before; any other is new, even if a removed one had its
    /// identity.
    ///
    /// What the machine knows and has decided stays. [`UplinkSettings::earlier`] is ignored for kept uplinks, and [`MachineConfig::active`]
    /// and [`MachineConfig::drill`] altogether; `carrier` and `usable` are facts as of now. Changed thresholds apply from the next round.
    /// With other targets, interval, timeout or quorum the rounds start again, as after [`Input::Moved`]; if the targets differ but not
    /// their number, the caller must send that afterwards.
    ///
    /// All actions must have been polled before. Removed uplinks are left out of the answer to a switch that is still in flight.
    ///
    /// [`Input::Moved`]: super::Input::Moved
    pub fn reconfigure(&mut self, config: &MachineConfig, kept: UplinkSet, now: Time) {
        debug_assert!(self.actions.is_empty(), "actions name uplinks of before");
        let uplinks = &config.uplinks;
        let before = &self.families.v4.trackers;
        let known = |uplink: &UplinkId| before.contains(*uplink) && uplinks.contains(*uplink);
        let kept: UplinkSet = kept.iter().filter(known).collect();
        for (family, state) in self.families.iter_mut() {
            state.trackers = uplinks.carry(&state.trackers, kept, |uplink, settings| {
                Tracker::new(uplink, family, settings)
            });
            for (uplink, tracker) in state.trackers.iter_mut() {
                tracker.reconfigure(&uplinks[uplink], now, &mut self.actions);
            }
            state.reconfigure(uplinks, kept, now);
        }
        self.drill = self.drill.filter(|(drilled, _)| kept.contains(*drilled));
        self.recoveries.reconfigure(uplinks, kept, now);
        self.withdraw = config.withdraw;
        self.decide(now);
    }
}

impl FamilyState {
    fn reconfigure(&mut self, uplinks: &PerUplink<UplinkSettings>, kept: UplinkSet, now: Time) {
        self.election.reconfigure(uplinks, kept);
        let standbys = !self.election.confirmed().is_empty();
        self.cutoff.reconfigure(uplinks, kept, standbys, now);
        self.withdrawal.reconfigure(kept);
    }
}
