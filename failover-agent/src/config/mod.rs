//! TOML and flags become one validated [`Config`]. Errors name file, line and column, and the nearest valid key.

use std::{net::IpAddr, path::PathBuf, time::Duration};

/// Everything a run needs, validated. Built from a file or from flags; nothing else reads configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// In order of preference, at least two.
    pub uplinks: Vec<UplinkConfig>,
    /// Metrics, protocol and tables.
    pub route: RouteConfig,
    /// What a closed gate does.
    pub cutoff: CutoffConfig,
    /// How the programs are attached.
    pub datapath: DatapathConfig,
    /// Where the agent keeps its files.
    pub dirs: Dirs,
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
    /// Whether traffic on it costs money (shown in the status).
    pub metered: bool,
    /// How it is probed.
    pub probe: ProbeConfig,
    /// `file:line:column` or flag where it was configured, for errors found later.
    pub place: String,
}

/// Where an uplink's way out comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// Learned from the routing table.
    Auto,
    /// Given.
    Address(IpAddr),
    /// None: a point-to-point link.
    None,
}

/// How an uplink is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// Whom to ask.
    pub targets: Vec<IpAddr>,
    /// Time from round to round.
    pub interval: Duration,
    /// How long a probe waits; may be longer than the interval.
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

/// Metrics, protocol, tables, rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Metric of the active uplink's default route.
    pub active_metric: u32,
    /// Metric of the standbys' default routes, plus rank.
    pub standby_metric: u32,
    /// Route protocol number of everything that is ours.
    pub protocol: u8,
    /// Number of the first uplink's own routing table; the others follow.
    pub table: u32,
    /// Priority of the first of our rules.
    pub rule_priority: u32,
    /// `SO_MARK` of the probes.
    pub mark: u32,
}

/// What happens to packets at a closed gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutoffConfig {
    /// What a closed gate does.
    pub mode: CutoffMode,
    /// Time until which gates stay closed without news from the agent.
    pub lease: Duration,
}

/// What a closed gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutoffMode {
    /// Packets are dropped silently.
    Drop,
    /// Gates are never closed.
    Off,
}

/// How the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatapathConfig {
    /// TCX, clsact, or whichever works.
    pub attach: AttachMode,
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
    /// Lock and control socket; default `/run/failover-agent`.
    pub run: PathBuf,
    /// Pinned maps and links; default `/sys/fs/bpf/failover-agent`.
    pub bpf: PathBuf,
    /// What must outlive the process (displaced routes); default `/var/lib/failover-agent`.
    pub state: PathBuf,
}
