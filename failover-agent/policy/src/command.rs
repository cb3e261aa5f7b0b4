//! What people order, and why it is not always done.

use super::{Family, Health, Time, UplinkId};

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Keep this uplink active (a manual override) in each family in which it is Up, until it is Down there.
    Switch(UplinkId),
    /// End the manual override, and a drill: the ranks decide again.
    Auto,
    /// Treat an uplink as Down until then. Takes the place of an earlier drill; ends one if the time is past.
    Drill {
        /// Which uplink.
        uplink: UplinkId,
        /// The end.
        until: Time,
    },
}

/// Why an order is not carried out. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such uplink.
    Unknown,
    /// It is not Up in any family.
    NotUp {
        /// What it is in the first family in which it is probed.
        health: Health,
        /// Whether only a drill makes it Down.
        drill: bool,
    },
    /// A drill would leave a family without any uplink that is proven Up.
    NoOther {
        /// Which family.
        family: Family,
    },
}
