//! More notifications than the kernel keeps for the agent: what was lost is found out.

use std::time::Duration;

use anyhow::Result;
use failover_lab::{AgentConfig, AgentProcess, Lab, Scenario, TARGET_V4};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, history, message, wait_for_history};
use nix::sys::signal::Signal;

use super::fixtures::{start, wait_restored};

/// No round of probes after the first would come in time.
fn slow(lab: &Lab) -> AgentConfig {
    lab.agent_config()
        .targets([TARGET_V4])
        .interval(Duration::from_mins(1))
        .timeout(Duration::from_secs(1))
        .rise(1)
}

/// Stops the agent for as long as `meanwhile` runs, before and after which thousands of default routes come and go.
fn while_deaf(
    lab: &Lab,
    agent: &AgentProcess,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let host = lab.host().namespace();
    let gateway = lab.uplink("lte").addresses().gateway_v4;
    // The agent must hear of each: they might beat its own.
    let flood = format!(
        "route add default via {gateway} dev lte metric 9999\nroute del default metric 9999\n"
    )
    .repeat(2000);
    agent.signal(Signal::SIGSTOP)?;
    let result = host
        .ip_batch(&flood)
        .and_then(|()| meanwhile())
        .and_then(|()| host.ip_batch(&flood));
    agent.signal(Signal::SIGCONT)?;
    result?;
    agent.wait_for_line("that notifications were lost", SOON, |line| {
        message(line) == "netlink: Resync"
    })?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_route_that_was_removed_in_a_flood_is_put_back() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab, &slow(&lab))?;
    let before = lab.host().snapshot()?;
    while_deaf(&lab, &agent, || {
        let host = lab.host().namespace();
        host.ip_batch("route del default dev cable metric 80\nrule del pref 13664")
    })?;
    wait_restored(&lab, &before, "what was hidden in the flood")?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_carrier_that_was_lost_in_a_flood_leads_to_a_failover() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab, &slow(&lab))?;
    let mut fault = None;
    while_deaf(&lab, &agent, || {
        fault = Some(lab.uplink("cable").carrier_down()?);
        Ok(())
    })?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    // Not by probes: with three failures of which none can have come yet.
    let deadline = Duration::from_secs(120);
    assert!(
        !agent
            .log()
            .iter()
            .any(|line| message(line).contains("ping of")),
        "within {deadline:?}"
    );
    Ok(())
}
