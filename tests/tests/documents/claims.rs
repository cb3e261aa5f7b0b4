//! What the documents claim beside commands, where no other test does.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Result, ensure};
use failover_tests::lab::{AgentProcess, Lab, TARGET_V4, require_root, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// Uplinks that are judged quickly.
const PROBE: &str = "[probe]
targets = [\"192.0.2.1\"]
interval = \"100ms\"
timeout = \"400ms\"
fall = 3
rise = 3
";

/// What a command prints on the host.
fn shell(lab: &Lab, script: &str) -> Result<String> {
    lab.host().namespace().exec("sh", &["-c", script])
}

fn wait_for_active(agent: &AgentProcess, active: &str) -> Result<Value> {
    let what = format!("{active} active");
    agent.wait_for_status(&what, SOON, |status| status["active"] == active)
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

/// README.md and operations.md: a balance group of two, then a backup.
#[test]
fn a_group_shares_by_weight_and_has_a_backup() -> Result<()> {
    if !require_root("a_group_shares_by_weight_and_has_a_backup") {
        return Ok(());
    }
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let uplinks = [
        ("cable", "rank = 0\nweight = 3"),
        ("dsl", "rank = 0"),
        ("lte", "rank = 1"),
    ];
    let tables =
        uplinks.map(|(name, keys)| format!("[[uplink]]\ninterface = \"{name}\"\n{keys}\n"));
    let policy = "sysctl -n net.ipv4.fib_multipath_hash_policy";
    let before = shell(&lab, policy)?;
    let mut agent = lab.start_agent(&format!("{PROBE}{}", tables.concat()))?;
    wait_for_active(&agent, "cable,dsl")?;
    assert!(shell(&lab, "ip nexthop show")?.contains("type resilient"));

    // As many connections as one can tell apart by their port.
    let ways = shell(
        &lab,
        &format!(
            "for port in $(seq 20000 20999); do
                 echo route get {TARGET_V4} ipproto tcp sport $port dport 443
             done | ip -batch -"
        ),
    )?;
    let by = |name: &str| ways.matches(&format!(" dev {name} ")).count();
    assert_eq!(by("cable") + by("dsl"), 1000, "{ways}");
    assert!((600..900).contains(&by("cable")), "{}", by("cable"));

    let dsl = lab.uplink("dsl").blackhole()?;
    wait_for_active(&agent, "cable")?;
    let cable = lab.uplink("cable").blackhole()?;
    wait_for_active(&agent, "lte")?;
    dsl.repair()?;
    wait_for_active(&agent, "dsl")?;
    cable.repair()?;
    wait_for_active(&agent, "cable,dsl")?;

    agent.signal(Signal::SIGTERM)?;
    assert!(agent.wait_exit(SOON)?.success());
    assert_eq!(shell(&lab, "ip nexthop show")?, "");
    assert_eq!(shell(&lab, policy)?, before);
    Ok(())
}

/// migrating.md, py-pingu: metrics of their own, routes that are withdrawn, and what is found of the other's routes.
#[test]
fn the_routes_of_another_with_our_number_are_put_right_and_withdrawn() -> Result<()> {
    if !require_root("the_routes_of_another_with_our_number_are_put_right_and_withdrawn") {
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    for (name, metric) in [("cable", 50), ("lte", 88)] {
        // One metric is right, the other is what an earlier configuration had.
        let metric = metric + u32::from(name == "lte");
        let gateway = lab.uplink(name).addresses().gateway_v4;
        let route =
            format!("ip route add default via {gateway} dev {name} proto 136 metric {metric}");
        shell(&lab, &route)?;
    }
    let config = format!(
        "{PROBE}[route]\non_down = \"withdraw\"\n[[uplink]]\ninterface = \"cable\"\nmetric = 50\n\
         [[uplink]]\ninterface = \"lte\"\nmetric = 88\n"
    );
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
    standing(&[])
}

/// operations.md and migrating.md: `reset` runs while its uplink is Down, and again after `reset_grace`.
#[test]
fn a_modem_that_stays_down_is_reset_again_and_again() -> Result<()> {
    if !require_root("a_modem_that_stays_down_is_reset_again_and_again") {
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    let scratch = &lab.agent_dirs().scratch;
    let (script, told) = (scratch.join("reset"), scratch.join("told"));
    let text = format!(
        "#!/bin/sh\necho \"$1 $UPLINK $INTERFACE $REASON\" >> {}\n",
        told.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let config = format!(
        "{PROBE}[[uplink]]\ninterface = \"cable\"\n[[uplink]]\ninterface = \"lte\"\nname = \"modem\"\n\
         reset = [\"{}\", \"1-1.2\"]\nreset_grace = \"1s\"\n",
        script.display()
    );
    let agent = lab.start_agent(&config)?;
    wait_for(&agent, "cable", ["Up", "Up"])?;
    ensure!(!told.exists(), "it was reset without need");
    let fault = lab.uplink("lte").blackhole()?;
    wait_until("it was reset twice", SOON, || {
        let told = fs::read_to_string(&told).unwrap_or_default();
        told.lines().count() >= 2 && told.lines().all(|line| line == "1-1.2 modem lte reset")
    })?;
    fault.repair()?;
    wait_for(&agent, "cable", ["Up", "Up"])?;
    Ok(())
}
