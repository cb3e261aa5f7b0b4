//! Keys and tables of the file.

use std::time::Duration;

use super::kind::{Kind, Number, Span};

/// One key.
#[derive(Debug)]
pub(super) struct Key<K> {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// The values that it can take.
    pub(super) kind: K,
    /// Its default, as it would be written in the file, or in words.
    pub(super) default: &'static str,
    /// What it does.
    pub(super) about: &'static str,
}

/// What all keys have in common, whatever the kind of their values.
pub(super) trait KeyInfo: Sync {
    /// Its name in the file.
    fn name(&self) -> &'static str;
    /// Its row in the documentation: key, unit, range, default, meaning.
    fn row(&self) -> [String; 5];
}

impl<K: Kind + Sync> KeyInfo for Key<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn row(&self) -> [String; 5] {
        [
            format!("`{}`", self.name),
            self.kind.unit(),
            self.kind.range(),
            self.default.to_owned(),
            self.about.to_owned(),
        ]
    }
}

/// One table of the file.
pub(super) struct Section {
    /// Its name.
    pub(super) name: &'static str,
    /// Its header as it is written.
    pub(super) header: &'static str,
    /// Its keys.
    pub(super) keys: &'static [&'static dyn KeyInfo],
    /// Another table whose keys are valid in this one, too.
    pub(super) inherits: Option<&'static Section>,
}

impl Section {
    /// The names of the keys that are valid in it.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let inherited = self.inherits.map_or(&[] as &[_], |section| section.keys);
        self.keys.iter().chain(inherited).map(|key| key.name())
    }
}

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Metric 0 would not be the best in IPv6, where the kernel treats it as 1024. Above, room is left for the ranks.
pub(super) const METRIC: Number = Number {
    unit: "metric",
    min: 1,
    max: 4_000_000_000,
};

/// How long old connections may go on.
pub(super) const DRAIN_SPAN: Span = Span {
    min: Duration::ZERO,
    max: seconds(86_400),
};
