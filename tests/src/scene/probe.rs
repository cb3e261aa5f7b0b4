//! Whom agents probe, and waiting for it.

use std::net::IpAddr;

use anyhow::Result;
use failover_agent::control::Status;
use failover_lab::{AgentProcess, TARGET_V4, TARGET_V6};
use failover_policy::Family;

use super::status::{status, uplink, wait_for_status};

/// The target of a family's traffic.
pub fn target(family: Family) -> IpAddr {
    match family {
        Family::V4 => TARGET_V4,
        Family::V6 => TARGET_V6,
    }
}

/// Waits until so many more probes were sent on each of these uplinks.
///
/// # Errors
/// When they are not [`SOON`](super::SOON).
///
/// # Panics
/// When the status has no such uplink.
pub fn wait_for_probes(agent: &AgentProcess, names: &[&str], more: u64) -> Result<()> {
    let before = status(agent)?;
    let probes = |status: &Status, name| uplink(status, name).counters.probes_passed;
    wait_for_status(agent, &format!("{more} more probes"), |now| {
        let mut names = names.iter();
        names.all(|name| probes(now, name) >= probes(&before, name) + more)
    })?;
    Ok(())
}
