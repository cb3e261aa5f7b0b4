//! `cargo xtask inject`.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;

use crate::{build, privilege, setup, survey::Scope};

/// Builds in release, then becomes the fault injection with these arguments, whose meaning is its own. Returns only on failure.
///
/// # Errors
/// When the set-up or a build fails, or the program cannot be started as root.
pub(crate) fn inject(arguments: &[OsString]) -> Result<ExitCode> {
    setup::ensure(Scope::Laboratory)?;
    let inject = build::lab_program("failover-tests", "failover-inject")?;
    let agent = build::agent(true)?;
    let mut command = privilege::in_laboratory(&inject)?;
    command.arg("--agent").arg(agent).args(arguments);
    privilege::become_program(command)
}
