//! What the properties are judged by: the rounds of one uplink in one family, counted a second time and as simply as possible.

use super::world::ms;
use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    Blind,
}

#[derive(Clone, Debug)]
struct Round {
    number: u64,
    sent: u64,
    /// When the round was sent, as far as the machine can know: it learns of a round by its results and by those of later ones.
    heard: Option<u64>,
    outcomes: Vec<Outcome>,
    /// Until when missing results may still be handed in, set once it was noticed that they are overdue.
    grace: Option<u64>,
    expired: bool,
}

/// One counted round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) verdict: Verdict,
    pub(super) sent: u64,
    pub(super) at: u64,
    /// How often the probes had moved by then.
    moves: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Reference {
    rules: UplinkSettings,
    targets: usize,
    pub(super) carrier: bool,
    pub(super) usable: bool,
    epoch: u64,
    rounds: Vec<Round>,
    next: usize,
    /// When the probes moved last, how often they have, and the number of the next round since.
    moved: u64,
    moves: u32,
    number: u64,
    /// No result has come since the probes moved.
    renumber: bool,
    /// Since the epoch.
    pub(super) counted: Vec<Counted>,
    pub(super) health: Health,
    good: u32,
    bad: u32,
    blind: u32,
    /// Bad rounds since the last good one, and whether they are explained.
    pub(super) failing: u32,
    explained: bool,
    /// Whether an examination is due.
    pub(super) examine: bool,
    /// Rounds sent before are explained.
    gone: u64,
    /// The first failure waits for its examination.
    open: bool,
    waits: bool,
}

impl Reference {
    pub(super) fn new(rules: &UplinkSettings, family: Family) -> Self {
        Reference {
            rules: rules.clone(),
            targets: rules.targets[family] as usize,
            carrier: rules.carrier,
            usable: rules.usable[family],
            epoch: 0,
            rounds: Vec::new(),
            next: 0,
            moved: 0,
            moves: 0,
            number: 0,
            renumber: true,
            counted: Vec::new(),
            health: match (rules.targets[family], rules.earlier[family]) {
                (0, _) => Health::Unknown,
                (_, Health::Down) => Health::Down,
                _ if !rules.carrier => Health::Down,
                _ => Health::Unknown,
            },
            good: 0,
            bad: 0,
            blind: 0,
            failing: 0,
            explained: false,
            examine: false,
            gone: 0,
            open: false,
            waits: false,
        }
    }

    pub(super) fn probed(&self) -> bool {
        self.targets > 0
    }

    pub(super) fn present(&self) -> bool {
        self.carrier && self.usable
    }

    pub(super) fn set(&mut self, carrier: bool, usable: bool, now: u64) {
        if (self.carrier, self.usable) != (carrier, usable) {
            let lost = self.carrier && !carrier || self.usable && !usable;
            if lost && self.probed() {
                self.health = Health::Down;
            }
            (self.good, self.bad, self.blind) = (0, 0, 0);
            (self.carrier, self.usable, self.epoch) = (carrier, usable, now);
            self.counted.clear();
            self.forget_failures();
        }
    }

    /// Probes take another path, and their numbers may restart.
    pub(super) fn moved(&mut self, renumber: bool, now: u64) {
        self.next = self.rounds.len();
        (self.moved, self.renumber) = (now, true);
        self.moves += 1;
        self.bad = 0;
        self.forget_failures();
        if renumber {
            self.number = 0;
        }
    }

    /// Whether a round was sent at this very instant.
    pub(super) fn sends(&self, now: u64) -> bool {
        self.rounds.last().is_some_and(|round| round.sent == now)
    }

    fn forget_failures(&mut self) {
        (self.failing, self.explained, self.examine) = (0, false, false);
        (self.gone, self.open, self.waits) = (0, false, false);
    }

    pub(super) fn examined(&mut self, explained: bool, now: u64) {
        if self.explained && !explained {
            self.gone = now;
        }
        self.explained = explained && self.failing > 0;
        self.open = false;
        if core::mem::take(&mut self.waits) {
            match explained {
                true => {
                    self.bad = 0;
                    self.judge(Verdict::Blind);
                }
                false if self.overtaken() => {}
                false => self.health = Health::Down,
            }
        }
    }

    /// A round leaves: its number.
    pub(super) fn send(&mut self, now: u64) -> u64 {
        let number = self.number;
        self.number += 1;
        self.rounds.push(Round {
            number,
            sent: now,
            heard: None,
            outcomes: Vec::new(),
            grace: None,
            expired: false,
        });
        number
    }

    pub(super) fn result(&mut self, number: u64, sent: u64, outcome: Outcome, now: u64) {
        if sent < self.moved {
            return;
        }
        let of = |round: &Round| (round.number, round.sent) == (number, sent);
        let number = self.rounds.iter().rposition(of).unwrap();
        if core::mem::take(&mut self.renumber) {
            self.next = number;
        }
        for round in &mut self.rounds[self.next.min(number)..number] {
            round.heard.get_or_insert(sent);
        }
        self.rounds[number].heard = Some(sent);
        self.rounds[number].outcomes.push(outcome);
        self.count(now);
    }

    /// The grace of one interval begins when it is noticed that results are overdue. If that is noticed late, the grace is that much
    /// longer, up to a timeout.
    pub(super) fn timeout(&mut self, now: u64) {
        let (timeout, interval) = (ms(self.rules.timeout), ms(self.rules.interval));
        for round in &mut self.rounds[self.next..] {
            let Some(due) = round.heard.map(|sent| sent + timeout) else {
                continue;
            };
            if due <= now && round.grace.is_none() {
                round.grace = Some(now + interval + timeout.min(now - due));
            }
            round.expired |= round.grace.is_some_and(|grace| grace <= now);
        }
        self.count(now);
    }

    /// When the youngest good round was sent that is younger than some round not counted yet.
    fn answered(&self) -> Option<u64> {
        let good = |round: &&Round| self.verdict(round) == Some(Verdict::Good);
        let open = self.rounds[self.next..].iter().rev();
        open.filter(good)
            .filter_map(|round| round.heard)
            .find(|sent| *sent >= self.epoch)
    }

    /// Whether a round younger than the last counted one is known to be good: those before it say nothing about now.
    pub(super) fn overtaken(&self) -> bool {
        self.answered().is_some()
    }

    /// The newest known round: one that is already good, else the last counted one.
    pub(super) fn newest(&self) -> Option<(Verdict, u64)> {
        let counted = self.last().map(|last| (last.verdict, last.sent));
        let good = self.answered().map(|sent| (Verdict::Good, sent));
        good.or(counted)
    }

    fn count(&mut self, now: u64) {
        while let Some(verdict) = self
            .rounds
            .get(self.next)
            .and_then(|round| self.verdict(round))
        {
            let sent = self.rounds[self.next].heard.unwrap();
            self.next += 1;
            if self.present() && sent >= self.epoch {
                let verdict = self.explain(verdict, sent);
                self.counted.push(Counted {
                    verdict,
                    sent,
                    at: now,
                    moves: self.moves,
                });
                self.judge(verdict);
            }
        }
    }

    fn explain(&mut self, verdict: Verdict, sent: u64) -> Verdict {
        match verdict {
            Verdict::Good => self.forget_failures(),
            Verdict::Bad => {
                self.failing += 1;
                (self.open, self.waits) = (self.failing == 1, false);
                self.examine |= self.failing % self.rules.fall == 1 % self.rules.fall;
            }
            Verdict::Blind => {}
        }
        match verdict {
            Verdict::Bad if self.explained || sent < self.gone => Verdict::Blind,
            verdict => verdict,
        }
    }

    fn judge(&mut self, verdict: Verdict) {
        (self.good, self.bad, self.blind) = match verdict {
            Verdict::Good => (self.good + 1, 0, 0),
            Verdict::Bad => (0, self.bad + 1, 0),
            Verdict::Blind => (self.good, self.bad, self.blind + 1),
        };
        let (rules, down) = (&self.rules, self.health == Health::Down);
        let overtaken = self.overtaken();
        let reached_fall = !overtaken && (self.health == Health::Unknown || self.bad >= rules.fall);
        self.waits |= verdict == Verdict::Bad && self.open && !down && reached_fall;
        self.health = match verdict {
            Verdict::Good if !down || self.good >= rules.rise => Health::Up,
            Verdict::Bad if reached_fall && !self.open => Health::Down,
            Verdict::Blind if !down && !overtaken && self.blind >= rules.fall => {
                (self.good, self.bad) = (0, 0);
                Health::Blind
            }
            _ => self.health,
        };
    }

    fn verdict(&self, round: &Round) -> Option<Verdict> {
        let of = |wanted: fn(&Outcome) -> bool| {
            round
                .outcomes
                .iter()
                .filter(|outcome| wanted(outcome))
                .count()
        };
        let replies = of(|outcome| matches!(outcome, Outcome::Reply { .. }));
        let lost = of(|outcome| matches!(outcome, Outcome::Lost));
        let missing = self.targets - round.outcomes.len();
        let quorum = self.rules.quorum as usize;
        match round {
            _ if replies >= quorum => Some(Verdict::Good),
            round if round.expired && missing > 0 => Some(Verdict::Bad),
            _ if replies + missing >= quorum => None,
            _ if lost > 0 => Some(Verdict::Bad),
            _ if missing == 0 => Some(Verdict::Blind),
            _ => None,
        }
    }

    pub(super) fn last(&self) -> Option<Counted> {
        self.counted.last().copied()
    }

    /// The rounds at the end that share a verdict; blind ones are left out.
    pub(super) fn run(&self, verdict: Verdict) -> Vec<Counted> {
        let seeing = self
            .counted
            .iter()
            .rev()
            .filter(|round| round.verdict != Verdict::Blind);
        let mut run: Vec<_> = seeing
            .take_while(|round| round.verdict == verdict)
            .copied()
            .collect();
        run.reverse();
        run
    }

    /// When the first failure of its last run of bad rounds occurred; `None` if it was lost instead.
    pub(super) fn first_failure(&self) -> Option<u64> {
        let bad = |round: &&Counted| round.verdict == Verdict::Bad;
        let seeing = || {
            self.counted
                .iter()
                .filter(|round| round.verdict != Verdict::Blind)
        };
        let last = seeing().rev().find(bad)?;
        let after = seeing()
            .rev()
            .skip_while(|round| !bad(round))
            .take_while(|round| bad(round) && round.moves == last.moves)
            .last()?;
        Some(after.sent)
    }
}
