//! `cargo xtask bench`.

use std::{ffi::OsStr, process::ExitCode};

use anyhow::Result;

use crate::{build, privilege, setup, survey::Scope};

/// Builds in release, then becomes the benchmark. Returns only on failure.
///
/// # Errors
/// When the set-up or a build fails, or the program cannot be started as root.
pub(crate) fn bench(json: bool, figures: &[String]) -> Result<ExitCode> {
    setup::ensure(Scope::Everything)?;
    let agent = build::agent(true)?;
    let bench = build::lab_program("failover-bench")?;
    let mut args = vec![OsStr::new("--agent"), agent.as_os_str()];
    if json {
        args.push(OsStr::new("--json"));
    }
    args.extend(figures.iter().map(OsStr::new));
    privilege::become_root_program(&bench, args)
}
