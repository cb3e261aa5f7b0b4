//! The machine's rules as plain values: facts in, actions out, a clock that only the tests move.

mod cutting;
mod health;
mod orders;
mod properties;
mod purity;
mod reference;
mod startup;
mod switching;
mod world;

use core::time::Duration;

use super::{
    Action, Cause, Command, Family, Health, Input, Machine, Note, Outcome, Refusal, Rules,
    TargetId, Time, UplinkId, UplinkRules,
};

const A: UplinkId = UplinkId(0);
const B: UplinkId = UplinkId(1);
const C: UplinkId = UplinkId(2);

const REPLY: Outcome = Outcome::Reply {
    rtt: Duration::from_millis(20),
};

fn at(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

/// One target in IPv4, none in IPv6, a round a second, fall 3, rise 4, hold 60 s, drain 30 s.
fn uplink() -> UplinkRules {
    UplinkRules {
        fall: 3,
        rise: 4,
        quorum: 1,
        hold: Duration::from_secs(60),
        drain: Duration::from_secs(30),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        targets: [1, 0],
        usable: [true, false],
    }
}

fn nowhere(active: Option<UplinkId>) -> Note {
    Note::NowhereToGo {
        family: Family::V4,
        active,
    }
}

fn is_nowhere(note: &Note) -> bool {
    matches!(note, Note::NowhereToGo { .. })
}

fn rules(uplinks: usize) -> Rules {
    Rules {
        uplinks: vec![uplink(); uplinks],
        active: [None; 2],
        drill: None,
    }
}

/// Plays rounds of IPv4 to a machine, by hand.
struct Play {
    machine: Machine,
    now: u64,
    /// Number of the next round, by uplink.
    next: Vec<u64>,
    targets: Vec<u32>,
}

impl Play {
    fn new(rules: Rules) -> Self {
        Play {
            next: vec![0; rules.uplinks.len()],
            targets: rules
                .uplinks
                .iter()
                .map(|uplink| uplink.targets[0])
                .collect(),
            machine: Machine::new(rules),
            now: 0,
        }
    }

    /// Start-up is over: all Up, A confirmed as active.
    fn started(rules: Rules) -> Self {
        let all_good = "+".repeat(rules.uplinks.len());
        let mut play = Play::new(rules);
        play.tick(&all_good);
        assert_eq!(play.switches(), [(None, A, Cause::Startup)]);
        play.confirm(A);
        play.actions();
        play
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(input, at(self.now));
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
        let round = (self.next[uplink.0], self.now);
        self.next[uplink.0] += 1;
        for target in 0..self.targets[uplink.0] as usize {
            self.probe(uplink, round, target, outcome);
        }
    }

    /// One round of each uplink in the order of rank (`+` good, `-` bad, `o` blind, ` ` none), then a second passes.
    fn tick(&mut self, rounds: &str) {
        for (id, round) in rounds.chars().enumerate() {
            match round {
                '+' => self.round(UplinkId(id), REPLY),
                '-' => self.round(UplinkId(id), Outcome::Lost),
                'o' => self.round(UplinkId(id), Outcome::Blind),
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

    /// Time passes; the machine is woken whenever it wants to be.
    fn pass(&mut self, ms: u64) {
        let end = at(self.now + ms);
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= end) {
            self.machine.handle_timeout(due);
            assert!(
                self.machine.poll_timeout().is_none_or(|next| next > due),
                "a timeout that was handled is due no more"
            );
        }
        self.now += ms;
    }

    fn switched(&mut self, to: UplinkId, confirmed: bool) {
        self.input(Input::Switched {
            family: Family::V4,
            to,
            confirmed,
        });
    }

    fn confirm(&mut self, to: UplinkId) {
        self.switched(to, true);
        assert_eq!(self.machine.active(Family::V4), Some(to));
    }

    fn actions(&mut self) -> Vec<Action> {
        core::iter::from_fn(|| self.machine.poll_action()).collect()
    }

    fn notes(&mut self) -> Vec<Note> {
        let note = |action| match action {
            Action::Note(note) => Some(note),
            _ => None,
        };
        self.actions().into_iter().filter_map(note).collect()
    }

    fn switches(&mut self) -> Vec<(Option<UplinkId>, UplinkId, Cause)> {
        let switch = |action| match action {
            Action::Switch {
                from, to, cause, ..
            } => Some((from, to, cause)),
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
