//! `cargo xtask`: from a fresh machine to a build, a demonstration, the tests and the benchmark.
//!
//! | file | concern |
//! |---|---|
//! | `survey.rs`, `setup.rs` | what is needed and what is there; the plan that brings what is missing |
//! | `toolchain.rs`, `linker.rs`, `packages.rs`, `daemons.rs` | finding and getting: the Rust toolchain, bpf-linker and LLVM, system packages, daemons that are not installed |
//! | `build.rs`, `run.rs`, `test.rs`, `bench.rs`, `inject.rs` | one verb each |
//! | `cargo.rs`, `privilege.rs`, `progress.rs` | running cargo, becoming root, showing progress |
//! | `kernels.rs`, `kernels/` | other kernels in virtual machines |
//! | `beside.rs`, `harness.rs`, `libtest.rs` | namespace tests one or several at a time, running test programs, reading what they print |

mod bench;
mod beside;
mod build;
mod cargo;
mod daemons;
mod harness;
mod inject;
mod kernels;
mod libtest;
mod linker;
mod packages;
mod privilege;
mod programs;
mod progress;
mod run;
mod setup;
mod survey;
mod test;
mod toolchain;

use std::{num::NonZero, process::ExitCode};

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
On a fresh Debian machine with rustup and a C compiler:
  cargo xtask setup                 get what the build and the tests need
  cargo xtask build-and-run         watch a failover and a failback in a laboratory on this machine
  cargo xtask build-and-run run --uplink eth0 --uplink wwan0 --target 1.1.1.1
  cargo xtask test                  formatting, lints, documentation, unit and namespace tests
  cargo xtask bench --json          the benchmark, as data
  cargo xtask kernels --kernel 6.1  tests on another kernel, in a virtual machine
  cargo xtask inject                let system calls of the agent fail, one at a time

Start it as yourself: it asks sudo for the steps that need root (packages, the agent, the
namespace tests, the benchmark, the fault injection) and never runs cargo through sudo.

Exit codes:
  0  done; for `setup --check`: nothing is missing
  1  a step or a test failed; for `setup --check`: something is missing
  2  wrong command line
  `build-and-run`, `bench` and `inject` end with the exit code of the program that they run.";

/// Set up, build, run, test and measure failover-agent
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Get what the build and the tests need: rust-src, bpf-linker with the right LLVM, network tools, daemons
    Setup {
        /// Change nothing: report what is there and what is missing
        #[arg(long)]
        check: bool,
    },
    /// Build the agent, with its eBPF programs inside
    Build {
        /// Optimized, into target/release
        #[arg(long)]
        release: bool,
    },
    /// Build in release and run the agent as root; without arguments, the laboratory demonstration
    BuildAndRun {
        /// The demonstration's result as JSON
        #[arg(long, conflicts_with = "agent")]
        json: bool,
        /// Arguments for failover-agent, e.g. `run --config FILE`
        #[arg(value_name = "AGENT ARGS", trailing_var_arg = true)]
        agent: Vec<std::ffi::OsString>,
    },
    /// Check formatting, lints and documentation, run all tests, end with the counts
    Test {
        /// Run only the tests whose name contains this as it is shown, e.g. `uplinks::waiting::a_host`, and none of the checks
        filter: Option<String>,
        /// Namespace tests at a time; with 2 on two cores all take a fifth less, but one that reads a log at once may fail
        #[arg(long, value_name = "N", default_value_t = NonZero::<usize>::MIN)]
        jobs: NonZero<usize>,
    },
    /// Run the tests that lean on the kernel on Debian's kernels 6.1 and 6.12, in virtual machines (slow)
    Kernels(kernels::KernelsArgs),
    /// Run the benchmark as root: each figure beside its goal
    Bench(bench::BenchArgs),
    /// Run the fault injection as root: each kind of the agent's system calls fails once, and the host must stay online
    #[command(disable_help_flag = true)]
    Inject {
        /// Arguments for the fault injection; --help names them
        #[arg(
            value_name = "ARGS",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        arguments: Vec<std::ffi::OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = privilege::refuse_root_cargo(cargo::workspace()).and_then(|()| match cli.verb {
        Verb::Setup { check: true } => setup::check(),
        Verb::Setup { check: false } => setup::setup(),
        Verb::Build { release } => build::build(release),
        Verb::BuildAndRun { json, agent } => run::build_and_run(json, &agent),
        Verb::Test { filter, jobs } => test::test(filter.as_deref(), jobs.get()),
        Verb::Kernels(options) => kernels::kernels(&options),
        Verb::Bench(options) => bench::bench(&options),
        Verb::Inject { arguments } => inject::inject(&arguments),
    });
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
