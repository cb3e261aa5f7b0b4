//! What the scenarios share.

use std::fs;

use anyhow::Result;
use failover_lab::{AgentProcess, Fault, Lab, LogLine, Uplink, wait_for};
pub(crate) use failover_policy::Family;
pub(crate) use failover_tests::fixtures::{SOON, history, json::uplink, script, text, times};
use serde_json::Value;

/// Waits until `active` is so, all uplinks are Up but those that are `lost`, and all gates but the active one's are closed.
pub(crate) fn wait_active(agent: &AgentProcess, active: &str, lost: &[&str]) -> Result<Value> {
    let what = format!("{active} active, all Up but {lost:?}");
    agent.wait_for_status(&what, SOON, |status| {
        let uplinks = status["uplinks"].as_array().into_iter().flatten();
        status["active"] == active
            && uplinks.into_iter().all(|uplink| {
                let name = uplink["name"].as_str().unwrap_or_default();
                let gate = if name == active { "open" } else { "closed" };
                lost.contains(&name) || (uplink["health"] == "Up" && uplink["gate"] == gate)
            })
    })
}

/// Waits until an uplink has this health, and returns its part of the status.
pub(crate) fn wait_health(agent: &AgentProcess, name: &str, health: &str) -> Result<Value> {
    let status = agent.wait_for_status(&format!("{name} {health}"), SOON, |status| {
        uplink(status, name)["health"] == health
    })?;
    Ok(uplink(&status, name).clone())
}

/// Whether a line tells of a confirmed switch.
pub(crate) fn is_switch(line: &LogLine, family: &str) -> bool {
    line.field("routed_us").is_some() && text(line, "family") == family
}

/// The lines that a script has left in a file of the laboratory's directory.
pub(crate) fn written(lab: &Lab, name: &str) -> Vec<String> {
    let text = fs::read_to_string(lab.agent_dirs().scratch.join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits until there are so many of them.
pub(crate) fn wait_written(lab: &Lab, name: &str, lines: usize) -> Result<Vec<String>> {
    wait_for(&format!("{lines} lines in {name}"), SOON, || {
        let written = written(lab, name);
        match written.len() >= lines {
            true => Ok(written),
            false => Err(format!("{written:?}")),
        }
    })
}

/// A firewall on the host that drops what it sends to this address.
pub(crate) fn block(lab: &Lab, target: &str) -> Result<()> {
    lab.host().namespace().nft(&format!(
        "table inet block {{\n\
             chain out {{\n\
             type filter hook output priority filter\n\
             ip daddr {target} icmp type echo-request drop\n\
             }}\n\
         }}"
    ))
}

/// It is gone.
pub(crate) fn unblock(lab: &Lab) -> Result<()> {
    lab.host().namespace().nft("delete table inet block")
}

/// Lets nothing of one family pass to these targets by an uplink.
pub(crate) fn blackhole<T: Copy + Into<std::net::IpAddr>>(
    uplink: &Uplink,
    targets: &[T],
) -> Result<Vec<Fault>> {
    let faults = targets.iter().map(|target| (*target).into());
    faults
        .map(|target| uplink.towards(target).blackhole())
        .collect()
}
