//! `cargo xtask build-and-run`.

use std::{ffi::OsString, process::ExitCode};

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
        let mut agent = privilege::as_root(build::agent(true)?)?;
        agent.args(agent_args);
        return privilege::become_program(agent);
    }
    setup::ensure(Scope::Laboratory)?;
    let agent = build::agent(true)?;
    let demo = build::lab_program("failover-demo", "failover-demo")?;
    let mut demo = privilege::in_laboratory(&demo)?;
    demo.arg("--agent").arg(agent);
    if json {
        demo.arg("--json");
    }
    privilege::become_program(demo)
}
