//! What the documents claim beside commands, where no other test does.

use std::time::Duration;

use anyhow::Result;
use failover_tests::lab::{AgentProcess, Lab, require_root};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn wait_for(agent: &AgentProcess, active: &str, health: [&str; 2]) -> Result<Value> {
    let what = format!("{active} active, health {health:?}");
    agent.wait_for_status(&what, SOON, |status| {
        let uplinks = status["uplinks"].as_array().into_iter().flatten();
        let found = uplinks.map(|uplink| &uplink["families"]["ipv4"]["health"]);
        status["active"] == active && found.eq(&health)
    })
}

/// migrating.md, ib.haip: an `unreachable` route as simulated failure.
#[test]
fn an_unreachable_route_to_the_target_fails_the_uplinks_that_it_concerns() -> Result<()> {
    if !require_root("an_unreachable_route_to_the_target_fails_the_uplinks_that_it_concerns") {
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    let probe =
        "targets = [\"192.0.2.1\"]\ninterval = \"100ms\"\ntimeout = \"400ms\"\nfall = 3\nrise = 1";
    let agent = lab.start_agent(&lab.config(probe))?;
    wait_for(&agent, "cable", ["Up", "Up"])?;
    let route = |verb: &str, table: &str| {
        let host = lab.host().namespace();
        host.ip_batch(&format!("route {verb} unreachable 192.0.2.1 table {table}"))
    };

    route("add", "13600")?;
    wait_for(&agent, "lte", ["Down", "Up"])?;
    route("del", "13600")?;
    wait_for(&agent, "cable", ["Up", "Up"])?;

    // In the main table it hits all alike: there is nothing better, so nothing changes.
    route("add", "main")?;
    wait_for(&agent, "cable", ["Down", "Down"])?;
    route("del", "main")?;
    let status = wait_for(&agent, "cable", ["Up", "Up"])?;
    let switches = status["switches"].as_array().into_iter().flatten();
    let causes = switches.filter(|switch| switch["family"] == "ipv4");
    let causes: Vec<&Value> = causes.map(|switch| &switch["cause"]).collect();
    assert_eq!(causes, ["failback", "failover", "start-up"]);
    Ok(())
}
