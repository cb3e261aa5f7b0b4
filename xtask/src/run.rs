//! `cargo xtask build-and-run`.

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use anyhow::Result;

use crate::{build, privilege, setup, survey::Scope};

/// Builds in release, then becomes the agent with these arguments, or without any the laboratory
/// demonstration. Returns only on failure.
///
/// # Errors
/// When the set-up or a build fails, or the program cannot be started as root.
pub(crate) fn build_and_run(json: bool, agent_args: &[OsString]) -> Result<ExitCode> {
    if !agent_args.is_empty() {
        setup::ensure(Scope::Build)?;
        return privilege::become_root_program(&build::agent(true)?, agent_args);
    }
    setup::ensure(Scope::Laboratory)?;
    let agent = build::agent(true)?;
    let demo = build::lab_program("failover-demo")?;
    let mut args = vec![OsStr::new("--agent"), agent.as_os_str()];
    if json {
        args.push(OsStr::new("--json"));
    }
    privilege::become_root_program(&demo, args)
}
