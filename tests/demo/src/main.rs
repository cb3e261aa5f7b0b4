//! `cargo xtask build-and-run` without arguments: see [`failover_demo`].

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use failover_demo::Options;

const JSON: &str = "\
Keys of --json (times in milliseconds, after_us in microseconds):
  version   of this schema
  ok        whether failover and failback happened within their bounds
  error     why not, with the end of the agent's log; null when ok
  timeline  everything that happened, in order: t_ms since the start, event (its name), text (as shown to people), and the event's own keys
  summary   null when not ok
    failover, failback  detection_ms (fault or repair to decision), decision_to_route_ms, gates_ms (after the route),
                        decision_to_first_packet_ms, longest_gap_ms and lost (of host and client each), old_connection_ended_ms (of both), cut (by the closed gate)
    gap_split           of the host's longest gap at the failover: gap_ms = detection_ms + switch_ms + rest_ms, with shares in percent
    packets             of host and client: sent, answered, lost
    total_ms            duration of the whole demonstration";

/// Shows a real failover and failback, in a laboratory of network namespaces. Needs root; leaves nothing behind.
///
/// Exit code 0: failover and failback happened. 1: they did not, or could not be tried; the reason is on standard error. 130 or 143:
/// interrupted.
#[derive(Parser)]
#[command(name = "failover-demo", version, after_long_help = JSON)]
struct Cli {
    /// The agent's executable; by default the one beside this program
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// One JSON object on standard output at the end, and nothing else there; its keys are below
    #[arg(long)]
    json: bool,
    /// Break the second uplink before the first: no failover can happen, and the exit code is 1
    #[arg(long)]
    break_backup: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    failover_demo::main(&Options {
        agent: cli.agent,
        json: cli.json,
        break_backup: cli.break_backup,
    })
}
