//! A value for each uplink, in order of preference.

use core::ops::{Index, IndexMut};

use super::{UplinkId, UplinkSet};

/// One `T` for each uplink, in order of preference. Looked up by the uplink's identity in constant time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerUplink<T> {
    /// In order of preference.
    entries: Vec<(UplinkId, T)>,
    /// By identity: the entry's position.
    places: Vec<Option<usize>>,
}

impl<T> PerUplink<T> {
    /// How many uplinks there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no uplinks.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of an uplink; `None` if there is no such uplink.
    pub fn get(&self, uplink: UplinkId) -> Option<&T> {
        let place = *self.places.get(uplink.0)?;
        Some(&self.entries[place?].1)
    }

    /// The same, mutable.
    pub fn get_mut(&mut self, uplink: UplinkId) -> Option<&mut T> {
        let place = *self.places.get(uplink.0)?;
        Some(&mut self.entries[place?].1)
    }

    /// Whether there is such an uplink.
    pub fn contains(&self, uplink: UplinkId) -> bool {
        self.get(uplink).is_some()
    }

    /// How many uplinks are preferred to this one; `None` if there is no such uplink.
    pub fn position(&self, uplink: UplinkId) -> Option<usize> {
        self.places.get(uplink.0).copied().flatten()
    }

    /// Each uplink and its value.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (UplinkId, &T)> + ExactSizeIterator {
        self.entries.iter().map(|(uplink, value)| (*uplink, value))
    }

    /// The same, mutable.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (UplinkId, &mut T)> {
        self.entries
            .iter_mut()
            .map(|(uplink, value)| (*uplink, value))
    }

    /// The uplinks.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = UplinkId> + ExactSizeIterator + Clone {
        self.entries.iter().map(|(uplink, _)| *uplink)
    }

    /// Each value.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator + Clone {
        self.entries.iter().map(|(_, value)| value)
    }

    /// Each value, mutable.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// Each uplink and its value, as a slice.
    pub fn as_slice(&self) -> &[(UplinkId, T)] {
        &self.entries
    }

    /// The uplinks of a set that exist here, in order of preference.
    pub fn in_order(&self, uplinks: UplinkSet) -> impl Iterator<Item = UplinkId> {
        self.ids().filter(move |uplink| uplinks.contains(*uplink))
    }

    /// A value made by `make` for each uplink.
    pub fn map<U>(&self, mut make: impl FnMut(UplinkId, &T) -> U) -> PerUplink<U> {
        PerUplink {
            entries: self
                .iter()
                .map(|(uplink, value)| (uplink, make(uplink, value)))
                .collect(),
            places: self.places.clone(),
        }
    }

    /// Other values for the same uplinks: those of `carried` for uplinks that are `kept`, and those made by `make` for the others.
    pub fn carry<U: Clone>(
        &self,
        carried: &PerUplink<U>,
        kept: UplinkSet,
        mut make: impl FnMut(UplinkId, &T) -> U,
    ) -> PerUplink<U> {
        self.map(
            |uplink, value| match carried.get(uplink).filter(|_| kept.contains(uplink)) {
                Some(known) => known.clone(),
                None => make(uplink, value),
            },
        )
    }
}

/// In the given order. Of an uplink that comes twice, the first value counts.
impl<T> FromIterator<(UplinkId, T)> for PerUplink<T> {
    fn from_iter<I: IntoIterator<Item = (UplinkId, T)>>(pairs: I) -> Self {
        let mut all = PerUplink {
            entries: Vec::new(),
            places: Vec::new(),
        };
        for (uplink, value) in pairs {
            if all.contains(uplink) {
                continue;
            }
            if all.places.len() <= uplink.0 {
                all.places.resize(uplink.0 + 1, None);
            }
            all.places[uplink.0] = Some(all.entries.len());
            all.entries.push((uplink, value));
        }
        all
    }
}

impl<T> Default for PerUplink<T> {
    fn default() -> Self {
        PerUplink::from_iter([])
    }
}

/// Panics if there is no such uplink, as a slice does beyond its end.
impl<T> Index<UplinkId> for PerUplink<T> {
    type Output = T;

    fn index(&self, uplink: UplinkId) -> &T {
        match self.get(uplink) {
            Some(value) => value,
            None => panic!("no uplink {}", uplink.0),
        }
    }
}

impl<T> IndexMut<UplinkId> for PerUplink<T> {
    fn index_mut(&mut self, uplink: UplinkId) -> &mut T {
        match self.get_mut(uplink) {
            Some(value) => value,
            None => panic!("no uplink {}", uplink.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &[usize]) -> PerUplink<char> {
        let letters = 'a'..;
        ids.iter().copied().map(UplinkId).zip(letters).collect()
    }

    #[test]
    fn uplinks_are_found_by_identity_and_come_in_order_of_preference() {
        let some = of(&[5, 0, 3]);
        assert_eq!(some.values().collect::<String>(), "abc");
        assert_eq!((some[UplinkId(0)], some[UplinkId(3)]), ('b', 'c'));
        assert_eq!(some.position(UplinkId(3)), Some(2));
        for unknown in [1, 4, 6, 64] {
            assert_eq!(some.get(UplinkId(unknown)), None);
            assert_eq!(some.position(UplinkId(unknown)), None);
        }
        let set = [UplinkId(0), UplinkId(1), UplinkId(5)]
            .into_iter()
            .collect();
        assert_eq!(
            some.in_order(set).collect::<Vec<_>>(),
            [UplinkId(5), UplinkId(0)]
        );
        let twice = [(UplinkId(2), 'x'), (UplinkId(2), 'y')];
        assert_eq!(
            PerUplink::from_iter(twice).values().collect::<String>(),
            "x"
        );
    }

    #[test]
    fn only_what_is_kept_is_carried() {
        let before = of(&[0, 1, 2]);
        let now = of(&[2, 4, 1]);
        let kept = [UplinkId(0), UplinkId(2)].into_iter().collect();
        let carried = now.carry(&before, kept, |uplink, letter| {
            assert_ne!(uplink, UplinkId(2));
            letter.to_ascii_uppercase()
        });
        assert_eq!(carried.values().collect::<String>(), "cBC");
    }
}
