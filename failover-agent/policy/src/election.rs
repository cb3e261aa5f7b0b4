//! Which uplinks carry a family's new traffic, and when that changes.

use core::time::Duration;
use std::collections::VecDeque;

use super::health::Tracker;
use super::pick::Pick;
use super::{
    Action, Cause, Event, Family, Health, PerUplink, Switch, Time, UplinkId, UplinkSet,
    UplinkSettings,
};

/// First and longest back-off after a switch that could not be confirmed, before the same destination is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the election remembers about one uplink.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidate {
    /// When a proof was last requested of it.
    pub(super) asked: Option<Time>,
    /// Until when it is passed over because a switch to it was not confirmed, and the length of that back-off.
    pub(super) refused: Option<(Time, Duration)>,
    /// Whether it was one of several that could not be confirmed together; which of them failed is unknown.
    pub(super) doubted: bool,
    /// The end of the hold time that was last reported.
    reported: Option<Time>,
}

/// The election of one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Election {
    pub(super) family: Family,
    pub(super) active: UplinkSet,
    /// Whether a switch was confirmed in this run; until then `active` is only adopted.
    started: bool,
    /// Whether all active uplinks were removed: then the first uplink that is proven is taken.
    pub(super) all_lost: bool,
    /// The switch that waits for its confirmation.
    in_flight: Option<(UplinkSet, Cause)>,
    /// Why the last confirmed switch happened.
    cause: Option<Cause>,
    /// The last confirmed failback to a better group.
    failback: Option<Time>,
    /// The manual override.
    manual_override: Option<UplinkId>,
    /// Whether [`Event::NowhereToGo`] was reported.
    reported_nowhere: bool,
    pub(super) candidates: PerUplink<Candidate>,
    /// Whether a proof was requested that may still come in time.
    pub(super) asking: bool,
    /// When to decide again even if nothing happens.
    deadline: Option<Time>,
}

impl Election {
    pub(super) fn new(
        family: Family,
        uplinks: &PerUplink<UplinkSettings>,
        adopted: UplinkSet,
        manual_override: Option<UplinkId>,
    ) -> Self {
        let known = |id: &UplinkId| uplinks.contains(*id);
        Election {
            family,
            active: adopted.iter().filter(known).collect(),
            started: false,
            all_lost: false,
            in_flight: None,
            cause: None,
            failback: None,
            manual_override: manual_override.filter(known),
            reported_nowhere: false,
            candidates: uplinks.map(|_, _| Candidate::default()),
            asking: false,
            deadline: None,
        }
    }

    pub(super) fn active(&self) -> UplinkSet {
        self.active
    }

    /// The active uplinks that were confirmed in this run.
    pub(super) fn confirmed(&self) -> UplinkSet {
        match self.started {
            true => self.active,
            false => UplinkSet::NONE,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// The destination of the switch that waits for its confirmation.
    pub(super) fn in_flight(&self) -> Option<UplinkSet> {
        self.in_flight.map(|(to, _)| to)
    }

    /// Why the last confirmed switch happened.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// The manual override.
    pub(super) fn manual_override(&self) -> Option<UplinkId> {
        self.manual_override
    }

    /// Sets or ends the manual override.
    pub(super) fn set_override(&mut self, uplink: Option<UplinkId>) {
        self.manual_override = uplink;
    }

    /// Takes the answer to a switch; ignores one that does not belong to the switch in flight. If the switch was confirmed, returns the
    /// uplinks that were active until then, and the cause.
    pub(super) fn switched(
        &mut self,
        to: UplinkSet,
        confirmed: bool,
        now: Time,
    ) -> Option<(UplinkSet, Cause)> {
        let (_, cause) = self
            .in_flight
            .take_if(|(destination, _)| *destination == to)?;
        if !confirmed {
            self.back_off(to, now);
            return None;
        }
        for id in to.iter() {
            let candidate = &mut self.candidates[id];
            (candidate.refused, candidate.doubted) = (None, false);
        }
        let from = core::mem::replace(&mut self.active, to);
        (self.started, self.all_lost) = (true, false);
        (self.reported_nowhere, self.cause) = (false, Some(cause));
        // An uplink that joins moves no traffic. Only one that is left makes this a failback that the next one must wait for.
        if cause == Cause::Failback && !from.within(to) {
            self.failback = Some(now);
        }
        Some((from, cause))
    }

    /// Passes over, for a while, what could not be switched to. Of several new uplinks any may be at fault: each is tried alone first.
    fn back_off(&mut self, to: UplinkSet, now: Time) {
        let new = to.minus(self.active);
        if new.len() > 1 {
            for id in new.iter() {
                self.candidates[id].doubted = true;
            }
            return;
        }
        for id in if new.is_empty() { to } else { new }.iter() {
            let candidate = &mut self.candidates[id];
            let wait = candidate
                .refused
                .map_or(BACKOFF.0, |(_, wait)| (wait * 2).min(BACKOFF.1));
            candidate.refused = Some((now + wait, wait));
        }
    }

    /// Decides for the family. The decision does not depend on how often this is called.
    pub(super) fn decide(
        &mut self,
        trackers: &PerUplink<Tracker>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        (self.deadline, self.asking) = (None, false);
        self.release(trackers, out);
        if self.in_flight.is_some() {
            return;
        }
        let active = self.confirmed();
        if active.is_empty() {
            return self.start(trackers, now, out);
        }
        let is_down = |id: &UplinkId| trackers[*id].health() == Health::Down;
        let down: UplinkSet = active.iter().filter(is_down).collect();
        self.reported_nowhere &= down == active;
        if self.apply_override(down, trackers, now, out) {
            return;
        }
        if down == active {
            self.fail_over(trackers, now, out);
        } else if !self.leave(down, trackers, now, out) && self.manual_override.is_none() {
            self.fail_back(trackers, now, out);
        }
    }

    /// Ends a manual override whose uplink is Down. Otherwise it would move the traffic a second time when the uplink is back.
    fn release(&mut self, trackers: &PerUplink<Tracker>, out: &mut VecDeque<Action>) {
        let down = |uplink: &mut UplinkId| trackers[*uplink].health() == Health::Down;
        if let Some(uplink) = self.manual_override.take_if(down) {
            let family = self.family;
            out.push_back(Action::Report(Event::Released { uplink, family }));
        }
    }

    /// Switches to the uplink of a manual override; returns whether it does. `down` are the active uplinks that are Down.
    fn apply_override(
        &mut self,
        down: UplinkSet,
        trackers: &PerUplink<Tracker>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) -> bool {
        let elsewhere = |uplink: &UplinkId| self.active != UplinkSet::only(*uplink);
        let Some(chosen) = self.manual_override.filter(elsewhere) else {
            return false;
        };
        let all_down = down == self.active;
        let first_failure = first_failure(down, trackers).filter(|_| all_down);
        let wanted = |tracker: &Tracker| tracker.uplink() == chosen;
        let Pick::Take(to) = self.pick(wanted, trackers, first_failure, now, out) else {
            return false;
        };
        if all_down {
            let detected = detected(down, to, trackers);
            self.switch(to, Cause::Failover, detected, now, out);
        } else {
            self.switch(to, Cause::Manual, now, now, out);
        }
        true
    }

    /// Follows the other family, whose confirmed active uplinks are `leader`, as far as they can carry this one.
    pub(super) fn follow(
        &mut self,
        leader: UplinkSet,
        trackers: &PerUplink<Tracker>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        (self.deadline, self.asking) = (None, false);
        let present = |id: &UplinkId| trackers[*id].present();
        let wanted: UplinkSet = leader.iter().filter(present).collect();
        if self.in_flight.is_some() || wanted.is_empty() || wanted == self.confirmed() {
            return;
        }
        let mut new = wanted.minus(self.active);
        let kept = wanted.minus(new);
        for id in wanted.iter() {
            // An uplink that stays counts as refused only if no other is new: then it was the removal of one that failed.
            if let Some(until) = self.refused(id, now) {
                self.wake(until);
                new = new.without(id);
            }
        }
        let refused = kept.iter().any(|id| self.refused(id, now).is_some());
        let to = kept.union(self.together(new));
        if to.is_empty() || to == self.confirmed() || new.is_empty() && refused {
            return;
        }
        self.switch(to, Cause::Follow, now, now, out);
    }

    /// All active uplinks are Down.
    fn fail_over(&mut self, trackers: &PerUplink<Tracker>, now: Time, out: &mut VecDeque<Action>) {
        let first_failure = first_failure(self.active, trackers);
        match self.pick(|_| true, trackers, first_failure, now, out) {
            Pick::Take(to) => {
                let detected = detected(self.active, to, trackers);
                self.switch(to, Cause::Failover, detected, now, out);
            }
            Pick::Nothing => self.report_nowhere(out),
            Pick::Wait => {}
        }
    }

    /// Some of the active uplinks are `down`: leaves them if one of the others is proven. Others that have not failed stay.
    fn leave(
        &mut self,
        down: UplinkSet,
        trackers: &PerUplink<Tracker>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) -> bool {
        if down.is_empty() {
            return false;
        }
        let rest = self.active.minus(down);
        let first_failure = first_failure(down, trackers);
        let stays = |tracker: &Tracker| rest.contains(tracker.uplink());
        let Pick::Take(proven) = self.pick(stays, trackers, first_failure, now, out) else {
            return false;
        };
        let detected = detected(down, proven, trackers);
        self.switch(rest, Cause::Failover, detected, now, out);
        true
    }

    /// Switches to a better group, or lets members join the active one.
    ///
    /// The hold time runs from the start of the good rounds and, for a better group, from the last failback. So neither one flapping uplink
    /// nor several that come back one after the other move the traffic more often than that.
    fn fail_back(&mut self, trackers: &PerUplink<Tracker>, now: Time, out: &mut VecDeque<Action>) {
        let (active, after) = (self.active, self.failback);
        let ranks = || active.iter().map(|id| trackers[id].rank());
        let (Some(best), Some(worst)) = (ranks().min(), ranks().max()) else {
            return;
        };
        let better = |tracker: &Tracker| tracker.rank() < worst;
        // After a reload the active uplinks may differ in rank: then the best of them are what the machine goes back to.
        let joins = |tracker: &Tracker| {
            best == worst && tracker.rank() == best && !active.contains(tracker.uplink())
        };
        let held_until = |tracker: &Tracker| match better(tracker) {
            true => tracker.held_until(after),
            false => tracker.held_until(None),
        };
        for tracker in trackers
            .values()
            .filter(|tracker| better(tracker) || joins(tracker))
        {
            if let Some(until) = held_until(tracker).filter(|until| *until > now) {
                self.hold(tracker.uplink(), until, out);
            }
        }
        let held = |tracker: &Tracker| held_until(tracker).is_some_and(|until| until <= now);
        let to_better = |tracker: &Tracker| better(tracker) && held(tracker);
        let to_join = |tracker: &Tracker| joins(tracker) && held(tracker);
        let (to, new) = match self.pick(to_better, trackers, None, now, out) {
            Pick::Take(to) => (to, to),
            Pick::Wait | Pick::Nothing => match self.pick(to_join, trackers, None, now, out) {
                Pick::Take(new) => (active.union(new), new),
                Pick::Wait | Pick::Nothing => return,
            },
        };
        let detected = detected(UplinkSet::NONE, new, trackers);
        self.switch(to, Cause::Failback, detected, now, out);
    }

    fn hold(&mut self, uplink: UplinkId, until: Time, out: &mut VecDeque<Action>) {
        self.wake(until);
        let family = self.family;
        if self.candidates[uplink].reported.replace(until) != Some(until) {
            out.push_back(Action::Report(Event::Holding {
                uplink,
                family,
                until,
            }));
        }
    }

    pub(super) fn wake(&mut self, at: Time) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }

    pub(super) fn report_nowhere(&mut self, out: &mut VecDeque<Action>) {
        if !self.reported_nowhere {
            self.reported_nowhere = true;
            out.push_back(Action::Report(Event::NowhereToGo {
                family: self.family,
                active: self.active,
            }));
        }
    }

    pub(super) fn switch(
        &mut self,
        to: UplinkSet,
        cause: Cause,
        detected: Time,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        self.in_flight = Some((to, cause));
        // No proof is waited for until the switch is answered.
        (self.deadline, self.asking) = (None, false);
        out.push_back(Action::Switch(Switch {
            family: self.family,
            from: self.active,
            to,
            cause,
            detected,
            decided: now,
        }));
    }

    /// Takes over a changed set of uplinks. If none of the active ones is left, the family elects again.
    pub(super) fn reconfigure(&mut self, uplinks: &PerUplink<UplinkSettings>, kept: UplinkSet) {
        self.candidates = uplinks.carry(&self.candidates, kept, |_, _| Candidate::default());
        self.active = self.active.intersection(kept);
        self.manual_override = self.manual_override.filter(|uplink| kept.contains(*uplink));
        let in_flight = self
            .in_flight
            .map(|(to, cause)| (to.intersection(kept), cause));
        self.in_flight = in_flight.filter(|(to, _)| !to.is_empty());
        if self.started && self.active.is_empty() {
            (self.started, self.all_lost, self.reported_nowhere) = (false, true, false);
        }
    }
}

/// The best rank among a set of uplinks.
pub(super) fn rank(uplinks: UplinkSet, trackers: &PerUplink<Tracker>) -> Option<u32> {
    uplinks.iter().map(|id| trackers[id].rank()).min()
}

/// When the first failure of the uplinks that are Down occurred: rounds sent before prove nothing.
fn first_failure(down: UplinkSet, trackers: &PerUplink<Tracker>) -> Option<Time> {
    let first_failures = down.iter().filter_map(|id| trackers[id].first_failure());
    first_failures.max()
}

/// When leaving `left` for `to` became possible: all of the former were Down, and the first of the latter was Up.
pub(super) fn detected(left: UplinkSet, to: UplinkSet, trackers: &PerUplink<Tracker>) -> Time {
    let since = |id: UplinkId| trackers[id].since();
    let down = left.iter().map(since).max().unwrap_or_default();
    down.max(to.iter().map(since).min().unwrap_or_default())
}
