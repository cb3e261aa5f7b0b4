//! From probes to rounds: the last rounds of one uplink in one family, in the order in which they were sent.

use core::time::Duration;
use std::collections::VecDeque;

use super::{Family, Outcome, TargetId, Time, UplinkSettings};

/// Counted rounds that are kept to compute the loss.
const LOSS_ROUNDS: usize = 60;

/// Rounds that may be open at once. They expire long before that; the limit only bounds memory should a prober misbehave.
const OPEN_ROUNDS: usize = 1024;

/// What a round says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    Blind,
}

#[derive(Clone, Debug, PartialEq)]
struct Round {
    sent: Time,
    outcomes: Vec<(TargetId, Outcome)>,
    /// Until when missing results may still be handed in, set once the machine has noticed that they are overdue.
    grace: Option<Time>,
    /// Results that are still missing will not come: they are lost.
    expired: bool,
}

#[derive(Default)]
struct Tally {
    replies: u32,
    lost: u32,
    missing: u32,
}

impl Round {
    fn tally(&self, targets: u32) -> Tally {
        let mut tally = Tally::default();
        let mut missing = targets;
        for (_, outcome) in &self.outcomes {
            missing = missing.saturating_sub(1);
            match outcome {
                Outcome::Reply { .. } => tally.replies += 1,
                Outcome::Lost => tally.lost += 1,
                Outcome::Blind => {}
            }
        }
        if self.expired {
            tally.lost += missing;
        } else {
            tally.missing = missing;
        }
        tally
    }

    /// `None` while the missing results can still change the verdict. A round that cannot become good is bad as soon as one probe is lost,
    /// and blind only if no probe was lost.
    fn verdict(&self, targets: u32, quorum: u32) -> Option<Verdict> {
        let tally = self.tally(targets);
        if tally.replies >= quorum {
            Some(Verdict::Good)
        } else if tally.replies + tally.missing >= quorum {
            None
        } else if tally.lost > 0 {
            Some(Verdict::Bad)
        } else if tally.missing == 0 {
            Some(Verdict::Blind)
        } else {
            None
        }
    }
}

/// The last rounds. The first `counted` of them are counted, the others are open; their numbers are consecutive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rounds {
    targets: u32,
    quorum: u32,
    /// How long a probe waits for its answer.
    timeout: Duration,
    /// How much longer its result may take to be handed in.
    interval: Duration,
    queue: VecDeque<Round>,
    /// Number of the first round in the queue. May be below zero, since numbers may restart while counted rounds are kept.
    first: i128,
    counted: usize,
    /// Whether the next result starts the numbers again.
    renumber: bool,
    /// Rounds sent before this count for nothing.
    begun: Time,
}

impl Rounds {
    pub(super) fn new(family: Family, rules: &UplinkSettings) -> Self {
        Rounds {
            targets: rules.targets[family],
            quorum: rules.quorum,
            timeout: rules.timeout,
            interval: rules.interval,
            queue: VecDeque::new(),
            first: 0,
            counted: 0,
            renumber: true,
            begun: Time::default(),
        }
    }

    /// Discards the open rounds, and from now on ignores rounds sent before. Counted rounds stay, for the loss.
    pub(super) fn restart(&mut self, now: Time) {
        self.queue.truncate(self.counted);
        (self.renumber, self.begun) = (true, now);
    }

    /// Takes over a changed configuration. Rounds counted with other targets are discarded.
    pub(super) fn reconfigure(&mut self, family: Family, rules: &UplinkSettings, now: Time) {
        let mut rounds = Rounds::new(family, rules);
        if rounds.targets == self.targets {
            rounds.queue = core::mem::take(&mut self.queue);
            rounds.counted = self.counted;
        }
        rounds.restart(now);
        *self = rounds;
    }

    /// Takes the result of one probe. False if it is of no use: already known, or of a round too old to matter.
    pub(super) fn add(
        &mut self,
        number: u64,
        sent: Time,
        target: TargetId,
        outcome: Outcome,
    ) -> bool {
        let targets = self.targets as usize;
        if sent < self.begun {
            return false;
        }
        let Some(round) = self.round(number, sent) else {
            return false;
        };
        let known = round.outcomes.iter().any(|(known, _)| *known == target);
        if known || round.outcomes.len() >= targets {
            return false;
        }
        round.outcomes.push((target, outcome));
        true
    }

    /// The round `number`. Rounds between the newest known one and this one are on their way too, without a result so far; they cannot have
    /// been sent later than this one.
    fn round(&mut self, number: u64, sent: Time) -> Option<&mut Round> {
        let number = i128::from(number);
        if core::mem::take(&mut self.renumber) {
            self.first = number - self.queue.len() as i128;
        }
        let mut index = usize::try_from(number - self.first).ok()?;
        if index > self.queue.len() + OPEN_ROUNDS {
            self.queue.clear();
            (self.first, self.counted, index) = (number, 0, 0);
        }
        while self.queue.len() <= index {
            self.queue.push_back(Round {
                sent,
                outcomes: Vec::new(),
                grace: None,
                expired: false,
            });
        }
        let round = &mut self.queue[index];
        round.sent = sent;
        Some(round)
    }

    /// Counts the oldest open round if it is decided, and returns its verdict and when it was sent.
    pub(super) fn count(&mut self) -> Option<(Verdict, Time)> {
        let crowded = self.queue.len() > self.counted + OPEN_ROUNDS;
        let round = self.queue.get_mut(self.counted)?;
        round.expired |= crowded;
        let decided = (round.verdict(self.targets, self.quorum)?, round.sent);
        self.counted += 1;
        if self.counted > LOSS_ROUNDS {
            self.queue.pop_front();
            (self.first, self.counted) = (self.first + 1, LOSS_ROUNDS);
        }
        Some(decided)
    }

    /// When the youngest open round that is already good was sent: older ones say less about the link. Rounds sent before `epoch` belong to
    /// another link.
    pub(super) fn answered(&self, epoch: Time) -> Option<Time> {
        let good = |round: &&Round| {
            round.sent >= epoch && round.verdict(self.targets, self.quorum) == Some(Verdict::Good)
        };
        self.open().rev().find(good).map(|round| round.sent)
    }

    fn open(&self) -> impl DoubleEndedIterator<Item = &Round> {
        self.queue.range(self.counted..)
    }

    /// When an open round becomes overdue or expires.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.open()
            .filter(|round| !round.expired)
            .map(|round| round.grace.unwrap_or(round.sent + self.timeout))
            .min()
    }

    /// Gives up the results that open rounds still miss, if it is time.
    ///
    /// Overdue results have a grace of one interval in which they may be handed in. The grace starts when the machine notices that they are
    /// overdue: if the whole program was paused, the probers were paused too. They in turn extend a probe's timeout by as long as they
    /// noticed it late, at most by one timeout.
    pub(super) fn expire(&mut self, now: Time) {
        let (timeout, interval) = (self.timeout, self.interval);
        for round in self.queue.range_mut(self.counted..) {
            let due = round.sent + timeout;
            if due <= now {
                let late = now.since(due).min(timeout);
                let grace = *round.grace.get_or_insert(now + interval + late);
                round.expired |= grace <= now;
            }
        }
    }

    /// Share of the probes in the counted rounds that were lost. Blind ones were never sent and do not count.
    pub(super) fn loss(&self) -> Option<f64> {
        let (mut replies, mut lost) = (0, 0);
        for round in self.queue.iter().take(self.counted) {
            let tally = round.tally(self.targets);
            replies += tally.replies;
            lost += tally.lost;
        }
        (replies + lost > 0).then(|| f64::from(lost) / f64::from(replies + lost))
    }
}
