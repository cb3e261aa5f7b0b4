//! Other rules for a machine that runs: what did not change is not touched.

use super::health::Tracker;
use super::machine::Side;
use super::{Family, Machine, Members, Rules, Time, UplinkId};

/// Which uplink of before each uplink is.
pub(super) struct Renumbering(Vec<Option<UplinkId>>);

impl Renumbering {
    /// `old` by new uplink. What makes no sense (there was no such uplink, or it has another place already) is new.
    fn new(old: &[Option<UplinkId>], before: usize, after: usize) -> Self {
        let mut known = Members::NONE;
        let take = |id: usize| {
            let old = (*old.get(id)?)?;
            let valid = old.0 < before && !known.contains(old);
            known = known.with(old);
            valid.then_some(old)
        };
        Renumbering((0..after).map(take).collect())
    }

    /// Where an uplink of before is now.
    pub(super) fn uplink(&self, old: UplinkId) -> Option<UplinkId> {
        let place = self.0.iter().position(|from| *from == Some(old));
        place.map(UplinkId)
    }

    /// Those of a set of before that are still there.
    pub(super) fn members(&self, old: Members) -> Members {
        old.iter().filter_map(|id| self.uplink(id)).collect()
    }

    /// What there was by uplink, by uplink; `new` makes it for those that were not there before.
    pub(super) fn carry<T: Clone>(&self, old: &[T], new: impl Fn(UplinkId) -> T) -> Vec<T> {
        let places = self.0.iter().enumerate();
        places
            .map(|(id, from)| match from {
                Some(from) => old[from.0].clone(),
                None => new(UplinkId(id)),
            })
            .collect()
    }
}

impl Machine {
    /// Takes other rules. `old` says by new uplink which one of before it is; `None`: a new one.
    ///
    /// What the machine knows and has decided moves along with its uplink. Of known uplinks, [`UplinkRules::earlier`] is
    /// ignored, and [`Rules::active`] and [`Rules::drill`] altogether; `carrier` and `usable` are facts as of now. Changed
    /// thresholds apply from the next round. With other targets, interval, timeout or quorum the rounds begin anew, as after
    /// [`Input::Moved`]; with targets that are others, but as many as before, that must be sent after this.
    ///
    /// All actions must have been polled before: from now on uplinks have their new numbers. So has the answer to a switch that
    /// is still on its way; removed uplinks are left out of it.
    ///
    /// [`UplinkRules::earlier`]: super::UplinkRules::earlier
    /// [`Input::Moved`]: super::Input::Moved
    pub fn reconfigure(&mut self, rules: &Rules, old: &[Option<UplinkId>], now: Time) {
        debug_assert!(self.actions.is_empty(), "actions name uplinks of before");
        let before = self.sides[0].trackers.len();
        let uplinks = Renumbering::new(old, before, rules.uplinks.len());
        for (family, side) in Family::ALL.into_iter().zip(&mut self.sides) {
            side.trackers = uplinks.carry(&side.trackers, |new| {
                Tracker::new(new, family, &rules.uplinks[new.0])
            });
            for ((id, tracker), rules) in side.trackers.iter_mut().enumerate().zip(&rules.uplinks) {
                tracker.reconfigure(UplinkId(id), rules, now, &mut self.actions);
            }
            side.reconfigure(&uplinks, now);
        }
        let drill = self.drill.take();
        self.drill = drill.and_then(|(drilled, until)| Some((uplinks.uplink(drilled)?, until)));
        self.resets.reconfigure(&uplinks, &rules.uplinks, now);
        self.withdraw = rules.withdraw;
        self.decide(now);
    }
}

impl Side {
    fn reconfigure(&mut self, uplinks: &Renumbering, now: Time) {
        self.election.reconfigure(uplinks);
        let standbys = !self.election.confirmed().is_empty();
        self.cutoff.reconfigure(uplinks, standbys, now);
        self.withdrawal.reconfigure(uplinks);
    }
}
