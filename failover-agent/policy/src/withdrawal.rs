//! Which uplinks' default routes are withdrawn.

use std::collections::VecDeque;

use super::{Action, Family, UplinkSet};

/// The withdrawn uplinks of one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Withdrawal {
    family: Family,
    withdrawn: UplinkSet,
}

impl Withdrawal {
    pub(super) fn new(family: Family) -> Self {
        Withdrawal {
            family,
            withdrawn: UplinkSet::NONE,
        }
    }

    #[cfg(test)]
    pub(super) fn withdrawn(&self) -> UplinkSet {
        self.withdrawn
    }

    /// Gives back the routes of uplinks that need not be withdrawn any more; done before anything is switched to them.
    pub(super) fn give_back(&mut self, wanted: UplinkSet, out: &mut VecDeque<Action>) {
        let lifted = self.withdrawn.minus(wanted);
        self.withdraw(self.withdrawn.minus(lifted), out);
    }

    /// Withdraws exactly these uplinks' routes.
    pub(super) fn withdraw(&mut self, wanted: UplinkSet, out: &mut VecDeque<Action>) {
        if self.withdrawn != wanted {
            self.withdrawn = wanted;
            out.push_back(Action::Withdraw {
                family: self.family,
                uplinks: wanted,
            });
        }
    }

    /// Takes over a changed set of uplinks.
    pub(super) fn reconfigure(&mut self, kept: UplinkSet) {
        self.withdrawn = self.withdrawn.intersection(kept);
    }
}
