//! What the properties are judged by: the rounds of one uplink in one family, counted a second time and as naively as possible.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    Blind,
}

#[derive(Clone, Debug)]
struct Round {
    sent: u64,
    /// When it was sent as far as the machine can know by now: it hears of a round by its results and by those of later ones.
    heard: Option<u64>,
    outcomes: Vec<Outcome>,
    expired: bool,
}

/// One counted round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) verdict: Verdict,
    pub(super) sent: u64,
    pub(super) at: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Reference {
    rules: UplinkRules,
    targets: usize,
    pub(super) carrier: bool,
    pub(super) usable: bool,
    /// Whether carrier or address were ever lost.
    lost: bool,
    epoch: u64,
    rounds: Vec<Round>,
    next: usize,
    /// Since the epoch.
    pub(super) counted: Vec<Counted>,
}

impl Reference {
    pub(super) fn new(rules: &UplinkRules, family: Family) -> Self {
        Reference {
            rules: rules.clone(),
            targets: rules.targets[family as usize] as usize,
            carrier: true,
            usable: rules.usable[family as usize],
            lost: false,
            epoch: 0,
            rounds: Vec::new(),
            next: 0,
            counted: Vec::new(),
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
            self.lost |= self.carrier && !carrier || self.usable && !usable;
            (self.carrier, self.usable, self.epoch) = (carrier, usable, now);
            self.counted.clear();
        }
    }

    /// A round leaves: its number.
    pub(super) fn send(&mut self, now: u64) -> u64 {
        self.rounds.push(Round {
            sent: now,
            heard: None,
            outcomes: Vec::new(),
            expired: false,
        });
        self.rounds.len() as u64 - 1
    }

    pub(super) fn result(&mut self, number: u64, outcome: Outcome, now: u64) {
        let number = usize::try_from(number).unwrap();
        if self.rounds.iter().all(|round| round.heard.is_none()) {
            self.next = number;
        }
        let sent = self.rounds[number].sent;
        for round in &mut self.rounds[self.next.min(number)..number] {
            round.heard.get_or_insert(sent);
        }
        self.rounds[number].heard = Some(sent);
        self.rounds[number].outcomes.push(outcome);
        self.count(now);
    }

    pub(super) fn timeout(&mut self, now: u64) {
        let patience =
            u64::try_from((self.rules.timeout + self.rules.interval).as_millis()).unwrap();
        while let Some(round) = self.rounds.get_mut(self.next)
            && round.heard.is_some_and(|sent| sent + patience <= now)
        {
            round.expired = true;
            self.count(now);
        }
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
                self.counted.push(Counted {
                    verdict,
                    sent,
                    at: now,
                });
            }
        }
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

    /// How many rounds at the very end have this verdict.
    pub(super) fn streak(&self, verdict: Verdict) -> usize {
        self.counted
            .iter()
            .rev()
            .take_while(|round| round.verdict == verdict)
            .count()
    }

    /// Whether there is a reason to call it Down: lost, or `fall` bad rounds in a row, and not `rise` good ones since then.
    pub(super) fn may_be_down(&self) -> bool {
        let (mut down, mut good, mut bad) = (self.lost, 0, 0);
        for (index, round) in self.counted.iter().enumerate() {
            match round.verdict {
                Verdict::Good => (good, bad) = (good + 1, 0),
                Verdict::Bad => (good, bad) = (0, bad + 1),
                Verdict::Blind => {}
            }
            let first = index == 0 && !self.lost;
            down |= bad >= self.rules.fall || first && bad == 1;
            down &= good < self.rules.rise;
        }
        down
    }

    /// When the trouble began: its last run of bad rounds, if it was not lost instead.
    pub(super) fn trouble(&self) -> Option<u64> {
        let bad = |round: &&Counted| round.verdict == Verdict::Bad;
        let seeing = || {
            self.counted
                .iter()
                .filter(|round| round.verdict != Verdict::Blind)
        };
        let after = seeing()
            .rev()
            .skip_while(|round| !bad(round))
            .take_while(bad)
            .last()?;
        Some(after.sent)
    }
}
