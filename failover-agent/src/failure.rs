//! Errors that a user can cure: each has one line that names the cure, and an exit code of its own.

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
        /// Why it cannot be read.
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
        /// What to write: the nearest name, or the interfaces that exist.
        cure: String,
    },
    /// One interface named twice.
    #[error("{place}: interface `{interface}` is already an uplink: name each interface once")]
    InterfaceTwice {
        /// The place of the second mention.
        place: String,
        /// Its name.
        interface: String,
    },
    /// Fewer than two uplinks.
    #[error(
        "{place}: at least 2 uplinks are needed, configured: {count}: add another [[uplink]] or --uplink"
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
        /// The family that has targets but no egress path.
        family: failover_policy::Family,
        /// What to write or do.
        cure: String,
    },
    /// A text that is not an address, or not one of the right family.
    #[error("{place}: `{text}` is not {expected}: {cure}")]
    BadAddress {
        /// Where it stands.
        place: String,
        /// The text.
        text: String,
        /// What is expected, for example "an IPv4 or IPv6 address".
        expected: String,
        /// What to write instead.
        cure: String,
    },
    /// No address to probe from.
    #[error("uplink `{uplink}`: {interface} has no {missing}: {cure}")]
    NoSourceAddress {
        /// The uplink's name.
        uplink: String,
        /// Its interface.
        interface: String,
        /// What it lacks: any address of a family, or the one that is configured as its source.
        missing: String,
        /// What to do.
        cure: String,
    },
    /// An interface that belongs to a VRF.
    #[error(
        "uplink `{uplink}`: {interface} belongs to the VRF {vrf}, whose traffic is routed by a table of its own: the agent switches the main table's default route only: take {interface} out of it (ip link set dev {interface} nomaster), or name another interface"
    )]
    InVrf {
        /// The uplink's name.
        uplink: String,
        /// Its interface.
        interface: String,
        /// The VRF device.
        vrf: String,
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
        /// The gateway, as configured.
        gateway: IpAddr,
        /// The interface's prefixes.
        networks: String,
    },
    /// A target on an uplink's own link, which answers even if everything beyond the link is dead.
    #[error(
        "uplink `{uplink}`: target {target} is on {interface}'s own network {network} and proves nothing about the path beyond it: choose one beyond the gateway"
    )]
    TargetOnLink {
        /// The uplink's name.
        uplink: String,
        /// Its interface.
        interface: String,
        /// The target.
        target: IpAddr,
        /// The network on the link, or the gateway itself.
        network: String,
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
    /// Another agent is running with the same run directory, or in the same network namespace.
    #[error("another agent is already running (process {pid}, {}): {cure}", run_dir.display())]
    AlreadyRunning {
        /// Its process id, as written in the lock file.
        pid: String,
        /// Its run directory.
        run_dir: PathBuf,
        /// What to do to run this one.
        cure: &'static str,
    },
    /// The kernel lacks a feature.
    #[error("this kernel ({release}) has no {feature}: {cure}")]
    Kernel {
        /// Its release.
        release: String,
        /// The feature.
        feature: String,
        /// The kernel version or option that has it.
        cure: String,
    },
    /// The kernel refuses an eBPF program.
    #[error(
        "this kernel ({release}) refuses the eBPF program {program}: {words}: run a kernel that README.md lists as tested, and report this line"
    )]
    ProgramRefused {
        /// Its release.
        release: String,
        /// The program.
        program: &'static str,
        /// The error of the load and the verifier's last lines, in one line.
        words: String,
    },
    /// No agent answers on the control socket.
    #[error("no agent answers at {}: start one (failover-agent run), or give its --run-dir", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The run directory cannot be used.
    #[error("cannot write {}: {source}: run as root, or give a writable directory with --run-dir", path.display())]
    RunDir {
        /// The file or directory.
        path: PathBuf,
        /// Why it cannot be written.
        source: std::io::Error,
    },
    /// The agent refuses a command.
    #[error("refused: {reason}")]
    Refused {
        /// The reason, and what helps.
        reason: String,
    },
    /// A command names an uplink that the agent does not have.
    #[error("no uplink `{uplink}`: {cure}")]
    UnknownUplink {
        /// The name.
        uplink: String,
        /// The nearest name, or all names.
        cure: String,
    },
    /// The user may not use the control socket.
    #[error("not allowed to use {}: run as root, or as a member of the socket's group", socket.display())]
    ControlDenied {
        /// The socket.
        socket: PathBuf,
    },
    /// A stop or a reset could not restore or remove everything.
    #[error("not everything could be restored or removed: {}: remove the cause, then run failover-agent reset", problems.join("; "))]
    Leftover {
        /// What remains, and why.
        problems: Vec<String>,
    },
    /// The diagnosis has findings.
    #[error(
        "not well, {errors} errors and {warnings} warnings: apply the cures above, then run doctor again"
    )]
    Unwell {
        /// Findings that keep failover from working.
        errors: usize,
        /// Findings that impair it.
        warnings: usize,
    },
}

/// Every exit code and what it means, for `--help` and `docs/configuration.md`.
pub const EXIT_CODES: [(u8, &str); 26] = [
    (
        0,
        "success; after SIGTERM or SIGINT: everything is restored",
    ),
    (1, "any other error"),
    (2, "wrong command line"),
    (10, "configuration file cannot be read"),
    (11, "wrong syntax, key, type or value in the configuration"),
    (12, "no such interface"),
    (13, "one interface configured twice"),
    (14, "fewer than two uplinks"),
    (15, "no gateway found"),
    (16, "not an address, or of the wrong family"),
    (17, "an interface has no address to probe from"),
    (18, "a gateway is not on a network of its interface"),
    (19, "not root, or a missing capability"),
    (20, "no BPF file system"),
    (21, "another agent is already running"),
    (22, "the kernel lacks a feature"),
    (23, "no agent answers on the control socket"),
    (25, "the run directory cannot be written"),
    (26, "not allowed to use the control socket"),
    (27, "the agent refuses a command"),
    (28, "no such uplink"),
    (29, "doctor has found errors or warnings"),
    (30, "a target is on an uplink's own network"),
    (31, "the kernel refuses an eBPF program"),
    (32, "an uplink's interface is in a VRF"),
    (
        33,
        "a stop or a reset could not restore or remove everything: the last line names what remains, and why",
    ),
];

impl Failure {
    /// The exit code, distinct for each kind; [`EXIT_CODES`] lists their meanings.
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
            Failure::RunDir { .. } => 25,
            Failure::ControlDenied { .. } => 26,
            Failure::Refused { .. } => 27,
            Failure::UnknownUplink { .. } => 28,
            Failure::Unwell { .. } => 29,
            Failure::TargetOnLink { .. } => 30,
            Failure::InVrf { .. } => 32,
            Failure::ProgramRefused { .. } => 31,
            Failure::Leftover { .. } => 33,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use failover_policy::Family;

    /// One of each kind. `exit_code` has no wildcard arm, so a new kind is at least noticed there.
    fn one_of_each() -> Vec<Failure> {
        let text = || "x".to_owned();
        let path = || PathBuf::from("/x");
        let error = || std::io::Error::from(std::io::ErrorKind::NotFound);
        vec![
            Failure::ConfigUnreadable {
                path: path(),
                source: error(),
            },
            Failure::ConfigInvalid {
                place: text(),
                problem: text(),
                cure: text(),
            },
            Failure::UnknownInterface {
                place: text(),
                interface: text(),
                cure: text(),
            },
            Failure::InterfaceTwice {
                place: text(),
                interface: text(),
            },
            Failure::TooFewUplinks {
                place: text(),
                count: 1,
            },
            Failure::NoGateway {
                uplink: text(),
                interface: text(),
                family: Family::V4,
                cure: text(),
            },
            Failure::BadAddress {
                place: text(),
                text: text(),
                expected: text(),
                cure: text(),
            },
            Failure::NoSourceAddress {
                uplink: text(),
                interface: text(),
                missing: text(),
                cure: text(),
            },
            Failure::GatewayOffLink {
                uplink: text(),
                interface: text(),
                gateway: IpAddr::from([192, 0, 2, 1]),
                networks: text(),
            },
            Failure::Privilege { missing: text() },
            Failure::NoBpfFs { path: path() },
            Failure::AlreadyRunning {
                pid: text(),
                run_dir: path(),
                cure: "x",
            },
            Failure::Kernel {
                release: text(),
                feature: text(),
                cure: text(),
            },
            Failure::NotRunning { socket: path() },
            Failure::RunDir {
                path: path(),
                source: error(),
            },
            Failure::ControlDenied { socket: path() },
            Failure::Refused { reason: text() },
            Failure::UnknownUplink {
                uplink: text(),
                cure: text(),
            },
            Failure::Unwell {
                errors: 1,
                warnings: 2,
            },
            Failure::InVrf {
                uplink: text(),
                interface: text(),
                vrf: text(),
            },
            Failure::Leftover {
                problems: vec![text()],
            },
            Failure::TargetOnLink {
                uplink: text(),
                interface: text(),
                target: IpAddr::from([192, 0, 2, 1]),
                network: text(),
            },
            Failure::ProgramRefused {
                release: text(),
                program: "uplink_egress",
                words: text(),
            },
        ]
    }

    #[test]
    fn every_failure_has_a_listed_exit_code_of_its_own_and_one_line() {
        let mut codes: Vec<u8> = one_of_each().iter().map(Failure::exit_code).collect();
        codes.extend([0, 1, 2]);
        codes.sort_unstable();
        let listed: Vec<u8> = EXIT_CODES.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, listed);
        for failure in one_of_each() {
            let text = failure.to_string();
            assert!(!text.contains('\n'), "{text}");
            assert!(text.contains(": "), "no cure in: {text}");
        }
    }
}
