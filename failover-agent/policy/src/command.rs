//! A user's commands, and why the machine may refuse one.

use super::{Family, Health, Time, UplinkId};

/// A user's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Keep this uplink active (a manual override) in each family in which it is Up, until it goes Down there.
    Switch(UplinkId),
    /// End the manual override and any drill: the ranks decide again.
    Auto,
    /// Treat an uplink as Down for a while. Replaces an earlier drill; with a time that has passed it ends the drill.
    Drill {
        /// Which uplink.
        uplink: UplinkId,
        /// When the drill ends.
        until: Time,
    },
}

/// Why a command is refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such uplink.
    Unknown,
    /// The uplink is not Up in any family.
    NotUp {
        /// Its health in the first family in which it is probed.
        health: Health,
        /// Whether it is Down only because of a drill.
        drill: bool,
    },
    /// A drill would leave a family without any uplink that is proven Up.
    NoOther {
        /// Which family.
        family: Family,
    },
}
