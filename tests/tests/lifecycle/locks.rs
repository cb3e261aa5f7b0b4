//! One agent for each run directory and each network namespace, and nobody else may hold their locks.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use failover_lab::{Lab, Scenario, agent_path, wait_until};
use failover_tests::fixtures::{SOON, json::wait_active};

use super::fixtures::{Outcome, TIMEOUT, run, start};

/// Ends a program that a test has left running.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A user without rights tries to hold the lock on a file. `flock` ends at once where that user may not.
fn hold_as_nobody(path: &std::path::Path) -> Result<Held> {
    let command = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["flock", "--no-fork", "--shared"])
        .arg(path)
        .args(["sleep", "60"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Ok(Held(command.context("cannot run setpriv")?))
}

#[test]
#[ignore = "needs root"]
fn a_second_agent_in_the_namespace_is_refused() -> Scenario {
    let lab = Lab::builder().build()?;
    let mut first = start(&lab)?;
    let dirs = lab.agent_dirs();
    let (run_dir, other) = (&dirs.run, dirs.scratch.join("other"));
    let bpf = dirs.bpf.with_file_name("other");
    let path = lab.write_config(&lab.agent_config().quick())?;
    let second = |verb: &[&str]| -> Result<Outcome> {
        let mut command = lab.host().namespace().command("timeout");
        let command = command.args(TIMEOUT).arg(agent_path()?).args(verb);
        let command = command.arg("--run-dir").arg(other.join("run"));
        let command = command.arg("--state-dir").arg(other.join("state"));
        let output = command.arg("--bpf-dir").arg(&bpf).stdin(Stdio::null());
        Ok(output.output()?.into())
    };
    let path = path.to_string_lossy();
    let verbs: [&[&str]; 2] = [&["run", "--config", &path], &["reset"]];
    let refused = |pid: u32| -> Result<()> {
        for verb in verbs {
            let ended = second(verb)?;
            assert_eq!(ended.code, Some(21), "{verb:?}: {ended:?}");
            let other = format!("process {pid}, {}", run_dir.display());
            assert!(ended.stderr.contains(&other), "{verb:?}: {ended:?}");
            assert!(!bpf.exists(), "nothing was changed");
        }
        Ok(())
    };
    refused(first.pid())?;
    // The lock goes on while the program is restarted.
    first.verb(&["restart"])?;
    refused(first.pid())?;
    wait_active(&first, "cable")?;
    // What a killed one leaves locks nobody out.
    first.kill9()?;
    let reset = run(&lab, &["reset"])?;
    assert_eq!(reset.code, Some(0), "{reset:?}");
    let ended = second(&["reset"])?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "nothing to reset: no trace of an agent\n");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn no_other_user_can_keep_an_agent_from_starting() -> Scenario {
    let lab = Lab::builder().build()?;
    let dirs = lab.agent_dirs();
    let file = dirs.run.join("agent.lock");
    // As it was made once: everybody can open it, and lock it.
    fs::create_dir_all(&dirs.run)?;
    for dir in dirs.run.ancestors().take(2) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(&file, "4711\n")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let mut before = hold_as_nobody(&file)?;
    wait_until("another user holds the lock", SOON, || {
        let inode = fs::metadata(&file)
            .map(|file| file.ino())
            .unwrap_or_default();
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        locks.contains(&format!(":{inode} "))
    })?;
    let mut agent = start(&lab)?;
    assert!(before.0.try_wait()?.is_none(), "it still holds it");
    assert_eq!(fs::metadata(&file)?.mode() & 0o777, 0o600);
    // While the agent runs, and after a crash, there is nothing that it could wait for.
    let mut during = hold_as_nobody(&file)?;
    assert!(!during.0.wait()?.success());
    agent.kill9()?;
    let mut after = hold_as_nobody(&file)?;
    assert!(!after.0.wait()?.success());
    let agent = lab.start_agent(&lab.agent_config().quick())?;
    wait_active(&agent, "cable")?;
    Ok(())
}
