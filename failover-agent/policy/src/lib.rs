//! The pure machine: facts about the world go in as [`Input`]s, and what is to be done comes out as [`Action`]s.
//!
//! **Architecture Invariant:** nothing here knows tokio, aya, rtnetlink, files or a clock. Time is a parameter ([`Time`]), every type is
//! plain data and `PartialEq`, and the same inputs give the same actions.
//!
//! The rules, in prose, each with the file that implements it:
//!
//! * **Rounds** (`round.rs`). A *round* is one interval's probes of all targets of one uplink in one family. A round is good as soon as
//!   `quorum` targets have answered, and bad as soon as that has become impossible. Rounds count in the order in which they were sent. One
//!   exception: while a younger round is already good, older rounds make the uplink neither Down nor Blind, and the younger one counts as
//!   its proof.
//! * **Late timeouts** (`round.rs`). A timeout that the machine notices late says nothing about the link: an overdue result may still be
//!   handed in for one interval after the machine has noticed that it is overdue.
//! * **Health** (`health.rs`). `fall` consecutive bad rounds make an uplink Down, `rise` consecutive good ones make it Up again. The very
//!   first round decides alone (the start-up check). A lost carrier makes the uplink Down at once. What an earlier run of the agent found
//!   Down, and what has no carrier, starts as Down: only `rise` good rounds and the hold time bring it back. When probes move to another
//!   source address or gateway, results of earlier probes do not count against the uplink.
//! * **Blind** (`health.rs`, `examination.rs`). A round in which no probe could be sent, for a reason on this host, says nothing about the
//!   link: after `fall` of them the uplink is Blind, unless it was Down already. The same holds for bad rounds that a reason on this host
//!   explains, and for rounds that were sent before that reason was gone. The machine asks for an examination at the first bad round after
//!   a good one, and again after every `fall` more; the first bad round makes nothing Down before the answer is in.
//! * **Hints** (`pick.rs`). A hint that an uplink may be dead makes the machine probe the uplink at once, at most twice in an interval.
//! * **Choosing** (`pick.rs`, `start.rs`). Uplinks of equal rank are a balance group and active together. The lowest rank with a member
//!   that is Up wins. The machine switches only to an uplink that is *proven just now*: it is Up, its newest round is good, and that round
//!   was sent within the uplink's last interval and timeout and after the first failure on the active uplink. An uplink that is Up but not
//!   proven is probed at once, and the decision waits for the answer; while a lower-ranked uplink is proven, it waits at most one probe
//!   timeout. Of a group, the proven members are taken; members of one group do not wait for each other, except for the very first round at
//!   the start.
//! * **Failback** (`election.rs`). A more preferred group takes over again once one of its members has been good without interruption for
//!   `hold`, and not before `hold` has passed since the last failback. Members that have been good for that long join the active group;
//!   joining cuts nothing, and no failback waits because of it.
//! * **Failover** (`election.rs`). A group is Down when all its active members are. A single member that is Down leaves the group at once,
//!   if another member is proven; members that have not failed (those with a bad round, or Blind) stay.
//! * **Confirmation** (`election.rs`). A switch counts once the caller has confirmed it. A destination that could not be confirmed is
//!   passed over for 1 s, then for twice as long each time, up to 30 s; of several new uplinks, each is tried alone first.
//! * **No proof, no change** (`election.rs`). When no uplink is proven, nothing changes.
//! * **Cutoff** (`cutoff.rs`). After a confirmed switch every uplink that is not active is cut, each once: immediately after a failover;
//!   or, if it worked when it was left for a more preferred uplink, after its `drain`, unless it goes Down first or becomes active again.
//!   Nothing is cut while no active uplink is Up and good.
//! * **Withdrawal** (`withdrawal.rs`, `machine.rs`). If the configuration asks for it, the default routes of an uplink that is Down and not
//!   active are withdrawn while another uplink is active: from the end of the switch until the uplink is Up again, and given back before
//!   anything is switched to it. For a family without targets, the other family's health decides.
//! * **Manual override** (`election.rs`, `start.rs`). The uplink of a manual override is active alone as long as it is Up, even after a
//!   restart of the agent. Once it is Down, the override ends and the ranks decide.
//! * **Drill** (`drill.rs`). An uplink in a drill counts as Down. The drill ends when its time is over, or as soon as no other uplink could
//!   be Up.
//! * **Recovery** (`recovery.rs`). When measurement finds an uplink Down in every family, its recovery program is due, and again after
//!   every `recover_interval`; never sooner than that after the last run, and not while a switch is in flight or waits for a proof. For an
//!   uplink that starts as Down, one grace period comes first.
//! * **Following** (`election.rs`). A family without targets of its own uses the uplinks that the other family uses, as far as they can
//!   carry it.
//! * **Reload** (`reload.rs`). A changed configuration leaves alone what it does not change. A new uplink is a standby and is cut like one.
//!   When none of the active uplinks is left, the machine takes the first one that is proven.

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

/// A point in time: the time since a start that only the caller knows.
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

/// Identity of an uplink for as long as it is configured; below [`MAX_UPLINKS`]. It is not the uplink's position in the order of
/// preference, which a reload may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UplinkId(pub usize);

/// Position of a target in its uplink's list of targets (both families counted together).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub usize);

/// The state of one uplink in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// No round is complete yet.
    #[default]
    Unknown,
    /// It answers its probes.
    Up,
    /// It does not answer them, or it has no carrier.
    Down,
    /// The agent cannot probe it. That says nothing about the link.
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
