//! Whether a reason on this host explains why probes fail.

use super::Time;
use super::round::Verdict;

/// What is known about the reason for one uplink's bad rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Examination {
    /// Bad rounds since the last good one, including those that count as blind.
    failing: u32,
    /// Whether a reason on this host explains them.
    explained: bool,
    /// When the last such reason disappeared; it also explains the rounds that were sent before.
    gone: Time,
    /// Whether an examination is due.
    due: bool,
    answer: Answer,
}

/// The state of the answer to the first failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    /// The answer is in, or another failure has come since.
    #[default]
    Known,
    /// The answer is outstanding.
    Open,
    /// The answer is outstanding, and the verdict on the round waits for it.
    Awaited,
}

impl Examination {
    /// The verdict that a round counts as: a bad one counts as blind while a reason on this host explains it. An examination is due at the
    /// first failure and after every `fall` more.
    pub(super) fn explain(&mut self, verdict: Verdict, sent: Time, fall: u32) -> Verdict {
        match verdict {
            Verdict::Good => *self = Examination::default(),
            Verdict::Bad => {
                self.due |= self.failing.is_multiple_of(fall);
                self.answer = match self.failing {
                    0 => Answer::Open,
                    _ => Answer::Known,
                };
                self.failing = self.failing.wrapping_add(1);
                if self.explained || sent < self.gone {
                    return Verdict::Blind;
                }
            }
            Verdict::Blind => {}
        }
        verdict
    }

    /// Whether the verdict can wait for the answer: this is the first failure, and its examination is not answered yet.
    pub(super) fn awaits(&mut self) -> bool {
        let open = self.answer != Answer::Known;
        if open {
            self.answer = Answer::Awaited;
        }
        open
    }

    /// Takes the answer, and returns whether a verdict waits for it. Without failures there is nothing to explain.
    pub(super) fn answer(&mut self, explained: bool, now: Time) -> bool {
        if self.explained && !explained {
            self.gone = now;
        }
        self.explained = explained && self.failing > 0;
        core::mem::take(&mut self.answer) == Answer::Awaited
    }

    /// Whether an examination is due; true once for each.
    pub(super) fn take_due(&mut self) -> bool {
        core::mem::take(&mut self.due)
    }
}
