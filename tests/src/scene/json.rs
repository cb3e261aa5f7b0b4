//! The agent's status as JSON: for scenarios that look at what is printed, key by key.

use anyhow::Result;
use failover_lab::AgentProcess;
use serde_json::Value;

use super::SOON;

/// One uplink's part of a status.
///
/// # Panics
/// When there is no such uplink.
pub fn uplink<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
    let Some(uplink) = uplinks.find(|uplink| uplink["name"] == name) else {
        panic!("no uplink {name} in {status:#}")
    };
    uplink
}

/// A counter of one uplink in a status.
///
/// # Panics
/// When there is no such uplink or counter.
pub fn counter(status: &Value, name: &str, counter: &str) -> u64 {
    let Some(number) = uplink(status, name)["counters"][counter].as_u64() else {
        panic!("no counter {counter} of {name} in {status:#}")
    };
    number
}

/// Waits until `active` is the active uplink, its gate open and all others closed, in each family that is in use. Returns the status.
///
/// # Errors
/// When it is not [`SOON`].
pub fn wait_active(agent: &AgentProcess, active: &str) -> Result<Value> {
    agent.wait_for_status(&format!("{active} as the active one"), SOON, |status| {
        let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
        status["active"] == active
            && uplinks.all(|uplink| {
                let gate = if uplink["name"] == active {
                    "open"
                } else {
                    "closed"
                };
                let families = ["ipv4", "ipv6"].map(|family| &uplink["families"][family]);
                let mut used = families.iter().filter(|state| !state.is_null());
                uplink["gate"] == gate && used.all(|state| state["gate"] == gate)
            })
    })
}

/// Waits until an uplink has this health, and returns the status.
///
/// # Errors
/// When it has not [`SOON`].
///
/// # Panics
/// When there is no such uplink.
pub fn wait_health(agent: &AgentProcess, name: &str, health: &str) -> Result<Value> {
    agent.wait_for_status(&format!("{name} {health}"), SOON, |status| {
        uplink(status, name)["health"] == health
    })
}
