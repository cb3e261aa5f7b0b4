//! The machine's configuration: given at the start, and again by a reload.

use core::time::Duration;

#[cfg(doc)]
use super::Action;
use super::{Health, PerFamily, PerUplink, Time, UplinkId, UplinkSet};

/// The settings of one uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkSettings {
    /// Order of preference: the lowest rank wins, uplinks of equal rank are a balance group. Must not decrease from one uplink to the next.
    pub rank: u32,
    /// Consecutive bad rounds that make it Down; at least 1.
    pub fall: u32,
    /// Consecutive good rounds that make it Up; at least 1.
    pub rise: u32,
    /// Targets that must answer for a round to be good, from 1 to the number of targets in the family.
    pub quorum: u32,
    /// How long it must have been good without interruption before a failback to it.
    pub hold: Duration,
    /// How long old connections may go on using it after it was left for a more preferred uplink.
    pub drain: Duration,
    /// Time from one round to the next.
    pub interval: Duration,
    /// How long a probe waits for its answer.
    pub timeout: Duration,
    /// Number of targets in each family.
    pub targets: PerFamily<u32>,
    /// Families in which the uplink can carry traffic (it has an address and an egress path).
    pub usable: PerFamily<bool>,
    /// Whether its interface exists and has carrier. Without carrier it starts as Down.
    pub carrier: bool,
    /// The health that an earlier run of the agent found. [`Health::Down`] makes it start as Down.
    pub earlier: PerFamily<Health>,
    /// Least time between two [`Action::Recover`]s; `None`: there is no recovery program.
    pub recover_interval: Option<Duration>,
}

impl UplinkSettings {
    /// The settings without the facts of the moment at which they were given, which the machine keeps up to date itself.
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

/// The configuration of the whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// The uplinks; at most [`MAX_UPLINKS`](super::MAX_UPLINKS).
    pub uplinks: PerUplink<UplinkSettings>,
    /// The uplinks that already carry new traffic: adopted from an earlier run of the agent.
    pub active: PerFamily<UplinkSet>,
    /// A drill that an earlier run of the agent started, and when it ends.
    pub drill: Option<(UplinkId, Time)>,
    /// The manual overrides that an earlier run left.
    pub manual_override: PerFamily<Option<UplinkId>>,
    /// Whether the default routes of an uplink that is Down are withdrawn ([`Action::Withdraw`]).
    pub withdraw: bool,
}
