//! Becoming root for single commands.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{IsTerminal, stdin},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::geteuid;

use crate::programs::{self, find_program};

/// What a user sets for the program and not for sudo, which would remove it.
const KEPT: [&str; 5] = ["RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "COLUMNS", "CI"];

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A command that runs `program` as root: directly when we are root, else through sudo.
///
/// Sudo may ask for a password only where the user can answer, that is on a terminal.
///
/// # Errors
/// When we are not root and there is no sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    root_command(program.as_ref(), None)
}

/// The same for a program of the laboratory, which finds what is declared and nothing else.
///
/// # Errors
/// When we are not root and there is no sudo, or a declared program is missing.
pub(crate) fn in_laboratory(program: &Path) -> Result<Command> {
    root_command(program.as_os_str(), Some(&programs::laboratory_path()?))
}

/// `path`: what PATH is set to.
fn root_command(program: &OsStr, path: Option<&Path>) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        return Ok(command);
    }
    let sudo = find_program("sudo").with_context(|| {
        format!(
            "{} needs root, and there is no sudo: run this as root",
            program.display()
        )
    })?;
    let mut command = Command::new(sudo);
    if !stdin().is_terminal() {
        command.arg("--non-interactive");
    }
    command.arg("--").arg("env");
    let kept = KEPT.map(|name| Some((name, env::var_os(name)?)));
    // Sudo sets a PATH of its own.
    let path = path.map(|path| ("PATH", path.into()));
    for (name, value) in kept.into_iter().chain([path]).flatten() {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(value);
        command.arg(pair);
    }
    command.arg(program);
    Ok(command)
}

/// Why commands cannot be run as root without asking anybody; `None` when they can.
pub(crate) fn obstacle() -> Option<String> {
    if is_root() {
        return None;
    }
    let Some(sudo) = find_program("sudo") else {
        return Some("needs root: not root, and there is no sudo".into());
    };
    let works = Command::new(sudo)
        .args(["--non-interactive", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    (!works).then(|| {
        "needs root: not root, and `sudo -n` does not work (`sudo -v` first may help)".into()
    })
}

/// Runs a command in our place, so that it has the terminal, gets the signals itself
/// (Ctrl-C), and its exit code is ours. Returns only on failure.
pub(crate) fn become_program(mut command: Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(anyhow!(error)).with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Refuses to work for a user who started cargo itself through sudo: everything that it builds
/// would belong to root, and that person's next `cargo build` would fail.
///
/// # Errors
/// When we are root by sudo in a workspace of the person who called sudo.
pub(crate) fn refuse_root_cargo(workspace: &Path) -> Result<()> {
    let owner = workspace
        .metadata()
        .with_context(|| format!("cannot look at {}", workspace.display()))?
        .uid();
    let caller = env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    if is_root() && by_sudo(owner, caller) {
        bail!(
            "cargo was started through sudo: start it as yourself, it asks sudo for the steps that need root \
             (to get back what root just built: sudo chown -R {owner} target)"
        );
    }
    Ok(())
}

/// Whether root is here on behalf of the workspace's owner.
fn by_sudo(owner: u32, caller: Option<u32>) -> bool {
    owner != 0 && caller == Some(owner)
}

#[cfg(test)]
mod tests {
    use super::by_sudo;

    #[test]
    fn only_the_owner_behind_sudo_is_refused() {
        assert!(by_sudo(1000, Some(1000)));
        assert!(!by_sudo(0, Some(1000)), "root's own workspace");
        assert!(!by_sudo(1000, None), "a root login");
        assert!(!by_sudo(0, Some(0)), "root calling sudo");
    }
}
