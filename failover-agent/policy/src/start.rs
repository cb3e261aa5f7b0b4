//! A family's first choice of an uplink.

use std::collections::VecDeque;

use super::election::{Election, detected, rank};
use super::health::Tracker;
use super::pick::Pick;
use super::{Action, Cause, Health, PerUplink, Time, UplinkId, UplinkSet};

impl Election {
    /// Waits until no first round is missing that could show a better uplink, or another of the same group, to be Up; then takes the best.
    pub(super) fn start(
        &mut self,
        trackers: &PerUplink<Tracker>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        if self.await_override(trackers, now, out) {
            return;
        }
        let adopted = |tracker: &&Tracker| self.active.contains(tracker.uplink());
        // An adopted uplink that is Blind may be as good as ever; only a better group may replace it.
        let blind = |tracker: &&Tracker| {
            tracker.health() == Health::Blind && tracker.probed() && tracker.present()
        };
        let undecided = trackers.values().find(|tracker| tracker.undecided());
        let undecided = undecided.map(Tracker::rank);
        let blind = trackers.values().filter(adopted).find(blind);
        let blind = blind.map(Tracker::rank);
        let all_lost = self.all_lost;
        let decided = |tracker: &Tracker| {
            let rank = tracker.rank();
            all_lost
                || undecided.is_none_or(|first| rank < first)
                    && blind.is_none_or(|first| rank <= first)
        };
        match self.pick(decided, trackers, None, now, out) {
            Pick::Take(to) => {
                let detected = detected(UplinkSet::NONE, to, trackers);
                let to = to.union(self.staying(to, trackers));
                self.switch(to, Cause::Startup, detected, now, out);
            }
            Pick::Nothing if undecided.or(blind).is_none() => self.report_nowhere(out),
            Pick::Nothing | Pick::Wait => {}
        }
    }

    /// Switches to the uplink of a manual override that a previous run of the agent left. Returns whether it does, or still may. An
    /// override whose uplink is Down has been dropped before.
    fn await_override(
        &mut self,
        trackers: &PerUplink<Tracker>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) -> bool {
        let Some(chosen) = self.manual_override() else {
            return false;
        };
        let tracker = &trackers[chosen];
        let blind = tracker.health() == Health::Blind && tracker.present();
        let wanted = |tracker: &Tracker| tracker.uplink() == chosen;
        match self.pick(wanted, trackers, None, now, out) {
            Pick::Take(to) => {
                let detected = detected(UplinkSet::NONE, to, trackers);
                self.switch(to, Cause::Startup, detected, now, out);
                true
            }
            Pick::Wait => true,
            Pick::Nothing => tracker.undecided() || blind && self.active.contains(chosen),
        }
    }

    /// Adopted members of the group of `to` that are not proven but have not failed either: they stay active.
    fn staying(&self, to: UplinkSet, trackers: &PerUplink<Tracker>) -> UplinkSet {
        let rank = rank(to, trackers);
        let stays = |id: &UplinkId| {
            let tracker = &trackers[*id];
            let failed = matches!(tracker.health(), Health::Down | Health::Unknown);
            tracker.present() && !failed && Some(tracker.rank()) == rank
        };
        self.active.iter().filter(stays).collect()
    }
}
