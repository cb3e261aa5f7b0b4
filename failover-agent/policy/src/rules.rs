//! What the machine must know at the start, and again after a reload.

use core::time::Duration;

#[cfg(doc)]
use super::Action;
use super::{Health, PerFamily, PerUplink, Time, UplinkId, UplinkSet};

/// The rules for one uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkSettings {
    /// Order of preference: the lowest wins, uplinks of equal rank are a balance group. Does not decrease from one uplink to
    /// the next.
    pub rank: u32,
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
    /// Number of targets in each family.
    pub targets: PerFamily<u32>,
    /// Families in which the uplink can carry traffic (it has an address and an egress path).
    pub usable: PerFamily<bool>,
    /// Whether its interface exists and has carrier. Without, it starts as Down.
    pub carrier: bool,
    /// What an earlier run of the agent has found: what was [`Health::Down`] starts as Down.
    pub earlier: PerFamily<Health>,
    /// Least time between two [`Action::Recover`]s; `None`: there is no program for that.
    pub recover_interval: Option<Duration>,
}

impl UplinkSettings {
    /// The rules without the facts of the moment at which they were given: those are kept up to date elsewhere.
    pub(super) fn lasting(&self) -> Self {
        UplinkSettings {
            usable: PerFamily::both(true),
            carrier: true,
            earlier: PerFamily::both(Health::Unknown),
            ..self.clone()
        }
    }

    /// Number of targets in both families.
    pub(super) fn all_targets(&self) -> usize {
        self.targets.values().map(|count| *count as usize).sum()
    }
}

/// Everything that the machine must know at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// At most [`MAX_UPLINKS`](super::MAX_UPLINKS).
    pub uplinks: PerUplink<UplinkSettings>,
    /// The uplinks that carry new traffic already: adopted from an earlier run of the agent.
    pub active: PerFamily<UplinkSet>,
    /// A drill that an earlier run of the agent has begun, and its end.
    pub drill: Option<(UplinkId, Time)>,
    /// The manual overrides of an earlier run.
    pub manual_override: PerFamily<Option<UplinkId>>,
    /// Whether the default routes of an uplink that is Down are withdrawn ([`Action::Withdraw`]).
    pub withdraw: bool,
}
