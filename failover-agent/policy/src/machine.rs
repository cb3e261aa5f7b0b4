//! The machine: passes each fact to the trackers and elections that it concerns, then lets the elections decide.

use core::time::Duration;
use std::collections::VecDeque;

use super::cutoff::Cutoff;
use super::election::{Election, rank};
use super::health::Tracker;
use super::recovery::Recoveries;
use super::withdrawal::Withdrawal;
use super::{
    Action, Cause, Command, Family, Health, Input, MachineConfig, PerFamily, PerUplink, Refusal,
    Time, UplinkId, UplinkSet,
};

/// What the machine knows and has decided for one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FamilyState {
    pub(super) trackers: PerUplink<Tracker>,
    pub(super) election: Election,
    pub(super) cutoff: Cutoff,
    pub(super) withdrawal: Withdrawal,
}

impl FamilyState {
    /// Whether the family is probed. One that is not follows the other.
    pub(super) fn probed(&self) -> bool {
        self.trackers.values().any(Tracker::probed)
    }
}

/// Decides, without ever acting. Feed it with [`handle`](Machine::handle), call [`handle_timeout`](Machine::handle_timeout) when
/// [`poll_timeout`](Machine::poll_timeout) says so, and carry out what [`poll_action`](Machine::poll_action) returns until it returns
/// `None`.
///
/// Time must not run backwards from call to call. Hand in the facts that are waiting before a due timeout: a result that is still in a
/// queue is not missing. Facts about uplinks or targets that the configuration does not have are ignored.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    pub(super) families: PerFamily<FamilyState>,
    /// The uplink in a drill, and the end of it.
    pub(super) drill: Option<(UplinkId, Time)>,
    /// Whether an uplink that is Down loses its default routes.
    pub(super) withdraw: bool,
    pub(super) recoveries: Recoveries,
    pub(super) actions: VecDeque<Action>,
}

impl Machine {
    /// A machine that knows its configuration and no facts yet.
    pub fn new(rules: MachineConfig) -> Self {
        let MachineConfig {
            uplinks,
            active,
            drill,
            manual_override,
            withdraw,
        } = rules;
        let families = PerFamily::from_fn(|family| FamilyState {
            trackers: uplinks.map(|id, settings| Tracker::new(id, family, settings)),
            election: Election::new(family, &uplinks, active[family], manual_override[family]),
            cutoff: Cutoff::new(family, &uplinks),
            withdrawal: Withdrawal::new(family),
        });
        let mut machine = Machine {
            families,
            drill: None,
            withdraw,
            recoveries: Recoveries::new(&uplinks),
            actions: VecDeque::new(),
        };
        let drill = drill.filter(|(uplink, _)| uplinks.contains(*uplink));
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
                if let Some(tracker) = self.families[family].trackers.get_mut(uplink) {
                    tracker.probe((round, sent), target, outcome, now, out);
                }
            }
            Input::Carrier { uplink, up } => {
                for state in self.families.values_mut() {
                    if let Some(tracker) = state.trackers.get_mut(uplink) {
                        tracker.set_carrier(up, now, out);
                    }
                }
            }
            Input::Usable {
                uplink,
                family,
                usable,
            } => {
                if let Some(tracker) = self.families[family].trackers.get_mut(uplink) {
                    tracker.set_usable(usable, now, out);
                }
            }
            Input::Switched {
                family,
                to,
                confirmed,
            } => self.switched(family, to, confirmed, now),
            Input::Examined {
                uplink,
                family,
                blind,
            } => {
                if let Some(tracker) = self.families[family].trackers.get_mut(uplink) {
                    tracker.examined(blind, now, out);
                }
            }
            Input::Suspect { uplink, family } => {
                let state = &mut self.families[family];
                if let Some(tracker) = state.trackers.get(uplink) {
                    state.election.suspect(tracker, now, out);
                }
            }
            Input::Moved { uplink, family } => {
                if let Some(tracker) = self.families[family].trackers.get_mut(uplink) {
                    tracker.moved(now);
                }
            }
        }
        self.decide(now);
    }

    /// Carries out a user's command.
    ///
    /// # Errors
    ///
    /// The reason for a refusal; nothing has changed then.
    pub fn command(&mut self, command: Command, now: Time) -> Result<(), Refusal> {
        match command {
            Command::Switch(uplink) => self.override_with(uplink)?,
            Command::Auto => {
                for state in self.families.values_mut() {
                    state.election.set_override(None);
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

    /// When the caller must call [`handle_timeout`](Machine::handle_timeout). Every call of the other methods may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        let of_side = |state: &FamilyState| {
            let rounds = state.trackers.values().filter_map(Tracker::deadline).min();
            let decisions = state.election.deadline().into_iter();
            let decisions = decisions.chain(state.cutoff.deadline());
            rounds.into_iter().chain(decisions).min()
        };
        let drill = self.drill.map(|(_, until)| until);
        let others = drill.into_iter().chain(self.recoveries.deadline());
        self.families
            .values()
            .filter_map(of_side)
            .chain(others)
            .min()
    }

    /// Lets due deadlines take effect. Harmless when nothing is due.
    pub fn handle_timeout(&mut self, now: Time) {
        for tracker in self
            .families
            .values_mut()
            .flat_map(|state| state.trackers.values_mut())
        {
            tracker.expire(now, &mut self.actions);
        }
        self.decide(now);
    }

    /// The next action to carry out, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The uplinks that carry the family's new traffic, as far as confirmed (or, before the first switch, adopted).
    pub fn active(&self, family: Family) -> UplinkSet {
        self.families[family].election.active()
    }

    /// Health of an uplink in a family; [`Health::Unknown`] where the family has no targets.
    pub fn health(&self, uplink: UplinkId, family: Family) -> Health {
        self.tracker(uplink, family)
            .map_or(Health::Unknown, Tracker::health)
    }

    /// The health as measured, without the effect of a drill.
    pub fn measured(&self, uplink: UplinkId, family: Family) -> Health {
        self.tracker(uplink, family)
            .map_or(Health::Unknown, Tracker::measured)
    }

    /// When that health last changed; the start of time if it never did.
    pub fn since(&self, uplink: UplinkId, family: Family) -> Time {
        self.tracker(uplink, family)
            .map_or(Time::default(), Tracker::since)
    }

    /// The manual override in a family.
    pub fn manual_override(&self, family: Family) -> Option<UplinkId> {
        self.families[family].election.manual_override()
    }

    /// The uplink in a drill, and when the drill ends.
    pub fn drill(&self) -> Option<(UplinkId, Time)> {
        self.drill
    }

    /// The uplinks whose default routes must not stand, as last announced by an [`Action::Withdraw`].
    #[cfg(test)]
    pub(super) fn withdrawn(&self, family: Family) -> UplinkSet {
        self.families[family].withdrawal.withdrawn()
    }

    /// When an uplink that is draining will be cut. The time may have passed while the active uplink is not proven.
    pub fn draining(&self, uplink: UplinkId, family: Family) -> Option<Time> {
        self.families[family].cutoff.draining(uplink)
    }

    /// Why an uplink was cut ([`Action::Cut`]); `None` if it was not.
    pub fn cut(&self, uplink: UplinkId, family: Family) -> Option<Cause> {
        self.families[family].cutoff.cut(uplink)
    }

    /// Round-trip time of the last answer.
    pub fn last_rtt(&self, uplink: UplinkId, family: Family) -> Option<Duration> {
        self.tracker(uplink, family)?.last_rtt()
    }

    /// Share of the probes that were lost in the last 60 rounds, from 0 to 1; `None` before the first round.
    pub fn loss(&self, uplink: UplinkId, family: Family) -> Option<f64> {
        self.tracker(uplink, family)?.loss()
    }

    fn tracker(&self, uplink: UplinkId, family: Family) -> Option<&Tracker> {
        self.families[family].trackers.get(uplink)
    }

    /// Takes the answer to a switch.
    fn switched(&mut self, family: Family, to: UplinkSet, confirmed: bool, now: Time) {
        let state = &mut self.families[family];
        let Some((from, cause)) = state.election.switched(to, confirmed, now) else {
            return;
        };
        let better =
            rank(from, &state.trackers).is_some_and(|from| rank(to, &state.trackers) < Some(from));
        let cause = match cause {
            Cause::Follow => self.families[family.other()].election.cause(),
            cause => Some(cause),
        };
        let cause = match cause {
            Some(Cause::Manual) if better => Cause::Failback,
            Some(cause) => cause,
            None => Cause::Failover,
        };
        let state = &mut self.families[family];
        state.cutoff.switched(to, cause, &state.trackers, now);
    }

    /// Makes `uplink` the manual override where it is Up.
    fn override_with(&mut self, uplink: UplinkId) -> Result<(), Refusal> {
        let up = |state: &FamilyState| state.trackers[uplink].health() == Health::Up;
        if !self.families.v4.trackers.contains(uplink) {
            return Err(Refusal::Unknown);
        }
        if !self.families.values().any(up) {
            let mut trackers = self.families.values().map(|state| &state.trackers[uplink]);
            let health = trackers
                .find(|tracker| tracker.probed())
                .map_or(Health::Unknown, Tracker::health);
            let drill = self.drill.is_some_and(|(drilled, _)| drilled == uplink);
            return Err(Refusal::NotUp { health, drill });
        }
        for state in self.families.values_mut() {
            state.election.set_override(up(state).then_some(uplink));
        }
        Ok(())
    }

    /// Lets each family decide: one that is probed elects, one that is not follows the other. A family's cuts are issued before the next
    /// family switches.
    pub(super) fn decide(&mut self, now: Time) {
        self.check_drill_end(now);
        let mut leader = UplinkSet::NONE;
        let mut follower = None;
        for family in Family::ALL {
            let idle = self.idle(family);
            let state = &mut self.families[family];
            if state.probed() {
                state.withdrawal.give_back(idle, &mut self.actions);
                state
                    .election
                    .decide(&state.trackers, now, &mut self.actions);
                leader = state.election.confirmed();
                self.cut_off(family, now);
            } else {
                follower = Some(family);
            }
        }
        if let Some(family) = follower
            && !leader.is_empty()
        {
            let idle = self.idle(family);
            let state = &mut self.families[family];
            state.withdrawal.give_back(idle, &mut self.actions);
            state
                .election
                .follow(leader, &state.trackers, now, &mut self.actions);
            self.cut_off(family, now);
        }
        self.attend(now);
    }

    /// The uplinks whose default routes must not stand, if withdrawal is configured: Down and not in use, while another uplink is active.
    fn idle(&self, family: Family) -> UplinkSet {
        let state = &self.families[family];
        let active = state.election.confirmed();
        if !self.withdraw || active.is_empty() {
            return UplinkSet::NONE;
        }
        // A family that follows must be able to use the other family's uplink, although that is Down.
        let other = &self.families[family.other()];
        let (judge, followed) = match state.probed() {
            true => (state, UplinkSet::NONE),
            false => (other, other.election.confirmed()),
        };
        let down = |tracker: &&Tracker| tracker.health() == Health::Down;
        let down = judge.trackers.values().filter(down).map(Tracker::uplink);
        let coming = state.election.in_flight().unwrap_or_default();
        let kept = active.union(coming).union(followed);
        down.collect::<UplinkSet>().minus(kept)
    }

    /// Issues the cuts that are due. None is while a switch waits for its confirmation: the switch may lead to the uplink to be cut.
    fn cut_off(&mut self, family: Family, now: Time) {
        let (state, others) = self.families.split_mut(family);
        let judges = if state.probed() {
            &state.trackers
        } else {
            &others.trackers
        };
        let good = |active: UplinkId| judges[active].good() && state.trackers[active].present();
        let in_flight = state.election.in_flight().is_some();
        let proven = !in_flight && state.election.confirmed().iter().any(good);
        state.cutoff.decide(proven, judges, now, &mut self.actions);
    }

    /// What is less urgent, after everything that a failover needs.
    fn attend(&mut self, now: Time) {
        for family in Family::ALL {
            let idle = self.idle(family);
            let state = &mut self.families[family];
            state.withdrawal.withdraw(idle, &mut self.actions);
            for tracker in state.trackers.values_mut() {
                if tracker.take_examination() {
                    let uplink = tracker.uplink();
                    self.actions.push_back(Action::Examine { uplink, family });
                }
            }
        }
        let busy =
            |state: &FamilyState| state.election.in_flight().is_some() || state.election.asking;
        let busy = self.families.values().any(busy);
        let PerFamily { v4, v6 } = &self.families;
        let dead = v4
            .trackers
            .values()
            .zip(v6.trackers.values())
            .filter_map(|(v4, v6)| {
                let down = [v4.found_down(), v6.found_down()];
                let dead = down.contains(&Some(true)) && !down.contains(&Some(false));
                let grace = v4.recover_interval().filter(|_| dead && !busy)?;
                Some((v4.uplink(), grace))
            });
        self.recoveries.decide(dead, now, &mut self.actions);
    }
}
