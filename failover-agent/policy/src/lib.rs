//! The pure machine: facts about the world go in as [`Input`]s, what should be done comes out as [`Action`]s.
//!
//! **Architecture Invariant:** nothing here knows tokio, aya, rtnetlink, files or a clock. Time is a
//! parameter ([`Time`]), every type is plain data and `PartialEq`, and the same inputs give the same actions.
//!
//! The rules, in prose:
//!
//! * A *round* is one interval's probes over all targets of one uplink and family. It is good as soon as `quorum` targets
//!   have answered, bad as soon as that has become impossible. Rounds count in the order in which they were sent. What is known of a
//!   younger round comes before that: while one is good already, older ones make nothing Down or Blind, and the uplink is proven by it.
//! * A timeout that is noticed late says nothing: results that are overdue have an interval from then on to be handed in.
//! * `fall` consecutive bad rounds make an uplink Down, `rise` consecutive good ones make it Up again. The very first
//!   round decides alone (start-up check). Losing the carrier makes it Down at once. Rounds in which not one probe could be
//!   sent for a reason of our own say nothing: after `fall` of them the uplink is Blind, unless it was Down already.
//!   While a local reason explains why rounds are bad, they say nothing either, nor do those that were sent before it was gone; that is
//!   looked into at the first bad round after a good one, which makes nothing Down before the answer, and after each `fall` more.
//! * What an earlier run of the agent has found Down, and what has no carrier, starts as Down: only `rise` good rounds and the
//!   hold time bring it back. When probes move to another address or gateway, what was sent before does not count against it.
//! * A hint that an uplink may be dead has it probed at once, at most twice in an interval.
//! * Uplinks of equal rank are a group, which is active together. The lowest rank with a member that is Up wins. An uplink is only
//!   switched to when it is *proven just now*: Up, its newest round good, and that round sent within its last interval and timeout and after the trouble on the active uplink began; otherwise it is
//!   probed at once and the decision waits, while there is another proven one at most for a probe's timeout. Of a group, those are
//!   taken that are proven; nobody waits for a member of the same group, but for the very first round at the start.
//! * A more preferred group takes over again (failback) once a member has been good without interruption for `hold`, and `hold`
//!   after the last failback. Members that are as far join the active group; that cuts nobody, and no failback waits for it.
//! * A group is Down when all its active members are. One alone that is Down leaves at once, if another is proven; those that
//!   have not failed (a bad round, Blind) stay.
//! * A switch counts when it is confirmed. A destination that could not be confirmed is passed over for 1 s, then for twice
//!   as long each time, up to 30 s; of several, each is tried alone first.
//! * When no uplink is proven, nothing changes.
//! * Once a switch is confirmed, all uplinks that are not active are cut, each once: at once after a failover; after the `drain`
//!   of the uplink when it was left for a more preferred one while it worked, unless it goes Down or is active again before.
//!   Nothing is cut while no active uplink is Up and good.
//! * Where that is wanted, an uplink that is Down and not active has no default route (it is withdrawn), as long as there is an active
//!   one: from after the switch until it is Up again, before anything is switched to it. For a family without targets the other
//!   one tells.
//! * The uplink of a manual override is active alone as long as it is Up, over a new start of the agent too; Down, it is left as usual and the
//!   override ends.
//! * An uplink in a drill counts as Down. The drill ends by its time, or as soon as no other uplink is left that could be Up.
//! * An uplink that measurement has found Down in every family is to be recovered, and again after each `recover_interval`; never sooner after the
//!   last time, and not while a switch or the proof for one is on its way. One that starts as Down is so after its first grace.
//! * A family without targets of its own is where the other one is, as far as the uplinks can carry it.
//! * Other rules (a reload) leave alone what they do not change. A new uplink is a standby and cut like one; when nothing of what was
//!   active is left, the first that is proven is taken.

mod action;
mod command;
mod cutoff;
mod drill;
mod election;
mod examination;
mod family;
mod health;
mod input;
mod machine;
mod per_uplink;
mod pick;
mod recovery;
mod reload;
mod round;
mod rules;
mod start;
#[cfg(test)]
mod tests;
mod uplink_set;
mod withdrawal;

pub use action::{Action, Cause, Event, Switch};
pub use command::{Command, Refusal};
pub use family::{Family, PerFamily};
pub use input::{Input, Outcome};
pub use machine::Machine;
pub use per_uplink::PerUplink;
pub use rules::{MachineConfig, UplinkSettings};
pub use uplink_set::{MAX_UPLINKS, UplinkSet};

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

/// Identity of an uplink as long as it is configured, below [`MAX_UPLINKS`]: not its place in the order of preference, which a reload may
/// change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UplinkId(pub usize);

/// Position of a target in its uplink's list of targets (both families counted together).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub usize);

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
