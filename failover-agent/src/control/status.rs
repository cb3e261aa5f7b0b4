//! The status model: what `status --json` prints. Its schema is documented in `docs/configuration.md`.
//!
//! Within one [`VERSION`] keys are only added: readers must ignore those that they do not know.

mod uplink;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use failover_policy::{Cause, Family};
use serde::{Deserialize, Serialize};

pub use self::uplink::{Counters, Families, FamilyState, Hook, Programs, Uplink, UplinkParts};
use super::words::{CauseWord, FamilyWord, rfc3339};

/// Version of the schema; grows when a key's meaning changes or a key goes away.
pub const VERSION: u32 = 1;

/// Most switches that a status tells of.
pub const MAX_SWITCHES: usize = 20;

/// Rounds over which loss is counted.
pub const LOSS_ROUNDS: usize = 60;

/// Everything that the agent knows at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// When this was true.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// The family that `active` and the uplinks' own fields describe: IPv4 if it is probed, else IPv6.
    #[serde(with = "FamilyWord")]
    pub primary: Family,
    /// Name of the uplink that carries new traffic of the primary family, of a balance group the [`joined`] names; null if there is none.
    pub active: Option<String>,
    /// In order of preference.
    pub uplinks: Vec<Uplink>,
    /// The last [`MAX_SWITCHES`] switches, newest first.
    pub switches: Vec<Switch>,
    /// Programs that undo again and again what the agent does.
    pub conflicts: Vec<Conflict>,
    /// Default routes of others, not on uplinks, that stand in front of the agent's or have a metric of them.
    #[serde(default)]
    pub foreign_defaults: Vec<ForeignDefault>,
    /// The deadline past which every gate counts as open.
    pub lease: Lease,
    /// Lines that the log does not have.
    pub log: Log,
    /// The agent itself.
    pub agent: Agent,
}

/// The names of uplinks that share new traffic, as one word; None: no uplink.
pub fn joined<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(str::to_owned)
        .reduce(|all, name| all + "," + &name)
}

/// One switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// When its reason was detected.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// Name of the active uplink until then, of a balance group the [`joined`] names; null if there was none.
    pub from: Option<String>,
    /// The new one, likewise.
    pub to: String,
    /// `start-up`, `failover`, `failback`, `follow` or `manual`.
    #[serde(with = "CauseWord")]
    pub cause: Cause,
    /// Whether the kernel confirmed the new route. If not, nothing else was changed.
    pub confirmed: bool,
    /// Sockets of this host that were ended; null: not looked at.
    pub sockets_ended: Option<u64>,
    /// Tracked flows that were deleted; null: not looked at.
    pub flows_deleted: Option<u64>,
    /// When each step was done.
    pub timeline: Timeline,
}

/// The steps of a switch in microseconds after its reason was detected; null for those that were not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The origin: always 0.
    pub detected_us: u64,
    /// The decision fell.
    pub decided_us: u64,
    /// The new route stood and was confirmed, the old one was demoted.
    pub routed_us: Option<u64>,
    /// The gates were set.
    pub gated_us: Option<u64>,
    /// Everything was cut that was left.
    pub cut_us: Option<u64>,
}

/// A program that undoes again and again what the agent does to routes or rules, which repairs it each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Its name, or its protocol number, or `an unknown program`.
    pub contender: String,
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// What it does, to follow its name.
    pub what: String,
    /// Repairs so far.
    pub repairs: u64,
    /// When the first of them was made.
    #[serde(with = "rfc3339")]
    pub since: SystemTime,
    /// What the user can do about it.
    pub remedy: String,
}

/// A default route of somebody else's that is not displaced, because its interface is no uplink or it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignDefault {
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// As `ip route` prints it.
    pub route: String,
    /// Whether it rejects or drops packets (`unreachable`, `prohibit`, `blackhole`, `throw`).
    pub rejects: bool,
    /// What it means for the agent's.
    pub effect: ForeignEffect,
    /// Whose default route it concerns; of a balance group the [`joined`] names.
    pub uplink: String,
    /// The metric that this one should have; null if it has it anyway.
    pub wanted_metric: Option<u32>,
    /// The metric that it has.
    pub metric: u32,
}

/// See [`ForeignDefault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForeignEffect {
    /// It decides about new traffic before the active uplink's does.
    InFront,
    /// It has the metric that an uplink's should have.
    SameMetric,
}

impl ForeignDefault {
    /// What it does, for the log and for whoever reads the status.
    pub fn words(&self) -> String {
        let ForeignDefault {
            family,
            route,
            uplink,
            metric,
            ..
        } = self;
        match (self.effect, self.wanted_metric) {
            (ForeignEffect::InFront, _) => {
                let effect = match self.rejects {
                    true => "which rejects or drops new traffic",
                    false => "and decides where new traffic leaves",
                };
                format!(
                    "{family}: `{route}` stands in front of {uplink}'s default route (metric {metric}), {effect}"
                )
            }
            (ForeignEffect::SameMetric, Some(wanted)) if wanted != *metric => format!(
                "{family}: `{route}` has the metric that {uplink}'s default route should have ({wanted}): this one has {metric} instead"
            ),
            (ForeignEffect::SameMetric, _) => format!(
                "{family}: `{route}` has the same metric as {uplink}'s default route, which stands in front of it"
            ),
        }
    }
}

/// The deadline past which every gate counts as open, because the agent must be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its length in milliseconds.
    pub duration_ms: u64,
    /// Milliseconds until it ends unless it is renewed; null while no gate was ever set.
    pub remaining_ms: Option<u64>,
}

/// Log lines that were not written, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Because standard error took them too slowly, or not at all.
    pub lost: u64,
    /// Because there were too many of their kind within a second.
    pub left_out: u64,
}

/// The agent itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Drawn anew at each start of the program, also at a `restart`, which keeps the process.
    pub instance: String,
    /// When it was started.
    #[serde(with = "rfc3339")]
    pub started: SystemTime,
    /// Whole seconds since then.
    pub uptime_s: u64,
    /// The file that it was configured from; null for flags.
    pub config: Option<PathBuf>,
}

impl Status {
    /// The uplink that carries new traffic of `family`.
    pub fn active_in(&self, family: Family) -> Option<&Uplink> {
        let mut uplinks = self.uplinks.iter();
        uplinks.find(|uplink| {
            let state = uplink.families.get(family);
            state.is_some_and(|state| state.active)
        })
    }
}

/// Milliseconds as the status writes them: with three decimals.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Seconds as the status writes them: with one decimal.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
