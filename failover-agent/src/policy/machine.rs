//! The machine: hands each fact to whom it concerns, then lets the elections look.

use core::time::Duration;
use std::collections::VecDeque;

use super::election::Election;
use super::health::Tracker;
use super::{Action, Family, Health, Input, Rules, Time, UplinkId};

/// What one family knows and decides.
#[derive(Debug)]
struct Side {
    /// By rank.
    trackers: Vec<Tracker>,
    election: Election,
}

/// Decides, without ever acting: feed it with [`handle`](Machine::handle), call
/// [`handle_timeout`](Machine::handle_timeout) when [`poll_timeout`](Machine::poll_timeout) says so, and carry out what
/// [`poll_action`](Machine::poll_action) returns until it returns `None`.
///
/// Time must not run backwards from call to call. Facts that wait while a timeout is due should be handed in first: results
/// that are in a queue are not missing. Facts about uplinks or targets that the rules do not have are ignored.
#[derive(Debug)]
pub struct Machine {
    sides: [Side; 2],
    actions: VecDeque<Action>,
}

impl Machine {
    /// A machine that knows nothing yet but its rules.
    pub fn new(rules: Rules) -> Self {
        let Rules { uplinks, active } = rules;
        let sides = Family::ALL.map(|family| Side {
            trackers: (uplinks.iter().enumerate())
                .map(|(id, uplink)| Tracker::new(UplinkId(id), family, uplink))
                .collect(),
            election: Election::new(family, uplinks.len(), active[family as usize]),
        });
        Machine {
            sides,
            actions: VecDeque::new(),
        }
    }

    /// Takes in a fact.
    pub fn handle(&mut self, input: Input, now: Time) {
        let out = &mut self.actions;
        match input {
            Input::Probe {
                uplink,
                family,
                round,
                sent,
                target,
                outcome,
            } => {
                if let Some(tracker) = self.sides[family as usize].trackers.get_mut(uplink.0) {
                    tracker.probe((round, sent), target, outcome, now, out);
                }
            }
            Input::Carrier { uplink, up } => {
                for side in &mut self.sides {
                    if let Some(tracker) = side.trackers.get_mut(uplink.0) {
                        tracker.set_carrier(up, now, out);
                    }
                }
            }
            Input::Usable {
                uplink,
                family,
                usable,
            } => {
                if let Some(tracker) = self.sides[family as usize].trackers.get_mut(uplink.0) {
                    tracker.set_usable(usable, now, out);
                }
            }
            Input::Switched {
                family,
                to,
                confirmed,
            } => {
                self.sides[family as usize]
                    .election
                    .switched(to, confirmed, now);
            }
        }
        self.decide(now);
    }

    /// When [`handle_timeout`](Machine::handle_timeout) must be called; it may change with every call of the others.
    pub fn poll_timeout(&self) -> Option<Time> {
        let of_side = |side: &Side| {
            let rounds = side.trackers.iter().filter_map(Tracker::deadline).min();
            rounds.into_iter().chain(side.election.deadline()).min()
        };
        self.sides.iter().filter_map(of_side).min()
    }

    /// Tells the time. Harmless when nothing is due.
    pub fn handle_timeout(&mut self, now: Time) {
        for tracker in self.sides.iter_mut().flat_map(|side| &mut side.trackers) {
            tracker.expire(now, &mut self.actions);
        }
        self.decide(now);
    }

    /// The next thing to be done, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The uplink that carries the family's new traffic, as far as confirmed (or adopted, before the first switch).
    pub fn active(&self, family: Family) -> Option<UplinkId> {
        self.sides[family as usize].election.active()
    }

    /// Health of an uplink in a family: [`Health::Unknown`] where it has no targets.
    pub fn health(&self, uplink: UplinkId, family: Family) -> Health {
        self.tracker(uplink, family)
            .map_or(Health::Unknown, Tracker::health)
    }

    /// When that health changed last; the start of time when it never did.
    pub fn since(&self, uplink: UplinkId, family: Family) -> Time {
        self.tracker(uplink, family)
            .map_or(Time::default(), Tracker::since)
    }

    /// Round-trip time of the last answer.
    pub fn last_rtt(&self, uplink: UplinkId, family: Family) -> Option<Duration> {
        self.tracker(uplink, family)?.last_rtt()
    }

    /// Part of the probes that were lost in the last 60 rounds, from 0 to 1; `None` before the first round.
    pub fn loss(&self, uplink: UplinkId, family: Family) -> Option<f64> {
        self.tracker(uplink, family)?.loss()
    }

    fn tracker(&self, uplink: UplinkId, family: Family) -> Option<&Tracker> {
        self.sides[family as usize].trackers.get(uplink.0)
    }

    /// Families that are probed elect; one that is not follows the other.
    fn decide(&mut self, now: Time) {
        let mut leader = None;
        let mut follower = None;
        for side in &mut self.sides {
            if side.trackers.iter().any(Tracker::probed) {
                side.election.decide(&side.trackers, now, &mut self.actions);
                leader = side.election.confirmed();
            } else {
                follower = Some(side);
            }
        }
        if let (Some(leader), Some(side)) = (leader, follower) {
            side.election
                .follow(leader, &side.trackers, now, &mut self.actions);
        }
    }
}
