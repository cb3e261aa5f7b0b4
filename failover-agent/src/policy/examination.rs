//! Whether a reason of our own explains that probes fail.

use super::round::Verdict;

/// What is known of the reason why one uplink's rounds are bad.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Examination {
    /// Bad rounds since the last good one, also those that count as blind.
    failing: u32,
    /// A reason of our own explains them.
    explained: bool,
    /// Whether it is time to look for one.
    due: bool,
}

impl Examination {
    /// What a round counts as: a bad one says nothing while a reason of our own explains it. That is looked for at the first
    /// failure and after each `fall` more.
    pub(super) fn explain(&mut self, verdict: Verdict, fall: u32) -> Verdict {
        match verdict {
            Verdict::Good => *self = Examination::default(),
            Verdict::Bad => {
                self.due |= self.failing.is_multiple_of(fall);
                self.failing = self.failing.wrapping_add(1);
                if self.explained {
                    return Verdict::Blind;
                }
            }
            Verdict::Blind => {}
        }
        verdict
    }

    /// Takes the answer. Without failures there is nothing to explain.
    pub(super) fn answer(&mut self, explained: bool) {
        self.explained = explained && self.failing > 0;
    }

    /// Whether somebody should look, once each time.
    pub(super) fn take_due(&mut self) -> bool {
        core::mem::take(&mut self.due)
    }
}
