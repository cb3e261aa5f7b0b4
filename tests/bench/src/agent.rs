//! The agent under measurement.

use std::time::Duration;

use anyhow::Result;
use failover_lab::{AgentProcess, Lab};

use super::Settings;

/// How long an agent may take until it knows that all uplinks are Up.
const READY: Duration = Duration::from_secs(30);

/// What the agent logs by default; the laboratory's tests log more.
const LOG: &str = "info";

/// Starts it with the given keys in the `[probe]` table, and waits until the preferred uplink is active and all are Up.
pub(super) fn start(settings: &Settings, lab: &Lab, probe: &str) -> Result<AgentProcess> {
    let file = lab.write_config(&lab.config(probe))?;
    let agent = AgentProcess::spawn_logging(
        &settings.agent()?,
        lab.host().namespace(),
        &["run", "--config", &file.to_string_lossy()],
        lab.agent_dirs(),
        LOG,
    )?;
    let preferred = lab.uplinks()[0].name();
    agent.wait_for_status("all uplinks Up", READY, |status| {
        let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
        status["active"] == preferred && uplinks.all(|uplink| uplink["health"] == "Up")
    })?;
    Ok(agent)
}
