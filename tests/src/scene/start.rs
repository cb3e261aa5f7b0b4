//! An agent from its start to its first choice.

use anyhow::Result;
use failover_lab::{AgentConfig, AgentProcess, Lab};

use super::json::wait_active;

/// Starts an agent that decides quickly, and waits until it has chosen the first uplink.
///
/// # Errors
/// When it does not start, or chooses another.
pub fn start(lab: &Lab) -> Result<AgentProcess> {
    start_with(lab, &lab.agent_config().quick())
}

/// The same with another configuration of all uplinks.
///
/// # Errors
/// As [`start`].
pub fn start_with(lab: &Lab, config: &AgentConfig) -> Result<AgentProcess> {
    let agent = lab.start_agent(config)?;
    wait_active(&agent, lab.uplinks()[0].name())?;
    Ok(agent)
}
