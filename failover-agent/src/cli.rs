//! The command line, and nothing else: other modules decide what it means.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::failure::EXIT_CODES;

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "failover-agent",
    version,
    about = "Keeps this host or router online over several uplinks: probes all of them, switches to one that works, and ends the connections left on the others",
    after_help = begin(),
    after_long_help = begin_and_exit_codes(),
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Flags that every verb knows.
    #[command(flatten)]
    pub global: GlobalFlags,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Run the agent in the foreground until SIGTERM or Ctrl-C, then restore routes and rules
    #[command(override_usage = RUN_USAGE, after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Validate a configuration file and whether this host is ready for it, and print the effective configuration; needs no root and changes nothing
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Show what the running agent knows: the active uplink, health, loss, gates, counters, last switches, route conflicts
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Keep an uplink active as long as it is Up (a manual override), or let the ranks decide again
    #[command(after_help = SWITCH_EXAMPLES)]
    Switch(SwitchArgs),
    /// Treat an uplink as Down for a while, to see that traffic continues by another
    #[command(after_help = DRILL_EXAMPLES)]
    Drill(DrillArgs),
    /// Make the running agent apply its changed configuration file, as SIGHUP does; an invalid file changes nothing
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload,
    /// Restart the running agent, for example with a newer version of the program, and keep its routes and gates
    #[command(after_help = RESTART_EXAMPLES)]
    Restart,
    /// Show the flows that were ended last, and with --follow those that end from now on
    #[command(after_help = EVENTS_EXAMPLES)]
    Events(EventsArgs),
    /// Find out what keeps failover from working on this host, with a cure for each finding; changes nothing
    #[command(override_usage = DOCTOR_USAGE, after_help = DOCTOR_EXAMPLES)]
    Doctor(Box<DoctorArgs>),
    /// Remove every trace of an agent that did not stop cleanly: routes, rules, tables, pins, programs
    #[command(after_help = RESET_EXAMPLES)]
    Reset(ResetArgs),
}

const BEGIN: &str = "\
Begin with:
  failover-agent run --uplink eth0 --uplink wwan0
  failover-agent status";

const RUN_USAGE: &str = "\
failover-agent run --uplink IF --uplink IF [OPTIONS]
       failover-agent run --config FILE [GLOBAL OPTIONS]";

const RUN_EXAMPLES: &str = "\
Examples:
  Two uplinks, the first one preferred, gateways learned from the routing table:
    failover-agent run --uplink eth0 --uplink wwan0,metered

  Gateways given, own targets, down after 2 lost rounds of 500 ms:
    failover-agent run --uplink eth0,gateway=192.0.2.1 --uplink eth1,gateway=198.51.100.1 \\
        --target 1.1.1.1 --target 9.9.9.9 --interval 500ms --timeout 500ms --fall 2

  A point-to-point uplink without a gateway, with a name of its own:
    failover-agent run --uplink eth0 --uplink ppp0,gateway=none,name=lte

  Two that share new connections 3 to 1 (a balance group), and a backup:
    failover-agent run --uplink eth0,rank=0,weight=3 --uplink eth1,rank=0 --uplink wwan0,rank=1,metered

  Everything from a file:
    failover-agent run --config /etc/failover-agent.toml";

const CHECK_EXAMPLES: &str = "\
Examples:
  failover-agent check --config /etc/failover-agent.toml

  A file for another host:
    failover-agent check --config router2.toml --file-only

The output is itself a valid configuration file, with all defaults filled in.
`run` waits for interfaces, addresses and gateways that are missing; here they are errors.";

const STATUS_EXAMPLES: &str = "\
Examples:
  failover-agent status
  failover-agent status --json | jq -r .active
  failover-agent status --run-dir /run/second-agent";

const SWITCH_EXAMPLES: &str = "\
Examples:
  failover-agent switch lte
  failover-agent switch auto

An uplink that is not Up is refused. When the chosen uplink goes Down, the agent leaves it as usual and the override ends; `auto` also ends a drill.
The override survives a restart of the agent. A member of a balance group becomes active alone; `auto` restores the group.";

const DRILL_EXAMPLES: &str = "\
Examples:
  failover-agent drill cable --for 30s
  failover-agent drill cable --for 0s    (ends it)

Refused when no other uplink is Up, and ended as soon as none is. A drill survives a restart of the agent; a second one replaces it.";

const RELOAD_EXAMPLES: &str = "\
Examples:
  failover-agent check --config /etc/failover-agent.toml && failover-agent reload

Needs an agent that was started with --config. What did not change is not disturbed: an uplink keeps its probes, gates and counters when another one is added. [dirs], [datapath], and
`protocol`, `table`, `rule_priority` and `mark` of [route] cannot be reloaded: stop the agent and start it again to change them.";

const RESTART_EXAMPLES: &str = "\
Examples:
  failover-agent restart

The process and its arguments stay the same; the program is read from its file again. Health, active uplinks, manual
overrides, gates, counters and connections are kept; drains end. To stop the agent and restore the routes, end the process (SIGTERM).";

const EVENTS_EXAMPLES: &str = "\
Examples:
  failover-agent events
  failover-agent events --follow
  failover-agent events --follow --json | jq -r .event.uplink";

const DOCTOR_USAGE: &str = "\
failover-agent doctor [--json] [--config FILE]
       failover-agent doctor [--json] --uplink IF --uplink IF [OPTIONS]";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  failover-agent doctor    (with the file of the running agent)
  failover-agent doctor --config /etc/failover-agent.toml
  failover-agent doctor --uplink eth0 --uplink wwan0 --target 1.1.1.1
  failover-agent doctor --json | jq -r '.findings[].cure'

Needs root, but no running agent. Probes every target by every uplink and changes nothing. Exit code 29 if there are errors or
warnings.";

const RESET_EXAMPLES: &str = "\
Examples:
  failover-agent reset
  failover-agent reset --config /etc/failover-agent.toml    (if [route] or [dirs] are not the defaults)

Refused while an agent runs: stop it first.";

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct GlobalFlags {
    /// Log more: -v for details, -vv for everything; RUST_LOG wins if it is set
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Format of the log lines on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    /// Directories.
    #[command(flatten)]
    pub dirs: DirFlags,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people to read
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Directories that replace those of the file, so that several agents can run in several network namespaces.
#[derive(Args, Clone, Debug, Default)]
pub struct DirFlags {
    /// Directory of the lock and the control socket [default: /run/failover-agent]
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Directory of the pinned maps and links, on a BPF file system [default: /sys/fs/bpf/failover-agent]
    #[arg(long, global = true, value_name = "DIR")]
    pub bpf_dir: Option<PathBuf>,
    /// Directory of files that must outlive the agent [default: /var/lib/failover-agent]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// `run`: a file, or flags instead of one.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Read everything from this TOML file
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "UplinkFlags",
        required_unless_present = "uplink"
    )]
    pub config: Option<PathBuf>,
    /// Flags instead of a file.
    #[command(flatten)]
    pub flags: UplinkFlags,
}

/// The simple case: flags instead of a file. `config` reads their values by the same rules as those of a file.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(multiple = true)]
pub struct UplinkFlags {
    /// An uplink, most preferred first; give it at least twice. Options: gateway=ADDR|auto|none, gateway6=ADDR|auto|none, source=ADDR, source6=ADDR, name=NAME, metered, rank=N, weight=N, metric=N
    #[arg(long, value_name = "IF[,OPTION…]")]
    pub uplink: Vec<String>,
    /// An IPv4 or IPv6 address to probe, repeatable [default: 1.1.1.1, 8.8.8.8, 9.9.9.9]
    #[arg(long, value_name = "ADDR")]
    pub target: Vec<String>,
    /// Time from one round of probes to the next [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub interval: Option<String>,
    /// How long a probe waits for its answer [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Bad rounds in a row to become Down [default: 3]
    #[arg(long, value_name = "ROUNDS")]
    pub fall: Option<String>,
    /// Good rounds in a row to become Up [default: 4]
    #[arg(long, value_name = "ROUNDS")]
    pub rise: Option<String>,
    /// Targets that must answer for a round to be good [default: 1]
    #[arg(long, value_name = "TARGETS")]
    pub quorum: Option<String>,
    /// How long an uplink must have been good before a failback to it [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub hold: Option<String>,
    /// Metric of the active uplink's default route [default: 80]
    #[arg(long, value_name = "METRIC")]
    pub active_metric: Option<String>,
    /// Metric of the standbys' default routes, plus position [default: 5000]
    #[arg(long, value_name = "METRIC")]
    pub standby_metric: Option<String>,
    /// What a closed gate does: reset, drop or off [default: reset]
    #[arg(long, value_name = "MODE")]
    pub cutoff: Option<String>,
}

/// `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The TOML file to validate
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the file alone, not this host's interfaces, addresses and gateways
    #[arg(long)]
    pub file_only: bool,
}

/// `status`.
#[derive(Args, Clone, Copy, Debug)]
pub struct StatusArgs {
    /// Print the documented, versioned JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `switch`.
#[derive(Args, Clone, Debug)]
pub struct SwitchArgs {
    /// Name of the uplink, or `auto`
    #[arg(value_name = "UPLINK|auto")]
    pub uplink: String,
}

/// `drill`.
#[derive(Args, Clone, Debug)]
pub struct DrillArgs {
    /// Name of the uplink
    #[arg(value_name = "UPLINK")]
    pub uplink: String,
    /// How long, up to 24h; 0s ends a running drill
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Duration,
}

/// `events`.
#[derive(Args, Clone, Copy, Debug)]
pub struct EventsArgs {
    /// Also print new events as they occur, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The TOML file to examine this host for [default: that of the running agent]
    #[arg(long, value_name = "FILE", conflicts_with = "UplinkFlags")]
    pub config: Option<PathBuf>,
    /// Print the documented, versioned JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Flags instead of a file.
    #[command(flatten)]
    pub flags: UplinkFlags,
}

/// `reset`.
#[derive(Args, Clone, Debug)]
pub struct ResetArgs {
    /// The file that the agent ran with, if its tables `route` or `dirs` differ from the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

fn begin() -> String {
    format!(
        "{BEGIN}\n\n`failover-agent help VERB` shows examples for each verb, `failover-agent --help` the exit codes."
    )
}

fn begin_and_exit_codes() -> String {
    let lines = EXIT_CODES.map(|(code, meaning)| format!("  {code:>2}  {meaning}"));
    format!("{BEGIN}\n\nExit codes:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn clap_finds_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_and_file_exclude_each_other() {
        for flag in [
            "--uplink eth0",
            "--target 1.1.1.1",
            "--interval 1s",
            "--timeout 1s",
            "--fall 1",
            "--rise 1",
            "--quorum 1",
            "--hold 1s",
            "--active-metric 1",
            "--standby-metric 1",
            "--cutoff off",
        ] {
            let error = parse(&format!("failover-agent run --config x {flag}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{flag}");
        }
        let error = parse("failover-agent run").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn global_flags_stand_before_and_after_the_verb() {
        for line in [
            "failover-agent -vv --log-format json --run-dir /r status --json",
            "failover-agent status --json -vv --log-format json --run-dir /r",
        ] {
            let cli = parse(line).unwrap();
            assert!(matches!(cli.verb, Verb::Status(StatusArgs { json: true })));
            assert_eq!(cli.global.verbose, 2);
            assert_eq!(cli.global.log_format, LogFormat::Json);
            assert_eq!(cli.global.dirs.run_dir, Some("/r".into()));
        }
    }

    #[test]
    fn uplinks_keep_their_order() {
        let cli = parse("failover-agent run --uplink b --uplink a,metered --target ::1").unwrap();
        let Verb::Run(args) = cli.verb else {
            panic!("not run")
        };
        assert_eq!(args.flags.uplink, ["b", "a,metered"]);
        assert_eq!(args.flags.target, ["::1"]);
    }

    #[test]
    fn drill_needs_a_duration() {
        let Verb::Drill(args) = parse("failover-agent drill lte --for 1m").unwrap().verb else {
            panic!("not drill")
        };
        assert_eq!((args.uplink.as_str(), args.duration.as_secs()), ("lte", 60));
        for line in [
            "failover-agent drill lte",
            "failover-agent drill lte --for 30",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_teaches_exit_codes_and_examples() {
        let mut command = Cli::command();
        let help = command.render_long_help().to_string();
        for (code, meaning) in EXIT_CODES {
            assert!(help.contains(&format!("{code:>2}  {meaning}")), "{help}");
        }
        for verb in [
            "run", "check", "status", "switch", "drill", "events", "doctor", "reset",
        ] {
            let verb = command.find_subcommand_mut(verb).unwrap();
            let help = verb.render_help().to_string();
            assert!(help.contains("Examples:"), "{help}");
        }
    }
}
