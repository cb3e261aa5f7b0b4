//! What the documents claim beside commands, where no other test does.

use std::time::Duration;

use anyhow::Result;
use failover_lab::{AgentConfig, AgentProcess, Lab, Scenario, TARGET_V4, wait_until};
use failover_tests::fixtures::{SOON, wait_for_probes};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A configuration by which uplinks are judged quickly.
fn config(lab: &Lab) -> AgentConfig {
    lab.agent_config()
        .targets([TARGET_V4])
        .interval(Duration::from_millis(100))
        .timeout(Duration::from_millis(400))
        .fall(3)
        .rise(1)
}

/// What a command prints on the host.
fn shell(lab: &Lab, script: &str) -> Result<String> {
    lab.host().namespace().exec("sh", &["-c", script])
}

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
#[ignore = "needs root"]
fn an_unreachable_route_to_the_target_fails_the_uplinks_that_it_concerns() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_for(&agent, "cable", ["Up", "Up"])?;
    let route = |verb: &str, table: &str| {
        let host = lab.host().namespace();
        host.ip_batch(&format!("route {verb} unreachable 192.0.2.1 table {table}"))
    };

    route("add", "13600")?;
    wait_for(&agent, "lte", ["Down", "Up"])?;
    route("del", "13600")?;
    wait_for(&agent, "cable", ["Up", "Up"])?;

    // Probes do not follow the main table.
    route("add", "main")?;
    wait_for_probes(&agent, &["cable", "lte"], 20)?;
    assert_eq!(health(&agent.status_json()?), ["Up", "Up"]);
    Ok(())
}

/// migrating.md, py-pingu: metrics of their own, routes that are withdrawn, and what is found of the other's routes.
#[test]
#[ignore = "needs root"]
fn the_routes_of_another_with_our_number_are_put_right_and_withdrawn() -> Scenario {
    let lab = Lab::builder().build()?;
    for (name, metric) in [("cable", 50), ("lte", 88)] {
        // One metric is right, the other is what an earlier configuration had.
        let metric = metric + u32::from(name == "lte");
        let gateway = lab.uplink(name).addresses().gateway_v4;
        let route =
            format!("ip route add default via {gateway} dev {name} proto 136 metric {metric}");
        shell(&lab, &route)?;
    }
    let config = config(&lab)
        .on_down("withdraw")
        .uplink("cable", |cable| cable.metric(50))
        .uplink("lte", |lte| lte.metric(88));
    let mut agent = lab.start_agent(&config)?;
    wait_for(&agent, "cable", ["Up", "Up"])?;
    let standing = |wanted: &[(&str, u32)]| {
        let what = format!("routes {wanted:?}");
        wait_until(&what, SOON, || {
            let routes = shell(&lab, "ip route show default proto 136").unwrap_or_default();
            let stands = |(name, metric): &(&str, u32)| {
                routes.contains(&format!(" dev {name} "))
                    && routes.contains(&format!(" metric {metric}"))
            };
            routes.lines().count() == wanted.len() && wanted.iter().all(stands)
        })
    };
    standing(&[("cable", 50), ("lte", 88)])?;
    let lte = lab.uplink("lte").blackhole()?;
    standing(&[("cable", 50)])?;
    lte.repair()?;
    standing(&[("cable", 50), ("lte", 88)])?;
    let cable = lab.uplink("cable").blackhole()?;
    standing(&[("lte", 88)])?;
    cable.repair()?;
    standing(&[("cable", 50), ("lte", 88)])?;

    agent.signal(Signal::SIGTERM)?;
    assert!(agent.wait_exit(SOON)?.success());
    standing(&[])?;
    Ok(())
}
