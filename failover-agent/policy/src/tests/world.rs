//! A world for the machine to live in: uplinks with link conditions, probes in flight, and a clock. It remembers what the machine did and what was
//! true at that moment.

mod condition;
mod journal;
mod ledger;
mod outside;

use std::collections::BTreeMap;

use self::ledger::Left;
pub(super) use self::{
    condition::LinkCondition,
    journal::{Arrival, Switch},
};
use super::reference::{Counted, Reference, Verdict};

use super::*;

#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Condition(UplinkId, Family, LinkCondition),
    Carrier(UplinkId, bool),
    Usable(UplinkId, Family, bool),
    /// Whether, from now on, probes of an uplink fail for a reason on this host that an examination can find.
    Reason(UplinkId, Family, bool),
    /// The probes of an uplink take another path; whether their rounds are renumbered.
    Moved(UplinkId, Family, bool),
    Suspect(UplinkId, Family),
    /// Whether switches are confirmed from now on.
    Confirm(bool),
    /// An answer that was not requested.
    Stray(Family, UplinkId, bool),
    /// A manual override of an uplink, or the end of it.
    Override(Option<UplinkId>),
    /// A drill for some milliseconds.
    Drill(UplinkId, u64),
    /// The agent is paused for some milliseconds: nothing is sent, and what happens meanwhile waits.
    Pause(u64),
}

#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) rules: MachineConfig,
    /// For delays and for what the condition leaves open.
    pub(super) seed: u64,
    /// Changes, and the milliseconds before each.
    pub(super) changes: Vec<(u64, Change)>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Change(Change),
    Send(UplinkId, Family, bool),
    Input(Input),
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) rules: MachineConfig,
    pub(super) references: PerFamily<Vec<Reference>>,
    pub(super) actions: Vec<(u64, Action)>,
    pub(super) switches: Vec<Switch>,
    condition: PerFamily<Vec<LinkCondition>>,
    confirm: bool,
    now: u64,
    /// The end of the last pause.
    awake: u64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    random: u64,
    /// Times of the last request for a proof.
    pub(super) asked: PerFamily<Vec<Option<u64>>>,
    /// Times of the last refused switch.
    pub(super) refused: PerFamily<Vec<Option<u64>>>,
    pub(super) overrides: PerFamily<Option<UplinkId>>,
    pub(super) drill: Option<(UplinkId, Time)>,
    left: PerFamily<Vec<Option<Left>>>,
    pub(super) withdrawn: PerFamily<UplinkSet>,
    /// Times of the last recovery.
    pub(super) recovered: Vec<Option<u64>>,
    reasons: PerFamily<Vec<bool>>,
}

/// The longest that a destination is passed over, in milliseconds.
pub(super) const LONGEST_BACKOFF: u64 = 30_000;

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

impl World {
    fn new(script: &Script) -> Self {
        let rules = script.rules.clone();
        let uplinks = rules.uplinks.len();
        let mut world = World {
            machine: Machine::new(rules.clone()),
            references: PerFamily::from_fn(|family| {
                rules
                    .uplinks
                    .values()
                    .map(|uplink| Reference::new(uplink, family))
                    .collect()
            }),
            rules,
            actions: Vec::new(),
            switches: Vec::new(),
            condition: PerFamily::both(vec![LinkCondition::Good; uplinks]),
            confirm: true,
            now: 0,
            awake: 0,
            queue: BTreeMap::new(),
            order: 0,
            random: script.seed,
            asked: PerFamily::both(vec![None; uplinks]),
            refused: PerFamily::both(vec![None; uplinks]),
            overrides: PerFamily::both(None),
            drill: script.rules.drill,
            left: PerFamily::both(vec![None; uplinks]),
            withdrawn: PerFamily::both(UplinkSet::NONE),
            recovered: (script.rules.uplinks.values())
                .map(|uplink| {
                    (!uplink.carrier
                        || uplink
                            .earlier
                            .values()
                            .any(|earlier| *earlier == Health::Down))
                    .then_some(0)
                })
                .collect(),
            reasons: PerFamily::both(vec![false; uplinks]),
        };
        for (id, uplink) in script.rules.uplinks.iter() {
            for family in Family::ALL {
                if uplink.targets[family] > 0 {
                    let offset = 1 + world.random(ms(uplink.interval));
                    world.schedule(offset, Event::Send(id, family, true));
                }
            }
        }
        world
    }

    /// Plays the script, then ten more seconds. `check` inspects the world after every step.
    pub(super) fn play(script: &Script, mut check: impl FnMut(&World)) -> World {
        let mut world = World::new(script);
        let mut end = 0;
        for (wait, change) in &script.changes {
            end += wait;
            world.schedule(end, Event::Change(*change));
        }
        while world.step(end + 10_000) {
            check(&world);
        }
        world
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Facts come before the timer when both are due, except after a pause: then the timer fires before what waits.
    fn step(&mut self, end: u64) -> bool {
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        let paused = self.awake > self.now;
        let event = event.map(|at| at.max(self.awake));
        let timer = self
            .machine
            .poll_timeout()
            .map(|due| ms(due.0).max(self.now).max(self.awake));
        let Some(next) = event
            .into_iter()
            .chain(timer)
            .min()
            .filter(|next| *next <= end)
        else {
            return false;
        };
        self.now = next;
        let timer_first = paused && timer == Some(next);
        if event == Some(next) && !timer_first {
            let (_, event) = self.queue.pop_first().unwrap();
            self.happen(event);
        } else {
            for reference in self.references.values_mut().flatten() {
                reference.timeout(next);
            }
            self.machine.handle_timeout(at(next));
            let due = self.machine.poll_timeout();
            assert!(
                due.is_none_or(|due| due > at(next)),
                "a timeout that was handled is due no more"
            );
        }
        for family in Family::ALL {
            let down = |pin: &mut UplinkId| self.health(family, *pin) == Health::Down;
            let mut pin = self.overrides[family];
            pin.take_if(down);
            self.overrides[family] = pin;
        }
        while let Some(action) = self.machine.poll_action() {
            self.act(&action);
            self.actions.push((next, action));
        }
        true
    }

    /// The health that an uplink counts as.
    pub(super) fn health(&self, family: Family, uplink: UplinkId) -> Health {
        let reference = &self.references[family][uplink.0];
        match self.drill {
            Some((drilled, _)) if drilled == uplink && reference.probed() => Health::Down,
            _ => reference.health,
        }
    }

    fn happen(&mut self, event: Event) {
        let input = match event {
            Event::Send(uplink, family, regular) => return self.send(uplink, family, regular),
            Event::Input(input) => input,
            Event::Change(Change::Condition(uplink, family, condition)) => {
                self.condition[family][uplink.0] = condition;
                return;
            }
            Event::Change(Change::Confirm(confirm)) => {
                self.confirm = confirm;
                return;
            }
            Event::Change(Change::Pause(time)) => {
                // After a pause, what waits is read before the next event.
                if self.now > self.awake {
                    self.awake = self.now + time;
                }
                return;
            }
            Event::Change(Change::Override(wanted)) => return self.command_switch(wanted),
            Event::Change(Change::Drill(uplink, time)) => return self.command_drill(uplink, time),
            Event::Change(Change::Reason(uplink, family, reason)) => {
                self.reasons[family][uplink.0] = reason;
                return;
            }
            Event::Change(Change::Moved(uplink, family, renumber)) => {
                // What is sent in the same instant cannot be distinguished.
                if self.references[family][uplink.0].sends(self.now) {
                    return;
                }
                self.references[family][uplink.0].moved(renumber, self.now);
                Input::Moved { uplink, family }
            }
            Event::Change(Change::Suspect(uplink, family)) => Input::Suspect { uplink, family },
            Event::Change(Change::Carrier(uplink, up)) => Input::Carrier { uplink, up },
            Event::Change(Change::Usable(uplink, family, usable)) => Input::Usable {
                uplink,
                family,
                usable,
            },
            Event::Change(Change::Stray(family, to, confirmed)) => {
                if self.in_flight(family) {
                    return;
                }
                Input::Switched {
                    family,
                    to: only(to),
                    confirmed,
                }
            }
        };
        match input {
            Input::Probe {
                uplink,
                family,
                round,
                sent,
                outcome,
                ..
            } => {
                let reference = &mut self.references[family][uplink.0];
                reference.result(round, ms(sent.0), outcome, self.now);
            }
            Input::Examined {
                uplink,
                family,
                blind,
            } => {
                self.references[family][uplink.0].examined(blind, self.now);
            }
            Input::Moved { .. } | Input::Suspect { .. } => {}
            Input::Carrier { uplink, up } => {
                for references in self.references.values_mut() {
                    let usable = references[uplink.0].usable;
                    references[uplink.0].set(up, usable, self.now);
                }
            }
            Input::Usable {
                uplink,
                family,
                usable,
            } => {
                let reference = &mut self.references[family][uplink.0];
                reference.set(reference.carrier, usable, self.now);
            }
            Input::Switched {
                family,
                to,
                confirmed,
            } => {
                let in_flight = self
                    .switches
                    .iter_mut()
                    .rfind(|switch| switch.family == family);
                if let Some(switch) = in_flight.filter(|switch| switch.confirmed.is_none()) {
                    switch.confirmed = Some(confirmed);
                    let (from, cause) = (switch.from, switch.cause);
                    if confirmed {
                        self.leave(family, from, to, cause);
                    }
                    let refused = match to.minus(from) {
                        UplinkSet::NONE => to,
                        _ if confirmed => to,
                        new => new,
                    };
                    for id in refused.iter() {
                        self.refused[family][id.0] = (!confirmed).then_some(self.now);
                    }
                }
            }
        }
        self.machine.handle(input, at(self.now));
    }

    pub(super) fn in_flight(&self, family: Family) -> bool {
        let last = self.switches.iter().rfind(|switch| switch.family == family);
        last.is_some_and(|switch| switch.confirmed.is_none())
    }

    /// Whether a switch was ever confirmed.
    pub(super) fn started(&self, family: Family) -> bool {
        self.switches
            .iter()
            .any(|switch| switch.family == family && switch.confirmed == Some(true))
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Switch(crate::Switch {
                family,
                from,
                to,
                cause,
                ..
            }) => {
                assert!(!self.in_flight(family), "one switch at a time");
                assert_eq!(from, self.machine.active(family));
                self.remember(family, from, to, cause);
                let (wait, confirmed) = (self.random(50), self.confirm);
                self.schedule(
                    wait,
                    Event::Input(Input::Switched {
                        family,
                        to,
                        confirmed,
                    }),
                );
            }
            Action::ProbeNow { uplink, family } => {
                self.asked[family][uplink.0] = Some(self.now);
                self.schedule(0, Event::Send(uplink, family, false));
            }
            Action::Cut {
                family,
                uplink,
                cause,
            } => self.cut(family, uplink, cause),
            Action::Withdraw { family, uplinks } => self.withdraw(family, uplinks),
            Action::Examine { uplink, family } => {
                let reference = &mut self.references[family][uplink.0];
                assert!(
                    core::mem::take(&mut reference.examine),
                    "no reason to examine"
                );
                let (wait, blind) = (self.random(300), self.reasons[family][uplink.0]);
                let answer = Input::Examined {
                    uplink,
                    family,
                    blind,
                };
                self.schedule(wait, Event::Input(answer));
            }
            Action::Recover { uplink } => self.recover(uplink),
            Action::Report(crate::Event::DrillEnded { uplink, alone }) => {
                self.drill_ended(uplink, alone);
            }
            Action::Report(_) => {}
        }
    }

    fn schedule(&mut self, wait: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + wait, self.order), event);
    }

    /// splitmix64: the same seed, the same world.
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % below
    }
}
