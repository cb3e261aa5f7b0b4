//! Whether a standby's gate cuts.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use failover_lab::{AgentProcess, Lab};

use super::status::counters;

/// How long an answer is waited for that is not to come.
pub const FORCED: Duration = Duration::from_millis(50);

/// Checks that a packet to `target` that is forced out by a standby has no answer, and is counted.
///
/// # Errors
/// When it has an answer or is not counted, or there is no status.
///
/// # Panics
/// When there is no such uplink.
pub fn ensure_cut(lab: &Lab, agent: &AgentProcess, standby: &str, target: IpAddr) -> Result<()> {
    let before = counters(agent, standby)?;
    let answer = lab.host().ping_by(standby, target, FORCED)?;
    ensure!(answer.is_none(), "a forced packet has left by {standby}");
    let after = counters(agent, standby)?;
    ensure!(
        after.cut_packets > before.cut_packets,
        "a forced packet was not counted by {standby}: {before:?}, {after:?}"
    );
    Ok(())
}
