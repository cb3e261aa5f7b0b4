//! The status model: what `status --json` prints. Its schema is documented in `docs/configuration.md`.
//!
//! Within one [`VERSION`] keys are only added: readers must ignore keys that they do not know.

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

/// Version of the schema; grows when a key's meaning changes or a key is removed.
pub const VERSION: u32 = 1;

/// Greatest number of switches in a status.
pub const MAX_SWITCHES: usize = 20;

/// Rounds over which loss is counted.
pub const LOSS_ROUNDS: usize = 60;

/// Everything that the agent knows at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The moment of this status.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// The family that `active` and the uplinks' own fields describe: IPv4 if it is probed, else IPv6.
    #[serde(with = "FamilyWord")]
    pub primary: Family,
    /// Name of the uplink that carries new traffic of the primary family, for a balance group the [`joined`] names; null if there is none.
    pub active: Option<String>,
    /// The uplinks, in order of preference.
    pub uplinks: Vec<Uplink>,
    /// The last [`MAX_SWITCHES`] switches, newest first.
    pub switches: Vec<Switch>,
    /// Programs that repeatedly undo what the agent does.
    pub conflicts: Vec<Conflict>,
    /// Default routes of other programs, not on uplinks, that stand in front of the agent's or have a metric that the agent wanted.
    #[serde(default)]
    pub foreign_defaults: Vec<ForeignDefault>,
    /// The deadline past which every gate counts as open.
    pub lease: Lease,
    /// Log lines that were not written.
    pub log: Log,
    /// The agent itself.
    pub agent: Agent,
}

/// The names of uplinks that share new traffic, as one word; `None` if there are none.
pub fn joined<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(str::to_owned)
        .reduce(|all, name| all + "," + &name)
}

/// One switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// When the cause was detected.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// Name of the active uplink before, for a balance group the [`joined`] names; null if there was none.
    pub from: Option<String>,
    /// Name of the active uplink after, likewise.
    pub to: String,
    /// `start-up`, `failover`, `failback`, `follow` or `manual`.
    #[serde(with = "CauseWord")]
    pub cause: Cause,
    /// Whether the kernel confirmed the new route. If not, nothing else was changed.
    pub confirmed: bool,
    /// Sockets of this host that were ended; null if they were not searched.
    pub sockets_ended: Option<u64>,
    /// Tracked flows that were deleted; null if they were not searched.
    pub flows_deleted: Option<u64>,
    /// When each step was done.
    pub timeline: Timeline,
}

/// The steps of a switch, in microseconds after its cause was detected; null for a step that was not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The origin: always 0.
    pub detected_us: u64,
    /// When the decision was made.
    pub decided_us: u64,
    /// When the new route stood and was confirmed, and the old one was demoted.
    pub routed_us: Option<u64>,
    /// When the gates were set.
    pub gated_us: Option<u64>,
    /// When the connections left on other uplinks were ended.
    pub cut_us: Option<u64>,
}

/// A program that repeatedly undoes what the agent does to routes or rules, and that the agent repairs each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Its name, or its protocol number, or `an unknown program`.
    pub contender: String,
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// What the program does, to be read after its name.
    pub what: String,
    /// Repairs so far.
    pub repairs: u64,
    /// When the first of them was made.
    #[serde(with = "rfc3339")]
    pub since: SystemTime,
    /// What the user can do about it.
    pub remedy: String,
}

/// A default route of another program that is not displaced, because its interface is not an uplink or it has no interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignDefault {
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// As `ip route` prints it.
    pub route: String,
    /// Whether it rejects or drops packets (`unreachable`, `prohibit`, `blackhole`, `throw`).
    pub rejects: bool,
    /// Its effect on the agent's default route.
    pub effect: ForeignEffect,
    /// The uplink whose default route is affected; for a balance group the [`joined`] names.
    pub uplink: String,
    /// The metric that the agent's route should have; null if it has it anyway.
    pub wanted_metric: Option<u32>,
    /// The metric that the agent's route has.
    pub metric: u32,
}

/// See [`ForeignDefault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForeignEffect {
    /// It takes new traffic before the active uplink's route does.
    InFront,
    /// It has the metric that an uplink's route should have.
    SameMetric,
}

impl ForeignDefault {
    /// The effect in words, for the log and the status.
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
    /// Lost because the reader of standard error was too slow or gone.
    pub lost: u64,
    /// Left out because there were too many lines of their kind within a second.
    pub left_out: u64,
}

/// The agent itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// A random word that changes with each start of the program, also with a `restart`, which keeps the process.
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
    /// The uplink that carries new traffic of `family`; `None` if there is none.
    pub fn active_in(&self, family: Family) -> Option<&Uplink> {
        let mut uplinks = self.uplinks.iter();
        uplinks.find(|uplink| {
            let state = uplink.families.get(family);
            state.is_some_and(|state| state.active)
        })
    }
}

/// A duration in milliseconds, as the status writes it: with three decimals.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A duration in seconds, as the status writes it: with one decimal.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
