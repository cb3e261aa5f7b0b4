//! Whose default routes must not stand.

use std::collections::VecDeque;

use super::{Action, Family, UplinkSet};

/// The withdrawn uplinks of one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Withdrawal {
    family: Family,
    ordered: UplinkSet,
}

impl Withdrawal {
    pub(super) fn new(family: Family) -> Self {
        Withdrawal {
            family,
            ordered: UplinkSet::NONE,
        }
    }

    #[cfg(test)]
    pub(super) fn ordered(&self) -> UplinkSet {
        self.ordered
    }

    /// Gives back the routes of those that are not to be withdrawn any more: before anything is switched to them.
    pub(super) fn give_back(&mut self, wanted: UplinkSet, out: &mut VecDeque<Action>) {
        let lifted = self.ordered.minus(wanted);
        self.order(self.ordered.minus(lifted), out);
    }

    /// Withdraws exactly these.
    pub(super) fn order(&mut self, wanted: UplinkSet, out: &mut VecDeque<Action>) {
        if self.ordered != wanted {
            self.ordered = wanted;
            out.push_back(Action::Withdraw {
                family: self.family,
                uplinks: wanted,
            });
        }
    }

    /// The uplinks are others.
    pub(super) fn reconfigure(&mut self, kept: UplinkSet) {
        self.ordered = self.ordered.intersection(kept);
    }
}
