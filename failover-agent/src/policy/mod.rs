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

mod command;
mod cutoff;
mod election;
mod health;
mod machine;
mod members;
mod round;
#[cfg(test)]
mod tests;

pub use command::{Command, Refusal};
pub use machine::Machine;
pub use members::{MAX_MEMBERS, Members};

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

/// Position of an uplink in the configuration, which is its rank: 0 is the most preferred.
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

/// The rules for one uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkRules {
    /// Consecutive bad rounds to become Down, at least 1.
    pub fall: u32,
    /// Consecutive good rounds to become Up, at least 1.
    pub rise: u32,
    /// Targets that must answer for a round to be good, from 1 to the number of targets in the family.
    pub quorum: u32,
    /// How long it must have been good without interruption before a failback to it.
    pub hold: Duration,
    /// How long old connections may finish on it when it is left for a more preferred uplink.
    pub drain: Duration,
    /// Time from one round to the next.
    pub interval: Duration,
    /// How long a probe waits for its answer.
    pub timeout: Duration,
    /// Number of targets in each family, by [`Family::ALL`]'s order.
    pub targets: [u32; 2],
    /// Families in which the uplink can carry traffic (it has an address and a way out), by [`Family::ALL`]'s order.
    pub usable: [bool; 2],
}

/// Everything that the machine must know at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// In order of preference.
    pub uplinks: Vec<UplinkRules>,
    /// The uplink that carries new traffic already, by [`Family::ALL`]'s order: adopted from an earlier run of the agent.
    pub active: [Option<UplinkId>; 2],
    /// A drill that an earlier run of the agent has begun, and its end.
    pub drill: Option<(UplinkId, Time)>,
}

/// How one probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered in time.
    Reply {
        /// Round-trip time.
        rtt: Duration,
    },
    /// It did not, or the network said that it cannot.
    Lost,
    /// The probe could not be sent for a reason that lies in this host, not in the link.
    Blind,
}

/// A fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A probe ended.
    Probe {
        /// The uplink it left by.
        uplink: UplinkId,
        /// Its family.
        family: Family,
        /// Its round; grows by one from round to round of one uplink and family.
        round: u64,
        /// When the round was sent.
        sent: Time,
        /// Whom it asked.
        target: TargetId,
        /// How it ended.
        outcome: Outcome,
    },
    /// The carrier of an uplink came or went (an interface that is set down or removed has none).
    Carrier {
        /// Which uplink.
        uplink: UplinkId,
        /// Whether it has carrier now.
        up: bool,
    },
    /// An uplink got or lost the means (address, way out) to carry a family's traffic.
    Usable {
        /// Which uplink.
        uplink: UplinkId,
        /// Which family.
        family: Family,
        /// Whether it can carry it now.
        usable: bool,
    },
    /// The answer to an [`Action::Switch`].
    Switched {
        /// The family of the switch.
        family: Family,
        /// Its destination.
        to: UplinkId,
        /// Whether the new route stands and was confirmed. If not, the machine tries again after a while, as long as its reason lasts.
        confirmed: bool,
    },
}

/// Why a switch happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The start-up check chose the first active uplink.
    Startup,
    /// The active uplink is Down.
    Failover,
    /// A more preferred uplink is Up again.
    Failback,
    /// The family has no targets of its own and does what the other one did.
    Follow,
    /// Somebody wanted it.
    Manual,
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Cause::Startup => "start-up",
            Cause::Failover => "failover",
            Cause::Failback => "failback",
            Cause::Follow => "follow",
            Cause::Manual => "manual",
        })
    }
}

/// What should be done, or should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make `to` the active uplink of `family`: routes first, then gates. Must be answered with [`Input::Switched`].
    Switch {
        /// Which family.
        family: Family,
        /// The active uplink until now, if there was one.
        from: Option<UplinkId>,
        /// The new one.
        to: UplinkId,
        /// Why.
        cause: Cause,
        /// When the fact came in that made the decision possible: the end of the round that made the old uplink Down, or the new one Up.
        detected: Time,
        /// When the decision fell.
        decided: Time,
    },
    /// End what is still going on by an uplink that is no longer active: close its gate, then see to connections.
    Cut {
        /// In which family.
        family: Family,
        /// Which uplink.
        uplink: UplinkId,
        /// Why it was left, in the end: [`Cause::Failback`] for a more preferred one while it worked (its drain is over), by
        /// hand too; never [`Cause::Follow`].
        cause: Cause,
    },
    /// Send a round now, out of turn.
    ProbeNow {
        /// By which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// Something that the log and the status should tell.
    Note(Note),
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A probe of one target failed while its uplink was not Down: the `failed`-th in a row for that target; `fall` bad rounds make the uplink Down.
    ProbeFailed {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// Which target.
        target: TargetId,
        /// Consecutive failures of this target.
        failed: u32,
        /// Failed rounds in a row that make the uplink Down.
        fall: u32,
    },
    /// Health changed.
    Health {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// What it was.
        from: Health,
        /// What it is.
        to: Health,
    },
    /// The active uplink is Down and nothing better is proven: nothing changes.
    NowhereToGo {
        /// In which family.
        family: Family,
        /// The active uplink, if there is one.
        active: Option<UplinkId>,
    },
    /// A more preferred uplink is Up but must stay good until `until` before the failback.
    Holding {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// When the failback is due.
        until: Time,
    },
    /// An uplink that was chosen by hand is Down: the ranks decide again.
    Released {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// A drill is over.
    DrillEnded {
        /// Which uplink.
        uplink: UplinkId,
        /// The family that has no other uplink any more, if that ended it before its time.
        alone: Option<Family>,
    },
}
