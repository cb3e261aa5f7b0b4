//! The agent's status, in its types.

use anyhow::Result;
use failover_agent::control::{
    Status,
    status::{Counters, FamilyState, Uplink},
};
use failover_ebpf::Gate;
use failover_lab::{AgentProcess, wait_for};
use failover_policy::{Family, Health};

use super::SOON;

/// What `failover-agent status --json` prints.
///
/// # Errors
/// When it fails, or prints something else than a status.
pub fn status(agent: &AgentProcess) -> Result<Status> {
    Ok(serde_json::from_value(agent.status_json()?)?)
}

/// Waits until the agent's status fulfils a condition, and returns it.
///
/// # Errors
/// When it does not [`SOON`]; the error shows the last status.
pub fn wait_for_status(
    agent: &AgentProcess,
    what: &str,
    condition: impl Fn(&Status) -> bool,
) -> Result<Status> {
    let what = format!("the agent's status shows {what}");
    wait_for(&what, SOON, || match status(agent) {
        Ok(status) if condition(&status) => Ok(status),
        Ok(status) => Err(format!("{status:#?}")),
        Err(error) => Err(format!("{error:#}")),
    })
}

/// An uplink's part of a status.
///
/// # Panics
/// When there is no such uplink.
pub fn uplink<'a>(status: &'a Status, name: &str) -> &'a Uplink {
    let mut uplinks = status.uplinks.iter();
    let Some(uplink) = uplinks.find(|uplink| uplink.name == name) else {
        panic!("no uplink {name} in {status:#?}")
    };
    uplink
}

/// An uplink's part of a status in one family; `None` while that is not in use.
///
/// # Panics
/// When there is no such uplink.
pub fn state<'a>(status: &'a Status, name: &str, family: Family) -> Option<&'a FamilyState> {
    uplink(status, name).families.get(family)
}

/// An uplink's gate in a family; `None` while that is not in use.
///
/// # Panics
/// When there is no such uplink.
pub fn gate(status: &Status, name: &str, family: Family) -> Option<Gate> {
    state(status, name, family).map(|state| state.gate)
}

/// Whether an uplink has this health in a family.
///
/// # Panics
/// When there is no such uplink.
pub fn has_health(status: &Status, name: &str, family: Family, health: Health) -> bool {
    state(status, name, family).is_some_and(|state| state.health == health)
}

/// Waits until an uplink has this health in a family, and returns the status.
///
/// # Errors
/// When it has not [`SOON`].
///
/// # Panics
/// When there is no such uplink.
pub fn wait_for_health(
    agent: &AgentProcess,
    name: &str,
    family: Family,
    health: Health,
) -> Result<Status> {
    let what = format!("{name} {health} ({family})");
    wait_for_status(agent, &what, |status| {
        has_health(status, name, family, health)
    })
}

/// Waits until an uplink is the active one of both families, and returns the status.
///
/// # Errors
/// When it is not [`SOON`].
pub fn wait_for_active(agent: &AgentProcess, name: &str) -> Result<Status> {
    wait_for_status(agent, &format!("{name} active"), |status| {
        Family::ALL.into_iter().all(|family| {
            let active = status.active_in(family);
            active.is_some_and(|active| active.name == name)
        })
    })
}

/// What the programs have counted on an uplink so far.
///
/// # Errors
/// When there is no status.
///
/// # Panics
/// When it has no such uplink.
pub fn counters(agent: &AgentProcess, name: &str) -> Result<Counters> {
    Ok(uplink(&status(agent)?, name).counters)
}
