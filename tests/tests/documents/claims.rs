//! What the documents claim beside commands, where no other test does.

use std::time::Duration;

use anyhow::Result;
use failover_tests::lab::{AgentProcess, Lab, require_root};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn wait_for(agent: &AgentProcess, active: &str, health: [&str; 2]) -> Result<Value> {
    let what = format!("{active} active, health {health:?}");
    agent.wait_for_status(&what, SOON, |status| {
        status["active"] == active && self::health(status) == health
    })
}

fn health(status: &Value) -> Vec<&Value> {
    let uplinks = status["uplinks"].as_array().into_iter().flatten();
    let health = uplinks.map(|uplink| &uplink["families"]["ipv4"]["health"]);
    health.collect()
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

    // In the main table it hits all alike.
    route("add", "main")?;
    agent.wait_for_status("all Down", SOON, |status| {
        health(status) == ["Down", "Down"]
    })?;
    route("del", "main")?;
    wait_for(&agent, "cable", ["Up", "Up"])?;
    Ok(())
}
