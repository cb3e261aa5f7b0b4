//! `status` and `check`.

use std::fs;

use anyhow::{Context, Result};
use failover_lab::{Lab, Scenario, UplinkSpec};
use failover_tests::fixtures::{
    SOON,
    json::{uplink, wait_active},
};
use serde_json::Value;

use super::fixtures::{run, start, start_with};

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// The example in the documentation.
fn documented() -> Result<Value> {
    let example = DOCUMENT
        .split("```json\n")
        .nth(1)
        .and_then(|rest| rest.split_once("```"))
        .context("no example of a status in the documentation")?;
    Ok(serde_json::from_str(example.0)?)
}

/// Checks that both have the same keys, at every depth where both have an object.
fn ensure_same_keys(place: &str, expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(keys(expected), keys(found), "keys of {place}");
            for (key, value) in expected {
                ensure_same_keys(&format!("{place}.{key}"), value, &found[key]);
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            for value in found {
                ensure_same_keys(place, &expected[0], value);
            }
        }
        (Value::Object(_) | Value::Array(_), _) => {
            assert!(found.is_null(), "{place} is {found}");
        }
        _ => {}
    }
}

#[test]
#[ignore = "needs root"]
fn status_is_as_documented_for_programs_and_for_people() -> Scenario {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    let config = lab.agent_config().quick();
    let config = config.uplink("lte", |lte| lte.metered(true));
    let agent = start_with(&lab, &config)?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    let status = agent.status_json()?;
    ensure_same_keys("status", &documented()?, &status);
    assert_eq!(status["version"], 1);
    assert_eq!(status["primary"], "ipv4");
    assert_eq!(status["active"], "lte");
    assert_eq!(status["agent"]["pid"], agent.pid());
    assert_eq!(status["uplinks"].as_array().map(Vec::len), Some(2));
    let (cable, lte) = (uplink(&status, "cable"), uplink(&status, "lte"));
    assert_eq!(
        [&cable["interface"], &cable["gateway"], &cable["health"]],
        ["cable", "10.64.1.1", "Down"]
    );
    assert_eq!([&cable["gate"], &lte["gate"]], ["closed", "open"]);
    assert!(cable["loss_pct"].as_f64() > Some(0.0), "{cable:#}");
    assert_eq!(lte["loss_pct"], 0.0);
    assert!(lte["rtt_ms"].as_f64() > Some(0.0), "{lte:#}");
    assert_eq!(
        [&lte["gateway"], &lte["metered"]],
        [&Value::Null, &Value::Bool(true)]
    );
    let switches = status["switches"].as_array().context("no switches")?;
    let failover = switches
        .iter()
        .find(|switch| switch["cause"] == "failover")
        .context("no failover")?;
    assert_eq!([&failover["from"], &failover["to"]], ["cable", "lte"]);
    let times = ["detected_us", "decided_us", "routed_us", "gated_us"]
        .map(|step| failover["timeline"][step].as_u64());
    assert!(times.is_sorted() && times[0] == Some(0), "{failover:#}");
    let remaining = status["lease"]["remaining_ms"].as_u64();
    assert!(remaining > Some(0) && remaining <= Some(3000), "{status:#}");

    let table = agent.verb(&["status"])?;
    let row = |parts: &[&str]| {
        let found = table
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?}:\n{table}");
    };
    row(&["IPv4: active uplink lte"]);
    row(&["*", "lte (metered)", "IPv4", "Up", "ms", "0 %", "open"]);
    row(&["cable", "IPv4", "Down", "closed", "10.64.1.1"]);
    row(&["IPv4 failover cable -> lte: routed after"]);
    assert!(
        table.lines().all(|line| line.chars().count() <= 100),
        "{table}"
    );
    fault.repair()?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn status_without_an_agent_says_so_in_one_line() -> Scenario {
    let lab = Lab::builder().build()?;
    for arguments in [&["status"][..], &["status", "--json"]] {
        let outcome = run(&lab, arguments)?;
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(23), ""));
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(outcome.stderr.contains("failover-agent run"), "{outcome:?}");
    }
    let mut agent = start(&lab)?;
    assert_eq!(run(&lab, &["status"])?.code, Some(0));
    agent.kill9()?;
    agent.wait_exit(SOON)?;
    assert_eq!(
        run(&lab, &["status"])?.code,
        Some(23),
        "a socket without an owner"
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn check_prints_the_effective_configuration_or_what_is_wrong() -> Scenario {
    let lab = Lab::builder().build()?;
    let path = lab.write_config(&lab.agent_config().quick())?;
    let path = path.to_string_lossy();
    let good = run(&lab, &["check", "--config", &path])?;
    assert_eq!((good.code, good.stderr.as_str()), (Some(0), ""));
    for line in [
        "fall = 3",
        "rise = 2",
        "standby_metric = 5000",
        "lease = \"3s\"",
    ] {
        assert!(good.stdout.contains(line), "{line}: {}", good.stdout);
    }
    // What it prints is a configuration file that means the same.
    fs::write(&*path, &good.stdout)?;
    let again = run(&lab, &["check", "--config", &path])?;
    assert_eq!((again.code, &again.stdout), (Some(0), &good.stdout));

    lab.write_config(&format!("[probe]\nfal = 3\n{}", lab.agent_config()))?;
    let bad = run(&lab, &["check", "--config", &path])?;
    assert_eq!((bad.code, bad.stdout.as_str()), (Some(11), ""));
    let expected = "agent.toml:2:1: unknown key `fal` in [probe]: did you mean `fall`?\n";
    assert!(bad.stderr.ends_with(expected), "{bad:?}");
    assert_eq!(bad.stderr.lines().count(), 1, "{bad:?}");
    Ok(())
}
