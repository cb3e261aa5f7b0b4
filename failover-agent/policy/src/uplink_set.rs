//! A set of uplinks.

use super::UplinkId;

/// The greatest number of uplinks: one bit each.
pub const MAX_UPLINKS: usize = 64;

/// A set of uplinks: for example those that carry a family's new traffic together, which is one alone or the members of a balance group.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct UplinkSet(u64);

impl UplinkSet {
    /// The empty set.
    pub const NONE: UplinkSet = UplinkSet(0);

    /// The set of one uplink.
    pub fn only(uplink: UplinkId) -> Self {
        UplinkSet::NONE.with(uplink)
    }

    /// The set with one more. An uplink beyond [`MAX_UPLINKS`] is ignored.
    #[must_use]
    pub fn with(self, uplink: UplinkId) -> Self {
        UplinkSet(self.0 | bit(uplink))
    }

    /// The set without one.
    #[must_use]
    pub fn without(self, uplink: UplinkId) -> Self {
        UplinkSet(self.0 & !bit(uplink))
    }

    /// Whether an uplink is in the set.
    pub fn contains(self, uplink: UplinkId) -> bool {
        self.0 & bit(uplink) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many uplinks are in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The one with the lowest identity; `None` if the set is empty.
    pub fn first(self) -> Option<UplinkId> {
        self.iter().next()
    }

    /// The uplinks in order of identity; [`PerUplink::in_order`](super::PerUplink::in_order) has the order of preference.
    pub fn iter(self) -> impl Iterator<Item = UplinkId> {
        (0..MAX_UPLINKS)
            .map(UplinkId)
            .filter(move |uplink| self.contains(*uplink))
    }

    /// The uplinks of either set.
    #[must_use]
    pub fn union(self, others: UplinkSet) -> Self {
        UplinkSet(self.0 | others.0)
    }

    /// The uplinks of both sets.
    #[must_use]
    pub fn intersection(self, others: UplinkSet) -> Self {
        UplinkSet(self.0 & others.0)
    }

    /// The uplinks that are not among `others`.
    #[must_use]
    pub fn minus(self, others: UplinkSet) -> Self {
        UplinkSet(self.0 & !others.0)
    }

    /// Whether all of them are among `others`.
    pub fn within(self, others: UplinkSet) -> bool {
        self.0 & !others.0 == 0
    }
}

fn bit(uplink: UplinkId) -> u64 {
    match uplink.0 {
        position @ 0..MAX_UPLINKS => 1 << position,
        _ => 0,
    }
}

impl FromIterator<UplinkId> for UplinkSet {
    fn from_iter<I: IntoIterator<Item = UplinkId>>(uplinks: I) -> Self {
        uplinks.into_iter().fold(UplinkSet::NONE, UplinkSet::with)
    }
}

impl core::fmt::Debug for UplinkSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set()
            .entries(self.iter().map(|uplink| uplink.0))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_only_that() {
        let set: UplinkSet = [UplinkId(3), UplinkId(0), UplinkId(63)]
            .into_iter()
            .collect();
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [UplinkId(0), UplinkId(3), UplinkId(63)]
        );
        assert_eq!((set.len(), set.first()), (3, Some(UplinkId(0))));
        let rest = set.without(UplinkId(0));
        assert!(!rest.contains(UplinkId(0)) && rest.within(set) && !set.within(rest));
        assert_eq!(set.minus(rest), UplinkSet::only(UplinkId(0)));
        assert_eq!(set.minus(rest).union(rest), set);
        assert_eq!(UplinkSet::NONE.with(UplinkId(64)), UplinkSet::NONE);
        assert_eq!(format!("{rest:?}"), "{3, 63}");
    }
}
