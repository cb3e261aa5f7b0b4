//! TOML and flags become one validated [`Config`]. Errors name file, line and column, and the nearest valid key.
//!
//! `schema` lists every key. `file` and `flags` read the written values into a `draft`, one by one; `check` compares the values with each
//! other, and the draft becomes the [`Config`]. A configuration prints as a file that reads as the same configuration again.

mod address;
mod allow;
mod check;
mod draft;
mod file;
mod flags;
mod key;
mod kind;
mod origin;
mod probe_keys;
mod raw;
mod reference;
mod render;
mod schema;
#[cfg(test)]
mod tests;
mod uplink_keys;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use failover_policy::Cause;
use ipnet::IpNet;
pub use origin::Origin;
pub use reference::reference;

use crate::{
    cli::{DirFlags, RunArgs, UplinkFlags},
    failure::Failure,
};

/// The validated configuration of a run. Built from a file or from flags; no other code reads configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The uplinks in order of preference (by rank, then as they were written), at least two.
    pub uplinks: Vec<UplinkConfig>,
    /// Metrics, protocol and tables.
    pub route: RouteConfig,
    /// What a closed gate does.
    pub cutoff: CutoffConfig,
    /// How the programs are attached.
    pub datapath: DatapathConfig,
    /// The user's programs.
    pub hooks: HooksConfig,
    /// Where the agent keeps its files.
    pub dirs: Dirs,
}

impl Config {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    ///
    /// The first error, with `file:line:column`.
    pub fn from_file(path: &Path) -> Result<Config, Failure> {
        file::read(path)?.finish()
    }

    /// Validates the flags that replace a file.
    ///
    /// # Errors
    ///
    /// The first error, with the flag.
    pub fn from_flags(flags: &UplinkFlags) -> Result<Config, Failure> {
        flags::read(flags)?.finish()
    }

    /// The configuration of `run`: from a file or flags, with the directories that flags override.
    ///
    /// # Errors
    ///
    /// As for [`Config::from_file`] and [`Config::from_flags`].
    pub fn from_args(args: &RunArgs, dirs: &DirFlags) -> Result<Config, Failure> {
        let mut config = match &args.config {
            Some(path) => Config::from_file(path)?,
            None => Config::from_flags(&args.flags)?,
        };
        config.dirs = config.dirs.overridden(dirs)?;
        Ok(config)
    }
}

/// The candidate nearest to a mistyped `word`, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
            (distance, candidate)
        })
        .min()
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len().min(word.len()) / 3))
        .map(|(_, candidate)| candidate)
}

/// One uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Interface name.
    pub interface: String,
    /// Name in logs and status; the interface's by default.
    pub name: String,
    /// IPv4 gateway.
    pub gateway: Gateway,
    /// IPv6 gateway.
    pub gateway6: Gateway,
    /// Source address of IPv4 probes, which the uplink's default route prefers; `None`: the agent chooses.
    pub source: Option<IpAddr>,
    /// The same for IPv6.
    pub source6: Option<IpAddr>,
    /// Whether traffic on it costs money (shown in the status).
    pub metered: bool,
    /// How long old connections may go on using it after a failback.
    pub drain: Duration,
    /// What happens to connections that came in by it while it is a standby.
    pub inbound: Inbound,
    /// Order of preference, the lowest first. Uplinks of equal rank are a balance group.
    pub rank: u32,
    /// Share of a balance group's new connections.
    pub weight: u32,
    /// Metric of its default route, if it has one of its own.
    pub metric: Option<u32>,
    /// Program and arguments that bring it back; empty: no program.
    pub recover: Vec<String>,
    /// Least time between two runs of `recover`.
    pub recover_interval: Duration,
    /// How it is probed.
    pub probe: ProbeConfig,
    /// `file:line:column` or flag where it was configured, for errors found later.
    pub place: String,
}

impl UplinkConfig {
    /// Whether both have the same settings, wherever they were written and whatever their ranks.
    pub fn means_the_same(&self, other: &UplinkConfig) -> bool {
        let place = other.place.clone();
        UplinkConfig {
            place,
            rank: other.rank,
            ..self.clone()
        } == *other
    }
}

/// The source of an uplink's egress path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// Learned from the routing table.
    Auto,
    /// Configured.
    Address(IpAddr),
    /// There is none: a point-to-point link.
    None,
}

/// How an uplink is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// The targets of its probes.
    pub targets: Vec<IpAddr>,
    /// Time from one round to the next.
    pub interval: Duration,
    /// How long a probe waits for its answer; may be longer than the interval.
    pub timeout: Duration,
    /// Bad rounds in a row to become Down.
    pub fall: u32,
    /// Good rounds in a row to become Up.
    pub rise: u32,
    /// Targets that must answer for a round to be good; at most the number of targets of each family that has any.
    pub quorum: u32,
    /// How long it must have been good without interruption before a failback to it.
    pub hold: Duration,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        ProbeConfig {
            targets: vec![
                Ipv4Addr::new(1, 1, 1, 1).into(),
                Ipv4Addr::new(8, 8, 8, 8).into(),
                Ipv4Addr::new(9, 9, 9, 9).into(),
            ],
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 4,
            quorum: 1,
            hold: Duration::ZERO,
        }
    }
}

/// Metrics, protocol, tables, rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Metric of the active uplink's default route.
    pub active_metric: u32,
    /// Metric of the standbys' default routes, plus position.
    pub standby_metric: u32,
    /// Route protocol number of all our routes.
    pub protocol: u8,
    /// Number of the first uplink's own routing table; the others follow.
    pub table: u32,
    /// Priority of the first of our rules.
    pub rule_priority: u32,
    /// `SO_MARK` of the probes.
    pub mark: u32,
    /// What happens to the default route of a Down uplink.
    pub on_down: OnDown,
}

impl Default for RouteConfig {
    fn default() -> Self {
        RouteConfig {
            active_metric: 80,
            standby_metric: 5000,
            protocol: 136,
            table: 13600,
            rule_priority: 13600,
            mark: 0xfa11,
            on_down: OnDown::Demote,
        }
    }
}

/// What happens to the default route of an uplink that is Down while another one is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    /// It stands behind the others.
    Demote,
    /// It is removed until the uplink is Up again.
    Withdraw,
}

/// The user's programs, run when something has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HooksConfig {
    /// Program and arguments to run after each switch; empty: no program.
    pub on_switch: Vec<String>,
    /// How long a program may run before it is ended.
    pub timeout: Duration,
}

impl Default for HooksConfig {
    fn default() -> Self {
        HooksConfig {
            on_switch: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// What happens to connections and packets of an uplink that is no longer to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutoffConfig {
    /// What a closed gate does.
    pub mode: CutoffMode,
    /// What it does after a failover and at the start, if different.
    pub failover: Option<CutoffMode>,
    /// What it does after a failback, if different.
    pub failback: Option<CutoffMode>,
    /// How long gates stay closed unless the agent renews the lease.
    pub lease: Duration,
    /// Prefixes that pass closed gates, without host bits.
    pub allow: Vec<IpNet>,
    /// Packet marks that pass closed gates; none of them 0, at most 8.
    pub allow_marks: Vec<u32>,
}

impl CutoffConfig {
    /// Whether anything is ever cut.
    pub fn cuts(&self) -> bool {
        [
            self.mode_for(Cause::Failover),
            self.mode_for(Cause::Failback),
        ]
        .iter()
        .any(|mode| *mode != CutoffMode::Off)
    }

    /// What a gate does that was closed for `cause`, which is [`Cause::Failback`] or another.
    pub fn mode_for(&self, cause: Cause) -> CutoffMode {
        let own = match cause {
            Cause::Failback => self.failback,
            _ => self.failover,
        };
        own.unwrap_or(self.mode)
    }
}

impl Default for CutoffConfig {
    fn default() -> Self {
        CutoffConfig {
            mode: CutoffMode::Reset,
            failover: None,
            failback: None,
            lease: Duration::from_secs(3),
            allow: Vec::new(),
            allow_marks: Vec::new(),
        }
    }
}

/// What a closed gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutoffMode {
    /// Packets are answered: TCP with a reset, the rest with ICMP.
    Reset,
    /// Packets are dropped silently.
    Drop,
    /// It is never closed.
    Off,
}

/// What happens to connections that came in by a standby uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// The closed gate spares them.
    Keep,
    /// They are cut like all others.
    Cut,
}

/// How the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatapathConfig {
    /// By TCX, by clsact, or by whichever works.
    pub attach: AttachMode,
}

impl Default for DatapathConfig {
    fn default() -> Self {
        DatapathConfig {
            attach: AttachMode::Auto,
        }
    }
}

/// How the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX where the kernel has it, else clsact.
    Auto,
    /// TCX only.
    Tcx,
    /// clsact only.
    Clsact,
}

/// Where the agent keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Lock, control socket, and what is valid until the next boot (displaced routes); default `/run/failover-agent`.
    pub run: PathBuf,
    /// Pinned maps and links; default `/sys/fs/bpf/failover-agent`.
    pub bpf: PathBuf,
    /// What outlives a boot (learned gateways); default `/var/lib/failover-agent`.
    pub state: PathBuf,
}

impl Default for Dirs {
    fn default() -> Self {
        Dirs {
            run: "/run/failover-agent".into(),
            bpf: "/sys/fs/bpf/failover-agent".into(),
            state: "/var/lib/failover-agent".into(),
        }
    }
}

impl Dirs {
    /// These directories, except those that flags override.
    ///
    /// # Errors
    ///
    /// A path that is too long, with the flag.
    pub fn overridden(mut self, flags: &DirFlags) -> Result<Dirs, Failure> {
        flags::override_dir(
            &mut self.run,
            &schema::RUN_DIR,
            "--run-dir",
            flags.run_dir.as_deref(),
        )?;
        flags::override_dir(
            &mut self.bpf,
            &schema::BPF_DIR,
            "--bpf-dir",
            flags.bpf_dir.as_deref(),
        )?;
        flags::override_dir(
            &mut self.state,
            &schema::STATE_DIR,
            "--state-dir",
            flags.state_dir.as_deref(),
        )?;
        Ok(self)
    }
}
