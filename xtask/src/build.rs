//! `cargo xtask build`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use crate::{cargo, setup, survey::Scope};

/// Sets up if needed, then does what `cargo build` does, and tells where the agent is.
///
/// # Errors
/// When the set-up or the build fails.
pub(crate) fn build(release: bool) -> Result<ExitCode> {
    setup::ensure(Scope::Build)?;
    println!("{}", agent(release)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the agent; returns its path.
///
/// # Errors
/// When the build fails.
pub(crate) fn agent(release: bool) -> Result<PathBuf> {
    let args = ["build", "--package", "failover-agent", "--release"];
    cargo::build_binary("failover-agent", &args[..if release { 4 } else { 3 }])
}

/// Builds a package's program for the laboratory in release; returns its path.
///
/// A build of its own rather than one with the agent's: one build for both packages would unite
/// their features, and the agent would not be the one that `cargo build --release` makes.
///
/// # Errors
/// When the build fails.
pub(crate) fn lab_program(package: &str, name: &str) -> Result<PathBuf> {
    cargo::build_binary(
        name,
        &["build", "--release", "--package", package, "--bin", name],
    )
}
