//! The machine's behaviour as plain values: facts in, actions out, and a clock that only the tests move.

mod commands;
mod cutting;
mod examining;
mod groups;
mod health;
mod properties;
mod purity;
mod recovering;
mod reference;
mod reload;
mod scripts;
mod startup;
mod switching;
mod withdrawing;
mod world;

use core::time::Duration;

use super::{
    Action, Cause, Command, Event, Family, Health, Input, Machine, MachineConfig, Outcome,
    PerFamily, PerUplink, Refusal, Switch, TargetId, Time, UplinkId, UplinkSet, UplinkSettings,
};

const A: UplinkId = UplinkId(0);
const B: UplinkId = UplinkId(1);
const C: UplinkId = UplinkId(2);
const D: UplinkId = UplinkId(3);

const REPLY: Outcome = Outcome::Reply {
    rtt: Some(Duration::from_millis(20)),
};

fn at(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

/// One target in IPv4, none in IPv6, a round a second, fall 3, rise 4, hold 60 s, drain 30 s.
fn uplink() -> UplinkSettings {
    UplinkSettings {
        rank: 0,
        fall: 3,
        rise: 4,
        quorum: 1,
        hold: Duration::from_secs(60),
        drain: Duration::from_secs(30),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        targets: PerFamily::new(1, 0),
        usable: PerFamily::new(true, false),
        carrier: true,
        earlier: PerFamily::both(Health::Unknown),
        recover_interval: None,
    }
}

fn only(uplink: UplinkId) -> UplinkSet {
    UplinkSet::only(uplink)
}

fn set(uplinks: &[UplinkId]) -> UplinkSet {
    uplinks.iter().copied().collect()
}

fn nowhere(active: UplinkSet) -> Event {
    Event::NowhereToGo {
        family: Family::V4,
        active,
    }
}

fn is_nowhere(note: &Event) -> bool {
    matches!(note, Event::NowhereToGo { .. })
}

/// Every uplink is a group of its own.
fn rules(uplinks: u32) -> MachineConfig {
    ranked(&(0..uplinks).collect::<Vec<_>>())
}

/// Uplinks A, B, C and so on, with these ranks.
fn ranked(ranks: &[u32]) -> MachineConfig {
    let ids = (0..).map(UplinkId);
    let pairs: Vec<_> = ids.zip(ranks.iter().copied()).collect();
    these(&pairs)
}

/// These uplinks, with these ranks, in order of preference.
fn these(uplinks: &[(UplinkId, u32)]) -> MachineConfig {
    let of_rank = |(id, rank): &(UplinkId, u32)| {
        let rank = *rank;
        (*id, UplinkSettings { rank, ..uplink() })
    };
    MachineConfig {
        uplinks: uplinks.iter().map(of_rank).collect(),
        active: PerFamily::both(UplinkSet::NONE),
        drill: None,
        manual_override: PerFamily::both(None),
        withdraw: false,
    }
}

/// Feeds rounds of IPv4 to a machine, one at a time.
struct Play {
    machine: Machine,
    now: u64,
    /// Number of the next round, by uplink.
    next: PerUplink<u64>,
    targets: PerUplink<u32>,
    /// Whether the harness answers at once that nothing explains a failure.
    answers: bool,
}

impl Play {
    fn new(rules: MachineConfig) -> Self {
        Play {
            next: rules.uplinks.map(|_, _| 0),
            targets: rules.uplinks.map(|_, uplink| uplink.targets.v4),
            machine: Machine::new(rules),
            now: 0,
            answers: true,
        }
    }

    /// Start-up is over: all Up, the first group confirmed as active.
    fn started(rules: MachineConfig) -> Self {
        let all_good = "+".repeat(rules.uplinks.len());
        let first = rules.uplinks[A].rank;
        let group = rules
            .uplinks
            .iter()
            .take_while(|(_, uplink)| uplink.rank == first);
        let group: UplinkSet = group.map(|(id, _)| id).collect();
        let mut play = Play::new(rules);
        play.tick(&all_good);
        assert_eq!(play.moves(), [(UplinkSet::NONE, group, Cause::Startup)]);
        play.confirm_all(group);
        play.actions();
        play
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(input, at(self.now));
        if let Input::Probe { .. } = input {
            self.answer_examinations(at(self.now));
        }
    }

    fn answer_examinations(&mut self, now: Time) {
        for uplink in self.targets.ids() {
            for family in Family::ALL.into_iter().filter(|_| self.answers) {
                let blind = false;
                let answer = Input::Examined {
                    uplink,
                    family,
                    blind,
                };
                self.machine.handle(answer, now);
            }
        }
    }

    fn probe(
        &mut self,
        uplink: UplinkId,
        (round, sent): (u64, u64),
        target: usize,
        outcome: Outcome,
    ) {
        let (family, target, sent) = (Family::V4, TargetId(target), at(sent));
        self.input(Input::Probe {
            uplink,
            family,
            round,
            sent,
            target,
            outcome,
        });
    }

    /// A whole round that is sent and answered now.
    fn round(&mut self, uplink: UplinkId, outcome: Outcome) {
        let round = (self.next[uplink], self.now);
        self.next[uplink] += 1;
        for target in 0..self.targets[uplink] as usize {
            self.probe(uplink, round, target, outcome);
        }
    }

    /// One round of each uplink in the order of rank (`+` good, `-` bad, `o` blind, ` ` none), then a second passes.
    fn tick(&mut self, rounds: &str) {
        let uplinks: Vec<UplinkId> = self.targets.ids().collect();
        for (round, uplink) in rounds.chars().zip(uplinks) {
            match round {
                '+' => self.round(uplink, REPLY),
                '-' => self.round(uplink, Outcome::Lost),
                'o' => self.round(uplink, Outcome::Blind),
                _ => {}
            }
        }
        self.pass(1000);
    }

    fn ticks(&mut self, count: usize, rounds: &str) {
        for _ in 0..count {
            self.tick(rounds);
        }
    }

    /// Lets time pass; wakes the machine whenever it asks for it.
    fn pass(&mut self, ms: u64) {
        let end = at(self.now + ms);
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= end) {
            self.machine.handle_timeout(due);
            self.answer_examinations(due);
            assert!(
                self.machine.poll_timeout().is_none_or(|next| next > due),
                "a timeout that was handled is due no more"
            );
        }
        self.now += ms;
    }

    fn answer(&mut self, to: UplinkSet, confirmed: bool) {
        self.input(Input::Switched {
            family: Family::V4,
            to,
            confirmed,
        });
    }

    fn switched(&mut self, to: UplinkId, confirmed: bool) {
        self.answer(only(to), confirmed);
    }

    fn confirm_all(&mut self, to: UplinkSet) {
        self.answer(to, true);
        assert_eq!(self.machine.active(Family::V4), to);
    }

    fn confirm(&mut self, to: UplinkId) {
        self.confirm_all(only(to));
    }

    fn actions(&mut self) -> Vec<Action> {
        core::iter::from_fn(|| self.machine.poll_action()).collect()
    }

    fn notes(&mut self) -> Vec<Event> {
        let note = |action| match action {
            Action::Report(note) => Some(note),
            _ => None,
        };
        self.actions().into_iter().filter_map(note).collect()
    }

    /// Switches of uplinks that are alone in their group.
    fn switches(&mut self) -> Vec<(Option<UplinkId>, UplinkId, Cause)> {
        let alone = |(from, to, cause): (UplinkSet, UplinkSet, Cause)| {
            assert!(from.len() <= 1 && to.len() == 1, "{from:?} -> {to:?}");
            (from.first(), to.first().unwrap(), cause)
        };
        self.moves().into_iter().map(alone).collect()
    }

    fn moves(&mut self) -> Vec<(UplinkSet, UplinkSet, Cause)> {
        let switch = |action| match action {
            Action::Switch(Switch {
                from, to, cause, ..
            }) => Some((from, to, cause)),
            _ => None,
        };
        self.actions().into_iter().filter_map(switch).collect()
    }

    fn cuts(&mut self) -> Vec<(UplinkId, Cause)> {
        let cut = |action| match action {
            Action::Cut {
                family: Family::V4,
                uplink,
                cause,
            } => Some((uplink, cause)),
            _ => None,
        };
        self.actions().into_iter().filter_map(cut).collect()
    }

    fn command(&mut self, command: Command) -> Result<(), Refusal> {
        self.machine.command(command, at(self.now))
    }

    fn health(&self, uplink: UplinkId) -> Health {
        self.machine.health(uplink, Family::V4)
    }
}
