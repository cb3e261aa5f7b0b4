//! The search for uplinks to switch to.

use std::collections::VecDeque;

use super::election::Election;
use super::health::Tracker;
use super::{Action, Health, PerUplink, Time, UplinkId, UplinkSet};

/// What a search for a destination found.
pub(super) enum Pick {
    /// All proven members of one group.
    Take(UplinkSet),
    /// No uplink is proven yet, but one may be soon.
    Wait,
    /// No uplink can be taken.
    Nothing,
}

impl Election {
    /// The uplinks of the best group that are `fit` and proven just now.
    ///
    /// An uplink that looks good without being proven is probed at once. A lower-ranked group that is already proven waits for the answer,
    /// but no longer than a probe's timeout: switching to the worse group first would end all connections twice and keep the traffic there
    /// for the hold time, only to save one round trip if the better uplink works. Members of one group do not wait for each other: a member
    /// whose answer comes later joins. An uplink to which a switch could not be confirmed holds up no other.
    pub(super) fn pick(
        &mut self,
        fit: impl Fn(&Tracker) -> bool,
        trackers: &PerUplink<Tracker>,
        first_failure: Option<Time>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) -> Pick {
        let mut otherwise = Pick::Nothing;
        let mut asking = false;
        let same_rank = |(_, one): &(UplinkId, Tracker), (_, next): &(UplinkId, Tracker)| {
            one.rank() == next.rank()
        };
        for group in trackers.as_slice().chunk_by(same_rank) {
            let better_asked = asking;
            let mut proven = UplinkSet::NONE;
            for tracker in group
                .iter()
                .map(|(_, tracker)| tracker)
                .filter(|tracker| tracker.good() && fit(tracker))
            {
                let id = tracker.uplink();
                if let Some(until) = self.refused(id, now) {
                    self.wake(until);
                    otherwise = Pick::Wait;
                } else if tracker.proven(first_failure, now) {
                    proven = proven.with(id);
                } else {
                    let deadline = self.ask(tracker, now, out) + tracker.timeout();
                    if now < deadline {
                        self.wake(deadline);
                        (otherwise, asking) = (Pick::Wait, true);
                        self.asking = true;
                    }
                }
            }
            match (proven.is_empty(), better_asked) {
                (true, _) => {}
                (false, true) => return Pick::Wait,
                (false, false) => return Pick::Take(self.together(proven)),
            }
        }
        otherwise
    }

    /// Those of `proven` that may be switched to at once. An uplink that was among several that could not be confirmed together is tried
    /// alone, so that one that cannot be routed to does not keep the others out.
    pub(super) fn together(&self, proven: UplinkSet) -> UplinkSet {
        let doubted = |id: &UplinkId| self.candidates[*id].doubted;
        let sure: UplinkSet = proven.iter().filter(|id| !doubted(id)).collect();
        match self.candidates.in_order(proven).next() {
            Some(first) if sure.is_empty() => UplinkSet::only(first),
            _ => sure,
        }
    }

    /// When the outstanding proof was requested; requests one now if there is none.
    fn ask(&mut self, tracker: &Tracker, now: Time, out: &mut VecDeque<Action>) -> Time {
        let asked = self.candidates[tracker.uplink()].asked;
        match asked.filter(|asked| !tracker.answered(*asked)) {
            Some(asked) => asked,
            None => {
                self.probe_now(tracker, now, out);
                now
            }
        }
    }

    /// An uplink may be dead: probes it, unless it is known to be Down or was probed just now.
    pub(super) fn suspect(&mut self, tracker: &Tracker, now: Time, out: &mut VecDeque<Action>) {
        let asked = self.candidates[tracker.uplink()].asked;
        let lately = asked.is_some_and(|asked| now.since(asked) * 2 < tracker.interval());
        let alive = tracker.present() && tracker.health() != Health::Down;
        if tracker.probed() && alive && !lately {
            self.probe_now(tracker, now, out);
        }
    }

    fn probe_now(&mut self, tracker: &Tracker, now: Time, out: &mut VecDeque<Action>) {
        let uplink = tracker.uplink();
        self.candidates[uplink].asked = Some(now);
        out.push_back(Action::ProbeNow {
            uplink,
            family: self.family,
        });
    }

    /// Until when an uplink is passed over, if it is.
    pub(super) fn refused(&self, id: UplinkId, now: Time) -> Option<Time> {
        let (until, _) = self.candidates[id].refused?;
        (now < until).then_some(until)
    }
}
