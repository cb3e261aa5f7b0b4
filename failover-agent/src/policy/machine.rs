//! The machine: hands each fact to whom it concerns, then lets the elections look.

use core::time::Duration;
use std::collections::VecDeque;

use super::cutoff::Cutoff;
use super::election::Election;
use super::health::Tracker;
use super::{Action, Cause, Command, Family, Health, Input, Note, Refusal, Rules, Time, UplinkId};

/// What one family knows and decides.
#[derive(Debug)]
struct Side {
    /// By rank.
    trackers: Vec<Tracker>,
    election: Election,
    cutoff: Cutoff,
}

impl Side {
    /// A family that is not probed follows the other one.
    fn probed(&self) -> bool {
        self.trackers.iter().any(Tracker::probed)
    }
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
    /// The uplink in a drill, and the end of it.
    drill: Option<(UplinkId, Time)>,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A machine that knows nothing yet but its rules.
    pub fn new(rules: Rules) -> Self {
        let Rules {
            uplinks,
            active,
            drill,
        } = rules;
        let sides = Family::ALL.map(|family| Side {
            trackers: (uplinks.iter().enumerate())
                .map(|(id, uplink)| Tracker::new(UplinkId(id), family, uplink))
                .collect(),
            election: Election::new(family, uplinks.len(), active[family as usize]),
            cutoff: Cutoff::new(family, uplinks.len()),
        });
        let mut machine = Machine {
            sides,
            drill: None,
            actions: VecDeque::new(),
        };
        let drill = drill.filter(|(uplink, _)| uplink.0 < uplinks.len());
        machine.set_drill(drill, None, Time::default());
        machine
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
            } => self.switched(family, to, confirmed, now),
        }
        self.decide(now);
    }

    /// Takes an order.
    ///
    /// # Errors
    ///
    /// Why it is not carried out; nothing has changed then.
    pub fn command(&mut self, command: Command, now: Time) -> Result<(), Refusal> {
        match command {
            Command::Switch(uplink) => self.pin(uplink)?,
            Command::Auto => {
                for side in &mut self.sides {
                    side.election.set_pin(None);
                }
                self.set_drill(None, None, now);
            }
            Command::Drill { uplink, until } => {
                let drill = (until > now).then_some((uplink, until));
                self.check_drill(uplink, drill.is_some(), now)?;
                self.set_drill(drill, None, now);
            }
        }
        self.decide(now);
        Ok(())
    }

    /// When [`handle_timeout`](Machine::handle_timeout) must be called; it may change with every call of the others.
    pub fn poll_timeout(&self) -> Option<Time> {
        let of_side = |side: &Side| {
            let rounds = side.trackers.iter().filter_map(Tracker::deadline).min();
            let decisions = side.election.deadline().into_iter();
            let decisions = decisions.chain(side.cutoff.deadline());
            rounds.into_iter().chain(decisions).min()
        };
        let drill = self.drill.map(|(_, until)| until);
        self.sides.iter().filter_map(of_side).chain(drill).min()
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

    /// The uplink that was chosen by hand in a family.
    pub fn pinned(&self, family: Family) -> Option<UplinkId> {
        self.sides[family as usize].election.pin()
    }

    /// The uplink in a drill, and the end of it.
    pub fn drill(&self) -> Option<(UplinkId, Time)> {
        self.drill
    }

    /// When an uplink will be cut on which old connections may still finish. May be past while the active uplink is not proven.
    pub fn draining(&self, uplink: UplinkId, family: Family) -> Option<Time> {
        self.sides[family as usize].cutoff.draining(uplink)
    }

    /// Why an uplink was cut ([`Action::Cut`]), if it is.
    pub fn cut(&self, uplink: UplinkId, family: Family) -> Option<Cause> {
        self.sides[family as usize].cutoff.cut(uplink)
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

    /// Takes the answer to a switch.
    fn switched(&mut self, family: Family, to: UplinkId, confirmed: bool, now: Time) {
        let side = &mut self.sides[family as usize];
        let Some((from, cause)) = side.election.switched(to, confirmed, now) else {
            return;
        };
        let better = from.is_some_and(|from| to < from);
        let cause = match cause {
            Cause::Follow => self.sides[1 - family as usize].election.cause(),
            cause => Some(cause),
        };
        let cause = match cause {
            Some(Cause::Manual) if better => Cause::Failback,
            Some(cause) => cause,
            None => Cause::Failover,
        };
        let side = &mut self.sides[family as usize];
        side.cutoff.switched(to, cause, &side.trackers, now);
    }

    /// Chooses `uplink` by hand where it is Up.
    fn pin(&mut self, uplink: UplinkId) -> Result<(), Refusal> {
        let up = |side: &Side| side.trackers[uplink.0].health() == Health::Up;
        if uplink.0 >= self.sides[0].trackers.len() {
            return Err(Refusal::Unknown);
        }
        if !self.sides.iter().any(up) {
            let mut trackers = self.sides.iter().map(|side| &side.trackers[uplink.0]);
            let health = trackers
                .find(|tracker| tracker.probed())
                .map_or(Health::Unknown, Tracker::health);
            let drill = self.drill.is_some_and(|(drilled, _)| drilled == uplink);
            return Err(Refusal::NotUp { health, drill });
        }
        for side in &mut self.sides {
            let pin = up(side).then_some(uplink);
            side.election.set_pin(pin);
        }
        Ok(())
    }

    /// Whether every family could do without `uplink`, if that is what is wanted.
    fn check_drill(&self, uplink: UplinkId, begin: bool, now: Time) -> Result<(), Refusal> {
        if uplink.0 >= self.sides[0].trackers.len() {
            return Err(Refusal::Unknown);
        }
        for (family, side) in Family::ALL.into_iter().zip(&self.sides) {
            let needed = side.trackers[uplink.0].measured() == Health::Up
                || side.election.active() == Some(uplink);
            let other =
                |(id, tracker): (usize, &Tracker)| uplink != UplinkId(id) && tracker.reliable(now);
            if begin && side.probed() && needed && !side.trackers.iter().enumerate().any(other) {
                return Err(Refusal::NoOther { family });
            }
        }
        Ok(())
    }

    /// Begins, replaces or ends a drill.
    fn set_drill(&mut self, drill: Option<(UplinkId, Time)>, alone: Option<Family>, now: Time) {
        let old = core::mem::replace(&mut self.drill, drill);
        let (old, new) = (old.map(|(id, _)| id), drill.map(|(id, _)| id));
        if old == new {
            return;
        }
        let sides = &mut self.sides;
        for (uplink, drilled) in [(old, false), (new, true)] {
            let Some(uplink) = uplink else { continue };
            if !drilled {
                let note = Note::DrillEnded { uplink, alone };
                self.actions.push_back(Action::Note(note));
            }
            for side in sides.iter_mut() {
                side.trackers[uplink.0].set_drilled(drilled, now, &mut self.actions);
            }
        }
    }

    /// A drill must end by its time, and must not be what keeps a family from its last uplink.
    fn check_drill_end(&mut self, now: Time) {
        let Some((uplink, until)) = self.drill else {
            return;
        };
        let alone = |(family, side): (Family, &Side)| {
            let other = |(id, tracker): (usize, &Tracker)| {
                uplink != UplinkId(id) && (tracker.health() == Health::Up || tracker.undecided())
            };
            let last = side.trackers[uplink.0].measured() == Health::Up
                && !side.trackers.iter().enumerate().any(other);
            last.then_some(family)
        };
        let alone = Family::ALL.into_iter().zip(&self.sides).find_map(alone);
        if until <= now {
            self.set_drill(None, None, now);
        } else if alone.is_some() {
            self.set_drill(None, alone, now);
        }
    }

    /// Families that are probed elect; one that is not follows the other. What one family leaves is cut before the next one
    /// switches.
    fn decide(&mut self, now: Time) {
        self.check_drill_end(now);
        let mut leader = None;
        let mut follower = None;
        for family in Family::ALL {
            let side = &mut self.sides[family as usize];
            if side.probed() {
                side.election.decide(&side.trackers, now, &mut self.actions);
                leader = side.election.confirmed();
                self.cut_off(family, now);
            } else {
                follower = Some(family);
            }
        }
        if let (Some(leader), Some(family)) = (leader, follower) {
            let side = &mut self.sides[family as usize];
            side.election
                .follow(leader, &side.trackers, now, &mut self.actions);
            self.cut_off(family, now);
        }
    }

    /// Orders the cuts that are due. While a switch waits for its confirmation none is: it may lead to what would be cut.
    fn cut_off(&mut self, family: Family, now: Time) {
        let [one, other] = &mut self.sides;
        let (side, others) = match family {
            Family::V4 => (one, other),
            Family::V6 => (other, one),
        };
        let judges = if side.probed() {
            &side.trackers
        } else {
            &others.trackers
        };
        let good = |active: UplinkId| judges[active.0].good() && side.trackers[active.0].present();
        let proven = !side.election.in_flight() && side.election.confirmed().is_some_and(good);
        side.cutoff.decide(proven, judges, now, &mut self.actions);
    }
}
