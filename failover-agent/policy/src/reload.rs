//! Other rules for a machine that runs: what did not change is not touched.

use super::health::Tracker;
use super::machine::FamilyState;
use super::renumbering::Renumbering;
use super::{Machine, MachineConfig, Time, UplinkId};

impl Machine {
    /// Takes other rules. `old` says by new uplink which one of before it is; `None`: a new one.
    ///
    /// What the machine knows and has decided moves along with its uplink. Of known uplinks, [`UplinkSettings::earlier`] is
    /// ignored, and [`MachineConfig::active`] and [`MachineConfig::drill`] altogether; `carrier` and `usable` are facts as of now. Changed
    /// thresholds apply from the next round. With other targets, interval, timeout or quorum the rounds begin anew, as after
    /// [`Input::Moved`]; with targets that are others, but as many as before, that must be sent after this.
    ///
    /// All actions must have been polled before: from now on uplinks have their new numbers. So has the answer to a switch that
    /// is still on its way; removed uplinks are left out of it.
    ///
    /// [`UplinkSettings::earlier`]: super::UplinkRules::earlier
    /// [`Input::Moved`]: super::Input::Moved
    pub fn reconfigure(&mut self, rules: &MachineConfig, old: &[Option<UplinkId>], now: Time) {
        debug_assert!(self.actions.is_empty(), "actions name uplinks of before");
        let before = self.families.v4.trackers.len();
        let uplinks = Renumbering::new(old, before, rules.uplinks.len());
        for (family, state) in self.families.iter_mut() {
            state.trackers = uplinks.carry(&state.trackers, |new| {
                Tracker::new(new, family, &rules.uplinks[new.0])
            });
            for ((id, tracker), rules) in state.trackers.iter_mut().enumerate().zip(&rules.uplinks)
            {
                tracker.reconfigure(UplinkId(id), rules, now, &mut self.actions);
            }
            state.reconfigure(&uplinks, now);
        }
        let drill = self.drill.take();
        self.drill = drill.and_then(|(drilled, until)| Some((uplinks.uplink(drilled)?, until)));
        self.resets.reconfigure(&uplinks, &rules.uplinks, now);
        self.withdraw = rules.withdraw;
        self.decide(now);
    }
}

impl FamilyState {
    fn reconfigure(&mut self, uplinks: &Renumbering, now: Time) {
        self.election.reconfigure(uplinks);
        let standbys = !self.election.confirmed().is_empty();
        self.cutoff.reconfigure(uplinks, standbys, now);
        self.withdrawal.reconfigure(uplinks);
    }
}
