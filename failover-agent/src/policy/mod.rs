//! The pure machine: facts about the world go in as [`Input`]s, what should be done comes out as [`Action`]s.
//!
//! **Architecture Invariant:** nothing here knows tokio, aya, rtnetlink, files or a clock. Time is a
//! parameter ([`Time`]), every type is plain data and `PartialEq`, and the same inputs give the same actions.
//!
//! The rules, in prose:
//!
//! * A *round* is one interval's probes over all targets of one uplink and family. It is good as soon as `quorum` targets
//!   have answered, bad as soon as that has become impossible. Rounds count in the order in which they were sent.
//! * `fall` consecutive bad rounds make an uplink Down, `rise` consecutive good ones make it Up again. The very first
//!   round decides alone (start-up check). Losing the carrier makes it Down at once. Rounds in which not one probe could be
//!   sent for a reason of our own say nothing: after `fall` of them the uplink is Blind, unless it was Down already.
//! * The lowest rank that is Up wins. An uplink is only switched to when it is *proven just now*: Up, its last round good, and
//!   that round sent within its last interval and timeout and after the trouble on the active uplink began; otherwise it is
//!   probed at once and the decision waits, while there is another proven one at most for a probe's timeout.
//! * A more preferred uplink takes over again (failback) once it has been good without interruption for `hold`, and `hold`
//!   after the last failback.
//! * A switch counts when it is confirmed. A destination that could not be confirmed is passed over for 1 s, then for twice
//!   as long each time, up to 30 s.
//! * When no uplink is proven, nothing changes.
//! * Once a switch is confirmed, all other uplinks are cut, each once: at once after a failover; after the `drain` of the uplink
//!   when it was left for a more preferred one while it worked, unless it goes Down or is active again before. Nothing is cut
//!   while the active uplink is not Up and good.
//! * An uplink chosen by hand is active as long as it is Up; Down, it is left as usual and the choice is forgotten.
//! * An uplink in a drill counts as Down. The drill ends by its time, or as soon as no other uplink is left that could be Up.
//! * A family without targets of its own is where the other one is, if the uplink can carry it.

mod action;
mod command;
mod cutoff;
mod drill;
mod election;
mod health;
mod input;
mod machine;
mod members;
mod pick;
mod reload;
mod reset;
mod round;
mod rules;
#[cfg(test)]
mod tests;
mod withdrawal;

pub use action::{Action, Cause, Note};
pub use command::{Command, Refusal};
pub use input::{Input, Outcome};
pub use machine::Machine;
pub use members::{MAX_MEMBERS, Members};
pub use rules::{Rules, UplinkRules};

use core::time::Duration;

/// A point in time: the time since some start that only the caller knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Duration);

impl Time {
    /// Time elapsed from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl core::ops::Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0 + duration)
    }
}

/// Position of an uplink in the configuration: 0 is the most preferred, but for others of its rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UplinkId(pub usize);

/// Position of a target in its uplink's list of targets (both families counted together).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub usize);

/// Address family. Each has its own health, election and gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which they are looked at.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];
}

impl core::fmt::Display for Family {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// What is known of one uplink in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// No round is complete yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
    /// We cannot probe, which says nothing about the link.
    Blind,
}

impl core::fmt::Display for Health {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Health::Unknown => "Unknown",
            Health::Up => "Up",
            Health::Down => "Down",
            Health::Blind => "Blind",
        })
    }
}
