//! Uplinks of before under their new positions.

use super::{UplinkId, UplinkSet};

/// Which uplink of before each uplink is.
pub(super) struct Renumbering(Vec<Option<UplinkId>>);

impl Renumbering {
    /// `old` by new uplink. What makes no sense (there was no such uplink, or it has another place already) is new.
    pub(super) fn new(old: &[Option<UplinkId>], before: usize, after: usize) -> Self {
        let mut known = UplinkSet::NONE;
        let take = |id: usize| {
            let old = (*old.get(id)?)?;
            let valid = old.0 < before && !known.contains(old);
            known = known.with(old);
            valid.then_some(old)
        };
        Renumbering((0..after).map(take).collect())
    }

    /// Where an uplink of before is now.
    pub(super) fn uplink(&self, old: UplinkId) -> Option<UplinkId> {
        let place = self.0.iter().position(|from| *from == Some(old));
        place.map(UplinkId)
    }

    /// Those of a set of before that are still there.
    pub(super) fn members(&self, old: UplinkSet) -> UplinkSet {
        old.iter().filter_map(|id| self.uplink(id)).collect()
    }

    /// What there was by uplink, by uplink; `new` makes it for those that were not there before.
    pub(super) fn carry<T: Clone>(&self, old: &[T], new: impl Fn(UplinkId) -> T) -> Vec<T> {
        let places = self.0.iter().enumerate();
        places
            .map(|(id, from)| match from {
                Some(from) => old[from.0].clone(),
                None => new(UplinkId(id)),
            })
            .collect()
    }
}
