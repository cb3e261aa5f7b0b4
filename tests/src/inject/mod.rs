//! Fault injection: whatever call of the agent fails, the host stays online, the next failover works, and nothing is left in the end.
//!
//! A clean run of each phase tells which kinds of calls the agent makes in it. Then the phase is gone through again and again, and
//! each time one of these calls fails: the first of its kind or the last, with one of the errors that it is documented to have. A call
//! fails from outside, without the agent's help: ptrace follows the agent, seccomp stops it where it matters, and the system call is not
//! made (or five seconds later, or, for a netlink message, made so that the kernel itself refuses it).
//!
//! | file | concern |
//! |---|---|
//! | `sys.rs`, `tracer.rs`, `follow.rs`, `registers.rs` | following the process |
//! | `calls.rs`, `netlink.rs`, `bpf.rs`, `sockets.rs`, `places.rs` | which call it is |
//! | `kind.rs`, `watch.rs` | how it can fail, and whether it is to |
//! | `phase.rs`, `subject.rs`, `host.rs` | a phase in a laboratory, and what must be true afterwards |
//! | `gates.rs`, `state.rs`, `streams.rs` | gates beside routes, the agent's status, the host's own traffic |
//! | `plan.rs`, `run.rs`, `report.rs` | which calls are to fail, side by side, and the outcome |

mod bpf;
mod calls;
mod follow;
mod gates;
mod host;
mod kind;
mod netlink;
mod phase;
mod places;
mod plan;
mod registers;
mod report;
mod run;
mod sockets;
mod state;
mod streams;
mod subject;
mod sys;
mod tracer;
mod watch;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use failover_lab::agent_path;

use self::{
    phase::{Phase, Setting},
    plan::Whereabouts,
};

/// Let single system calls of failover-agent fail in a laboratory on this machine, and see whether it goes on
#[derive(Clone, Debug, Parser)]
#[command(
    name = "failover-inject",
    bin_name = "cargo xtask inject",
    max_term_width = 100,
    after_help = "Exit codes:\n  0  everything survived\n  1  something did not, or nothing could be tried\n  2  wrong command line"
)]
pub struct Arguments {
    /// The agent to try [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Only this phase; repeatable
    #[arg(long, value_enum)]
    phase: Vec<Phase>,
    /// Only this setting of the agent; repeatable
    #[arg(long, value_enum)]
    setting: Vec<Setting>,
    /// Only calls whose kind contains this
    #[arg(long, value_name = "TEXT")]
    kind: Option<String>,
    /// Only this error: ENOSPC, hang, …
    #[arg(long)]
    error: Option<String>,
    /// Only the injection of this name; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only so many injections, chosen at random
    #[arg(long, value_name = "COUNT")]
    sample: Option<usize>,
    /// Choose the same sample again
    #[arg(long, requires = "sample")]
    seed: Option<u64>,
    /// Laboratories side by side
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// An orderly end with an error is no survival either
    #[arg(long)]
    uninterrupted: bool,
    /// Name the calls and what would be injected, and inject nothing
    #[arg(long)]
    list: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Does what the command line says, and prints a report.
///
/// # Errors
/// Not root; when a clean run is not what it should be, or something does not survive.
pub fn run(mut arguments: Arguments) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root, for network namespaces, eBPF and ptrace: run `cargo xtask inject`, which asks sudo"
    );
    for name in &arguments.only {
        let Whereabouts(setting, phase) = name.parse()?;
        arguments.setting.push(setting);
        arguments.phase.push(phase);
    }
    let program = match arguments.agent.clone() {
        Some(program) => program,
        None => agent_path()?,
    };
    let report = run::run(&program, &arguments)?;
    if arguments.json {
        println!("{:#}", report.to_json());
    } else {
        print!("{}", report.render());
    }
    let failed = report.failed().count();
    if failed > 0 {
        bail!(
            "{failed} of {} injections were not survived",
            report.results.len()
        );
    }
    Ok(())
}
