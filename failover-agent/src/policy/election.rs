//! Which uplink carries a family's new traffic, and when that changes.

use core::ops::Range;
use core::time::Duration;
use std::collections::VecDeque;

use super::health::Tracker;
use super::{Action, Cause, Family, Health, Note, Time, UplinkId};

/// First and longest wait after a switch that could not be confirmed, before the same destination is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the election remembers of one uplink.
#[derive(Clone, Debug, Default)]
struct Candidate {
    /// When it was asked for a proof.
    asked: Option<Time>,
    /// Until when, and for how long, it is passed over because a switch to it was not confirmed.
    refused: Option<(Time, Duration)>,
    /// The end of the hold time that was told.
    told: Option<Time>,
}

/// What a search for a destination found.
enum Pick {
    Take(UplinkId),
    /// Somebody may be able to prove itself soon.
    Wait,
    Nobody,
}

/// The election of one family.
#[derive(Debug)]
pub(super) struct Election {
    family: Family,
    active: Option<UplinkId>,
    /// Whether a switch was confirmed in this run: until then `active` is only adopted.
    started: bool,
    /// The switch that waits for its confirmation.
    in_flight: Option<(UplinkId, Cause)>,
    /// Why the last confirmed switch happened.
    cause: Option<Cause>,
    /// The last confirmed failback.
    failback: Option<Time>,
    /// The uplink that was chosen by hand.
    pin: Option<UplinkId>,
    /// Whether it was told that there is nowhere to go.
    told_nowhere: bool,
    candidates: Vec<Candidate>,
    /// When to look again even if nothing happens.
    deadline: Option<Time>,
}

impl Election {
    pub(super) fn new(family: Family, uplinks: usize, adopted: Option<UplinkId>) -> Self {
        Election {
            family,
            active: adopted.filter(|active| active.0 < uplinks),
            started: false,
            in_flight: None,
            cause: None,
            failback: None,
            pin: None,
            told_nowhere: false,
            candidates: vec![Candidate::default(); uplinks],
            deadline: None,
        }
    }

    pub(super) fn active(&self) -> Option<UplinkId> {
        self.active
    }

    /// The active uplink as far as it was confirmed in this run.
    pub(super) fn confirmed(&self) -> Option<UplinkId> {
        self.active.filter(|_| self.started)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Whether a switch waits for its confirmation.
    pub(super) fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Why the last confirmed switch happened.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// The uplink that was chosen by hand.
    pub(super) fn pin(&self) -> Option<UplinkId> {
        self.pin
    }

    /// Chooses an uplink by hand, or none.
    pub(super) fn set_pin(&mut self, pin: Option<UplinkId>) {
        self.pin = pin;
    }

    /// Takes the answer to a switch; one that does not belong to the switch in flight says nothing. If it was confirmed:
    /// the active uplink until then, and the cause.
    pub(super) fn switched(
        &mut self,
        to: UplinkId,
        confirmed: bool,
        now: Time,
    ) -> Option<(Option<UplinkId>, Cause)> {
        let (_, cause) = self
            .in_flight
            .take_if(|(destination, _)| *destination == to)?;
        let candidate = &mut self.candidates[to.0];
        if confirmed {
            candidate.refused = None;
            let from = self.active.replace(to);
            (self.started, self.told_nowhere, self.cause) = (true, false, Some(cause));
            if cause == Cause::Failback {
                self.failback = Some(now);
            }
            Some((from, cause))
        } else {
            let wait = candidate
                .refused
                .map_or(BACKOFF.0, |(_, wait)| (wait * 2).min(BACKOFF.1));
            candidate.refused = Some((now + wait, wait));
            None
        }
    }

    /// Looks at the family anew. Decides the same however often it is asked.
    pub(super) fn decide(&mut self, trackers: &[Tracker], now: Time, out: &mut VecDeque<Action>) {
        self.deadline = None;
        self.release(trackers, out);
        if self.in_flight.is_some() {
            return;
        }
        let Some(active) = self.confirmed() else {
            return self.start(trackers, now, out);
        };
        let down = trackers[active.0].health() == Health::Down;
        self.told_nowhere &= down;
        if self.obey(active, trackers, now, out) {
            return;
        }
        if down {
            self.fail_over(active, trackers, now, out);
        } else if self.pin.is_none() {
            self.fail_back(active, trackers, now, out);
        }
    }

    /// Forgets a choice by hand that is Down: it would otherwise move the traffic a second time when it comes back.
    fn release(&mut self, trackers: &[Tracker], out: &mut VecDeque<Action>) {
        let down = |pin: &mut UplinkId| trackers[pin.0].health() == Health::Down;
        if let Some(uplink) = self.pin.take_if(down) {
            let family = self.family;
            out.push_back(Action::Note(Note::Released { uplink, family }));
        }
    }

    /// Goes where somebody wants it; whether it does.
    fn obey(
        &mut self,
        active: UplinkId,
        trackers: &[Tracker],
        now: Time,
        out: &mut VecDeque<Action>,
    ) -> bool {
        let Some(pin) = self.pin.filter(|pin| *pin != active) else {
            return false;
        };
        let old = &trackers[active.0];
        let down = old.health() == Health::Down;
        let trouble = old.trouble().filter(|_| down);
        let only = pin.0..pin.0 + 1;
        let Pick::Take(to) = self.pick(only, |_| true, trackers, trouble, now, out) else {
            return false;
        };
        if down {
            let detected = old.since().max(trackers[to.0].since());
            self.switch(to, Cause::Failover, detected, now, out);
        } else {
            self.switch(to, Cause::Manual, now, now, out);
        }
        true
    }

    /// Does what the other family did, whose confirmed active uplink is `leader`.
    pub(super) fn follow(
        &mut self,
        leader: UplinkId,
        trackers: &[Tracker],
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        self.deadline = None;
        if self.in_flight.is_some()
            || self.confirmed() == Some(leader)
            || !trackers[leader.0].present()
        {
            return;
        }
        match self.refused(leader, now) {
            Some(until) => self.wake(until),
            None => self.switch(leader, Cause::Follow, now, now, out),
        }
    }

    /// Waits until nobody better can turn up by its first round, then takes the best.
    fn start(&mut self, trackers: &[Tracker], now: Time, out: &mut VecDeque<Action>) {
        let undecided = |(id, tracker): (usize, &Tracker)| {
            // An adopted uplink that is Blind may be as good as ever; only a better one may replace it.
            let adopted_blind =
                self.active == Some(UplinkId(id)) && tracker.health() == Health::Blind;
            tracker.undecided() || adopted_blind && tracker.probed() && tracker.present()
        };
        let end = trackers.iter().enumerate().position(undecided);
        match self.pick(
            0..end.unwrap_or(trackers.len()),
            |_| true,
            trackers,
            None,
            now,
            out,
        ) {
            Pick::Take(to) => self.switch(to, Cause::Startup, trackers[to.0].since(), now, out),
            Pick::Nobody if end.is_none() => self.tell_nowhere(out),
            Pick::Nobody | Pick::Wait => {}
        }
    }

    fn fail_over(
        &mut self,
        active: UplinkId,
        trackers: &[Tracker],
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        let down = &trackers[active.0];
        match self.pick(
            0..trackers.len(),
            |id| id != active,
            trackers,
            down.trouble(),
            now,
            out,
        ) {
            Pick::Take(to) => {
                let detected = down.since().max(trackers[to.0].since());
                self.switch(to, Cause::Failover, detected, now, out);
            }
            Pick::Nobody => self.tell_nowhere(out),
            Pick::Wait => {}
        }
    }

    /// The hold time runs from the start of the good rounds and from the last failback, so that neither one flapping uplink
    /// nor several coming back one after the other move the traffic more often than that.
    fn fail_back(
        &mut self,
        active: UplinkId,
        trackers: &[Tracker],
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        let after = self.failback;
        for (id, tracker) in trackers.iter().enumerate().take(active.0) {
            if let Some(until) = tracker.held_until(after).filter(|until| *until > now) {
                self.wake(until);
                if self.candidates[id].told.replace(until) != Some(until) {
                    out.push_back(Action::Note(Note::Holding {
                        uplink: UplinkId(id),
                        family: self.family,
                        until,
                    }));
                }
            }
        }
        let held = |id: UplinkId| {
            trackers[id.0]
                .held_until(after)
                .is_some_and(|until| until <= now)
        };
        if let Pick::Take(to) = self.pick(0..active.0, held, trackers, None, now, out) {
            self.switch(to, Cause::Failback, trackers[to.0].since(), now, out);
        }
    }

    /// The best-ranked uplink that is proven just now.
    ///
    /// One that looks good without being proven is asked for a round at once. A lower-ranked one that is proven already waits
    /// for the answer, but no longer than a probe's timeout: going to the worse one first would end all connections twice and
    /// keep the traffic there for the hold time, to save what is one round trip if the better one is well. A destination
    /// that could not be confirmed holds up nobody.
    fn pick(
        &mut self,
        uplinks: Range<usize>,
        fit: impl Fn(UplinkId) -> bool,
        trackers: &[Tracker],
        trouble: Option<Time>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) -> Pick {
        let mut nobody = Pick::Nobody;
        let mut asking = false;
        for id in uplinks.map(UplinkId) {
            let tracker = &trackers[id.0];
            if !tracker.good() || !fit(id) {
                continue;
            }
            if let Some(until) = self.refused(id, now) {
                self.wake(until);
                nobody = Pick::Wait;
            } else if !tracker.proven(trouble, now) {
                let deadline = self.ask(id, tracker, now, out) + tracker.timeout();
                if now < deadline {
                    self.wake(deadline);
                    (nobody, asking) = (Pick::Wait, true);
                }
            } else if asking {
                return Pick::Wait;
            } else {
                return Pick::Take(id);
            }
        }
        nobody
    }

    /// When the proof was asked for that is still to come: now, if there is none.
    fn ask(
        &mut self,
        id: UplinkId,
        tracker: &Tracker,
        now: Time,
        out: &mut VecDeque<Action>,
    ) -> Time {
        let candidate = &mut self.candidates[id.0];
        match candidate.asked.filter(|asked| !tracker.answered(*asked)) {
            Some(asked) => asked,
            None => {
                candidate.asked = Some(now);
                out.push_back(Action::ProbeNow {
                    uplink: id,
                    family: self.family,
                });
                now
            }
        }
    }

    fn refused(&self, id: UplinkId, now: Time) -> Option<Time> {
        let (until, _) = self.candidates[id.0].refused?;
        (now < until).then_some(until)
    }

    fn wake(&mut self, at: Time) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }

    fn tell_nowhere(&mut self, out: &mut VecDeque<Action>) {
        if !self.told_nowhere {
            self.told_nowhere = true;
            out.push_back(Action::Note(Note::NowhereToGo {
                family: self.family,
                active: self.active,
            }));
        }
    }

    fn switch(
        &mut self,
        to: UplinkId,
        cause: Cause,
        detected: Time,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        self.in_flight = Some((to, cause));
        out.push_back(Action::Switch {
            family: self.family,
            from: self.active,
            to,
            cause,
            detected,
            decided: now,
        });
    }
}
