//! What can be wrong before anything is changed: each has one line with a cure, and an exit code of its own.

use std::{net::IpAddr, path::PathBuf};

use thiserror::Error;

/// An error that a user can cure. Its text names the thing, the place and the cure.
///
/// Every other error ends the program with exit code 1, a wrong command line with 2 (clap).
#[derive(Debug, Error)]
pub enum Failure {
    /// The configuration file cannot be read.
    #[error("cannot read {}: {source}: give the path of a readable file with --config", path.display())]
    ConfigUnreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Wrong syntax, key, type or value in the configuration file, or in a command-line flag.
    #[error("{place}: {problem}: {cure}")]
    ConfigInvalid {
        /// `file:line:column`, or the flag.
        place: String,
        /// What is wrong there.
        problem: String,
        /// What to write instead.
        cure: String,
    },
    /// An interface that does not exist.
    #[error("{place}: no interface `{interface}` here: {cure}")]
    UnknownInterface {
        /// Where it is named.
        place: String,
        /// Its name.
        interface: String,
        /// The interfaces that exist, or the nearest name.
        cure: String,
    },
    /// One interface named twice.
    #[error("{place}: interface `{interface}` is already an uplink: name each interface once")]
    InterfaceTwice {
        /// The second place.
        place: String,
        /// Its name.
        interface: String,
    },
    /// Fewer than two uplinks.
    #[error(
        "{place}: {count} uplink configured, at least 2 are needed: add another [[uplink]] or --uplink"
    )]
    TooFewUplinks {
        /// The file or the command line.
        place: String,
        /// How many there are.
        count: usize,
    },
    /// No gateway could be learned.
    #[error("uplink `{uplink}`: no {family} gateway found for {interface}: {cure}")]
    NoGateway {
        /// The uplink's name.
        uplink: String,
        /// Its interface.
        interface: String,
        /// The family that has targets but no way out.
        family: crate::policy::Family,
        /// What to write or do.
        cure: String,
    },
    /// An address that is none, or of the wrong family.
    #[error("{place}: `{text}` is not {expected}: {cure}")]
    BadAddress {
        /// Where it stands.
        place: String,
        /// What stands there.
        text: String,
        /// What is expected, e.g. "an IPv4 or IPv6 address".
        expected: String,
        /// What to write instead.
        cure: String,
    },
    /// No address to probe from.
    #[error(
        "uplink `{uplink}`: {interface} has no {family} address: configure one (for example by DHCP), or remove the {family} targets"
    )]
    NoSourceAddress {
        /// The uplink's name.
        uplink: String,
        /// Its interface.
        interface: String,
        /// The family that has targets but no address.
        family: crate::policy::Family,
    },
    /// A gateway that no prefix of its interface contains.
    #[error(
        "uplink `{uplink}`: gateway {gateway} is not on a network of {interface} ({networks}): correct `gateway`, or write \"auto\""
    )]
    GatewayOffLink {
        /// The uplink's name.
        uplink: String,
        /// Its interface.
        interface: String,
        /// The gateway as configured.
        gateway: IpAddr,
        /// The interface's prefixes.
        networks: String,
    },
    /// Not root, or a capability is missing.
    #[error(
        "missing capability {missing}: run as root, or grant it (systemd: AmbientCapabilities={missing}; container: --cap-add)"
    )]
    Privilege {
        /// The missing capabilities, separated by blanks.
        missing: String,
    },
    /// The BPF directory is not on a BPF file system.
    #[error("no BPF file system at {}: mount -t bpf bpf {}", path.display(), path.display())]
    NoBpfFs {
        /// Where one was expected.
        path: PathBuf,
    },
    /// Another agent is running with the same run directory.
    #[error("another agent is already running (process {pid}, {}): stop it, or give this one its own --run-dir, --bpf-dir and --state-dir", run_dir.display())]
    AlreadyRunning {
        /// Its process id as written in the lock file.
        pid: String,
        /// The run directory.
        run_dir: PathBuf,
    },
    /// The kernel lacks something.
    #[error("this kernel ({release}) has no {feature}: {cure}")]
    Kernel {
        /// Its release.
        release: String,
        /// What it lacks.
        feature: String,
        /// Which version or option has it.
        cure: String,
    },
    /// No agent answers on the control socket.
    #[error("no agent answers at {}: start one (failover-agent run), or give its --run-dir", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// A route metric that we need is taken by someone else.
    #[error(
        "route.{key} = {metric} is already the metric of `{route}`: choose another value for route.{key}"
    )]
    MetricTaken {
        /// `active_metric` or `standby_metric`.
        key: &'static str,
        /// The metric.
        metric: u32,
        /// The route that has it.
        route: String,
    },
}

impl Failure {
    /// The exit code, distinct for each kind; `docs/configuration.md` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::ConfigUnreadable { .. } => 10,
            Failure::ConfigInvalid { .. } => 11,
            Failure::UnknownInterface { .. } => 12,
            Failure::InterfaceTwice { .. } => 13,
            Failure::TooFewUplinks { .. } => 14,
            Failure::NoGateway { .. } => 15,
            Failure::BadAddress { .. } => 16,
            Failure::NoSourceAddress { .. } => 17,
            Failure::GatewayOffLink { .. } => 18,
            Failure::Privilege { .. } => 19,
            Failure::NoBpfFs { .. } => 20,
            Failure::AlreadyRunning { .. } => 21,
            Failure::Kernel { .. } => 22,
            Failure::NotRunning { .. } => 23,
            Failure::MetricTaken { .. } => 24,
        }
    }
}
