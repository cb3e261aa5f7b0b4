//! Drills: an uplink counts as Down for a while.

use super::health::Tracker;
use super::machine::FamilyState;
use super::{Action, Event, Family, Health, Machine, Refusal, Time, UplinkId};

impl Machine {
    /// Whether every family could do without `uplink`; checked if a drill is to `begin`.
    pub(super) fn check_drill(
        &self,
        uplink: UplinkId,
        begin: bool,
        now: Time,
    ) -> Result<(), Refusal> {
        if !self.families.v4.trackers.contains(uplink) {
            return Err(Refusal::Unknown);
        }
        for (family, state) in self.families.iter() {
            let needed = state.trackers[uplink].measured() == Health::Up
                || state.election.active().contains(uplink);
            let other = |(id, tracker): (UplinkId, &Tracker)| uplink != id && tracker.reliable(now);
            if begin && state.probed() && needed && !state.trackers.iter().any(other) {
                return Err(Refusal::NoOther { family });
            }
        }
        Ok(())
    }

    /// Starts, replaces or ends a drill.
    pub(super) fn set_drill(
        &mut self,
        drill: Option<(UplinkId, Time)>,
        alone: Option<Family>,
        now: Time,
    ) {
        let old = core::mem::replace(&mut self.drill, drill);
        let (old, new) = (old.map(|(id, _)| id), drill.map(|(id, _)| id));
        if old == new {
            return;
        }
        let families = &mut self.families;
        for (uplink, drilled) in [(old, false), (new, true)] {
            let Some(uplink) = uplink else { continue };
            if !drilled {
                let ended = Event::DrillEnded { uplink, alone };
                self.actions.push_back(Action::Report(ended));
            }
            for state in families.values_mut() {
                state.trackers[uplink].set_drilled(drilled, now, &mut self.actions);
            }
        }
    }

    /// Ends a drill when its time is over, or when it is the only thing that keeps a family from its last uplink.
    pub(super) fn check_drill_end(&mut self, now: Time) {
        let Some((uplink, until)) = self.drill else {
            return;
        };
        let alone = |(family, state): (Family, &FamilyState)| {
            let other = |(id, tracker): (UplinkId, &Tracker)| {
                uplink != id && (tracker.health() == Health::Up || tracker.undecided())
            };
            let last = state.trackers[uplink].measured() == Health::Up
                && !state.trackers.iter().any(other);
            last.then_some(family)
        };
        let alone = self.families.iter().find_map(alone);
        if until <= now {
            self.set_drill(None, None, now);
        } else if alone.is_some() {
            self.set_drill(None, alone, now);
        }
    }
}
