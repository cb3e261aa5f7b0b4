//! Whose default routes must not stand.

use std::collections::VecDeque;

use super::{Action, Family, UplinkSet};

/// The withdrawn uplinks of one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Withdrawal {
    family: Family,
    told: UplinkSet,
}

impl Withdrawal {
    pub(super) fn new(family: Family) -> Self {
        Withdrawal {
            family,
            told: UplinkSet::NONE,
        }
    }

    #[cfg(test)]
    pub(super) fn told(&self) -> UplinkSet {
        self.told
    }

    /// Gives back the routes of those that are not to be withdrawn any more: before anything is switched to them.
    pub(super) fn give_back(&mut self, wanted: UplinkSet, out: &mut VecDeque<Action>) {
        let lifted = self.told.minus(wanted);
        self.tell(self.told.minus(lifted), out);
    }

    /// Withdraws exactly these.
    pub(super) fn tell(&mut self, wanted: UplinkSet, out: &mut VecDeque<Action>) {
        if self.told != wanted {
            self.told = wanted;
            out.push_back(Action::Withdraw {
                family: self.family,
                uplinks: wanted,
            });
        }
    }

    /// The uplinks are others.
    pub(super) fn reconfigure(&mut self, kept: UplinkSet) {
        self.told = self.told.intersection(kept);
    }
}
