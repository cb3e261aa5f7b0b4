//! What the scenarios share: an agent with a program to run, and what that program has left.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use failover_lab::{AgentConfig, AgentProcess, Lab, LogLine, wait_until};
use failover_tests::fixtures::{SOON, message, start_with};
use serde_json::Value;

/// Starts an agent that runs `program` after each switch for as long as `timeout`, and waits until it has chosen the first uplink.
pub(crate) fn start(lab: &Lab, program: &[&str], timeout: Duration) -> Result<AgentProcess> {
    start_with(lab, &config(lab, program, timeout))
}

pub(crate) fn config(lab: &Lab, program: &[&str], timeout: Duration) -> AgentConfig {
    let config = lab.agent_config().quick();
    config.on_switch(program).hook_timeout(timeout)
}

/// Longer than a program runs that ends by itself.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

/// Waits until a process has ended.
pub(crate) fn wait_gone(pid: &str) -> Result<()> {
    let pid = pid.trim();
    wait_until(&format!("process {pid} ends"), SOON, || !is_there(pid))
}

pub(crate) fn is_there(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    // A zombie has ended; another process waits for it.
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// What the log says of the program that runs after each switch.
pub(crate) fn said(log: &[LogLine]) -> Vec<String> {
    let lines = log.iter().filter(|line| {
        let hook = line.field("hook").and_then(Value::as_str);
        hook == Some("hooks.on_switch")
    });
    lines.map(|line| message(line).to_owned()).collect()
}
