//! Whether a reason of our own explains that probes fail.

use super::Time;
use super::round::Verdict;

/// What is known of the reason why one uplink's rounds are bad.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Examination {
    /// Bad rounds since the last good one, also those that count as blind.
    failing: u32,
    /// A reason of our own explains them.
    explained: bool,
    /// It explains those that were sent before, too, although it is gone.
    gone: Time,
    /// Whether it is time to look for one.
    due: bool,
    answer: Answer,
}

/// The answer to the first failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    /// It is there, or another failure has come first.
    #[default]
    Known,
    /// It is still to come.
    Open,
    /// The same, and the verdict on the round waits for it.
    Awaited,
}

impl Examination {
    /// What a round counts as: a bad one says nothing while a reason of our own explains it. That is looked for at the first
    /// failure and after each `fall` more.
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

    /// Whether a verdict can wait for the answer: it is the first failure, and nobody has looked yet.
    pub(super) fn awaits(&mut self) -> bool {
        let open = self.answer != Answer::Known;
        if open {
            self.answer = Answer::Awaited;
        }
        open
    }

    /// Takes the answer: whether a verdict waits for it. Without failures there is nothing to explain.
    pub(super) fn answer(&mut self, explained: bool, now: Time) -> bool {
        if self.explained && !explained {
            self.gone = now;
        }
        self.explained = explained && self.failing > 0;
        core::mem::take(&mut self.answer) == Answer::Awaited
    }

    /// Whether somebody should look, once each time.
    pub(super) fn take_due(&mut self) -> bool {
        core::mem::take(&mut self.due)
    }
}
