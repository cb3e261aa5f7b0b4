//! `cargo xtask bench`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{build, privilege, setup, survey::Scope};

/// What is to be measured, and how it is shown.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// One JSON object by figure name
    #[arg(long)]
    json: bool,
    /// Fewer repeats: shows that everything works, not how good it is
    #[arg(long)]
    quick: bool,
    /// Name the figures, and measure nothing
    #[arg(long)]
    list: bool,
    /// Figures to measure; default: all
    figure: Vec<String>,
}

/// Builds in release, then becomes the benchmark. Returns only on failure, or with the list of figures.
///
/// # Errors
/// When the set-up or a build fails, or the program cannot be started as root.
pub(crate) fn bench(options: &BenchArgs) -> Result<ExitCode> {
    setup::ensure(Scope::Laboratory)?;
    let bench = build::lab_program("failover-bench", "failover-bench")?;
    if options.list {
        let status = Command::new(&bench).arg("--list").status();
        let status = status.with_context(|| format!("cannot start {}", bench.display()))?;
        ensure!(status.success(), "{} --list: {status}", bench.display());
        return Ok(ExitCode::SUCCESS);
    }
    let agent = build::agent(true)?;
    let mut command = privilege::in_laboratory(&bench)?;
    command.arg("--agent").arg(agent);
    for (wanted, flag) in [(options.json, "--json"), (options.quick, "--quick")] {
        if wanted {
            command.arg(flag);
        }
    }
    command.args(&options.figure);
    privilege::become_program(command)
}
