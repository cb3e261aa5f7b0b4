//! The two address families, and a value for each.

use core::ops::{Index, IndexMut};

/// Address family. Each has its own health, election and gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which they are processed.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Family {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

impl core::fmt::Display for Family {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// One `T` for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PerFamily<T> {
    /// IPv4's.
    pub v4: T,
    /// IPv6's.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// IPv4's and IPv6's.
    pub const fn new(v4: T, v6: T) -> Self {
        PerFamily { v4, v6 }
    }

    /// A value made by `make` for each family, IPv4's first.
    pub fn from_fn(mut make: impl FnMut(Family) -> T) -> Self {
        PerFamily {
            v4: make(Family::V4),
            v6: make(Family::V6),
        }
    }

    /// The same value for both.
    pub fn both(value: T) -> Self
    where
        T: Clone,
    {
        PerFamily {
            v4: value.clone(),
            v6: value,
        }
    }

    /// Both values changed by `change`.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> PerFamily<U> {
        PerFamily {
            v4: change(self.v4),
            v6: change(self.v6),
        }
    }

    /// Both by reference.
    pub fn as_ref(&self) -> PerFamily<&T> {
        PerFamily {
            v4: &self.v4,
            v6: &self.v6,
        }
    }

    /// Each family and its value, IPv4's first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        [(Family::V4, &self.v4), (Family::V6, &self.v6)].into_iter()
    }

    /// Each value, IPv4's first.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        [&self.v4, &self.v6].into_iter()
    }

    /// Each family and its value, IPv4's first, mutable.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Family, &mut T)> {
        [(Family::V4, &mut self.v4), (Family::V6, &mut self.v6)].into_iter()
    }

    /// A family's value, mutable, and the other family's.
    pub fn split_mut(&mut self, family: Family) -> (&mut T, &mut T) {
        match family {
            Family::V4 => (&mut self.v4, &mut self.v6),
            Family::V6 => (&mut self.v6, &mut self.v4),
        }
    }

    /// Each value, mutable.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.v4, &mut self.v6].into_iter()
    }
}

/// IPv4's first.
impl<T> From<[T; 2]> for PerFamily<T> {
    fn from([v4, v6]: [T; 2]) -> Self {
        PerFamily { v4, v6 }
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
