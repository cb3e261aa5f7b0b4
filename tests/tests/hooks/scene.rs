//! What the scenarios share: an agent with a program to run, and what that program has left.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use failover_tests::lab::{AgentProcess, Lab, LogLine, wait_for, wait_until};
use serde_json::Value;

/// Long enough for everything that is to happen, even on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Decides quickly, and still does not take a busy machine for a dead uplink. IPv6 has no targets and follows.
const PROBE: &str =
    "targets = [\"192.0.2.1\"]\ninterval = \"50ms\"\ntimeout = \"400ms\"\nfall = 3\nrise = 2";

/// Starts an agent that runs `program` after each switch for as long as `timeout`, and waits until it has chosen the first uplink.
pub(crate) fn start(lab: &Lab, program: &[&str], timeout: &str) -> Result<AgentProcess> {
    let agent = lab.start_agent(&config(lab, program, timeout))?;
    wait_active(&agent, lab.uplinks()[0].name())?;
    Ok(agent)
}

pub(crate) fn config(lab: &Lab, program: &[&str], timeout: &str) -> String {
    let hooks = format!("[hooks]\non_switch = {program:?}\ntimeout = {timeout:?}");
    lab.config(&format!("{PROBE}\n{hooks}"))
}

/// Writes a shell script that finds its directory as `$DIR` and makes it executable.
pub(crate) fn script(lab: &Lab, text: &str) -> Result<PathBuf> {
    let dir = &lab.agent_dirs().scratch;
    let path = dir.join("on-switch");
    fs::write(
        &path,
        format!("#!/bin/sh -e\nDIR={}\n{text}\n", dir.display()),
    )?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Waits until `uplink` is active in both families.
pub(crate) fn wait_active(agent: &AgentProcess, uplink: &str) -> Result<Value> {
    agent.wait_for_status(&format!("{uplink} as the active one"), SOON, |status| {
        let uplinks = status["uplinks"].as_array().into_iter().flatten();
        status["active"] == uplink
            && uplinks.into_iter().all(|other| {
                ["ipv4", "ipv6"].iter().all(|family| {
                    let state = &other["families"][family];
                    (state["gate"] == "open") == (other["name"] == uplink)
                })
            })
    })
}

/// Waits until a file in the laboratory's directory fulfils a condition.
pub(crate) fn wait_for_file(
    lab: &Lab,
    name: &str,
    condition: impl Fn(&str) -> bool,
) -> Result<String> {
    let path = lab.agent_dirs().scratch.join(name);
    wait_for(&format!("{name} is as it should be"), SOON, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        if condition(&text) {
            Ok(text)
        } else {
            Err(text)
        }
    })
}

/// Waits until a process has ended.
pub(crate) fn wait_gone(pid: &str) -> Result<()> {
    let pid = pid.trim();
    wait_until(&format!("process {pid} ends"), SOON, || !is_there(pid))
}

pub(crate) fn is_there(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    // A zombie has ended; somebody else waits for it.
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// What the log says of the program that runs after each switch.
pub(crate) fn said(log: &[LogLine]) -> Vec<String> {
    let lines = log.iter().filter(|line| {
        let hook = line.field("hook").and_then(Value::as_str);
        hook == Some("hooks.on_switch")
    });
    lines.filter_map(message).collect()
}

pub(crate) fn message(line: &LogLine) -> Option<String> {
    Some(line.field("message")?.as_str()?.to_owned())
}
