//! What the scenarios share: an agent that cuts, and what it says of itself.

use std::time::Duration;

use anyhow::Result;
use failover_agent::control::{Status, status::Switch};
use failover_lab::{AgentConfig, AgentProcess, Fault, Lab, TARGETS_V4};
use failover_policy::{Family, Health};
use failover_tests::fixtures::wait_for_status;

/// What is to happen at once happens within this; without the cut it would take minutes.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);

/// How long something is watched that is not to happen.
pub(crate) const WHILE: Duration = Duration::from_millis(500);

/// A configuration of all uplinks. One probed family leads both.
pub(crate) fn config(lab: &Lab) -> AgentConfig {
    lab.agent_config()
        .targets([TARGETS_V4[0], TARGETS_V4[1]])
        .interval(Duration::from_millis(50))
        .timeout(Duration::from_millis(250))
        .fall(3)
        .rise(4)
        .hold(Duration::ZERO)
}

/// An agent that resets, with all uplinks Up, the first one active and the others cut off.
pub(crate) fn start(lab: &Lab) -> Result<AgentProcess> {
    start_with(lab, &config(lab).mode("reset"))
}

/// The same with another configuration.
pub(crate) fn start_with(lab: &Lab, config: &AgentConfig) -> Result<AgentProcess> {
    let agent = lab.start_agent(config)?;
    settled(&agent)?;
    let first = lab.uplinks()[0].name();
    wait_for_cut(&agent, first)?;
    Ok(agent)
}

/// Waits until all uplinks are Up.
pub(crate) fn settled(agent: &AgentProcess) -> Result<Status> {
    wait_for_status(agent, "all uplinks Up", |status| {
        let mut uplinks = status.uplinks.iter();
        uplinks.all(|uplink| uplink.health == Health::Up)
    })
}

fn last_switch(status: &Status, family: Family) -> Option<&Switch> {
    status
        .switches
        .iter()
        .find(|switch| switch.family == family)
}

/// Waits until the agent has switched both families to an uplink and has cut the others.
pub(crate) fn wait_for_cut(agent: &AgentProcess, to: &str) -> Result<Status> {
    wait_for_status(agent, &format!("a cut in favour of {to}"), |status| {
        Family::ALL.into_iter().all(|family| {
            let active = status.active_in(family);
            let switch = last_switch(status, family);
            active.is_some_and(|active| active.name == to)
                && switch.is_some_and(|switch| switch.to == to && switch.timeline.cut_us.is_some())
        })
    })
}

/// Makes an uplink fail silently and waits until the agent has cut it in favour of another.
pub(crate) fn fail_over(lab: &Lab, agent: &AgentProcess, from: &str, to: &str) -> Result<Fault> {
    let fault = lab.uplink(from).blackhole()?;
    wait_for_cut(agent, to)?;
    Ok(fault)
}

/// Packets with a source that is not its own which any provider has seen, as the providers count them.
pub(crate) fn foreign_packets(lab: &Lab) -> Result<Vec<(String, u64)>> {
    let count =
        |uplink: &failover_lab::Uplink| Ok((uplink.name().to_owned(), uplink.foreign_packets()?));
    let counts: Vec<(String, u64)> = lab.uplinks().iter().map(count).collect::<Result<_>>()?;
    Ok(counts.into_iter().filter(|(_, count)| *count > 0).collect())
}
