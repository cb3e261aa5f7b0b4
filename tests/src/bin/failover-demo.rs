//! `cargo xtask build-and-run` without arguments: see [`failover_tests::demo`].

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use failover_tests::demo::{self, Options};

/// Shows a real failover and failback, in a laboratory of network namespaces. Needs root; leaves nothing behind.
///
/// Exit code 0: failover and failback happened. 1: they did not, or could not be tried; the reason is on standard error. 130 or 143:
/// interrupted.
#[derive(Parser)]
#[command(name = "failover-demo", version)]
struct Cli {
    /// The agent's executable; by default the one beside this program
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// One JSON object on standard output at the end: version, ok, error, timeline (event, t_ms, text …), summary
    #[arg(long)]
    json: bool,
    /// Break the second uplink before the first: no failover can happen, and the exit code is 1
    #[arg(long)]
    break_backup: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    demo::main(&Options {
        agent: cli.agent,
        json: cli.json,
        break_backup: cli.break_backup,
    })
}
