//! Commands, given to a running agent by its own verbs: switches, drills, and what is refused.

use std::{process::Output, time::Duration};

use anyhow::Result;
use failover_lab::{AgentConfig, AgentProcess, Lab, Scenario, TARGET_V4, agent_path, wait_until};
use failover_tests::fixtures::SOON;
use serde_json::Value;

fn config(lab: &Lab) -> AgentConfig {
    lab.agent_config()
        .targets([TARGET_V4])
        .interval(Duration::from_millis(100))
        .timeout(Duration::from_millis(200))
        .drain(Duration::from_secs(2))
}

/// Runs a verb that may fail.
fn verb(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.host().namespace().command(agent_path()?);
    Ok(command
        .args(arguments)
        .args(lab.agent_dirs().flags())
        .output()?)
}

fn assert_refused(lab: &Lab, arguments: &[&str], code: i32, text: &str) -> Result<()> {
    let output = verb(lab, arguments)?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(text), "{error}");
    Ok(())
}

fn wait_active(agent: &AgentProcess, uplink: &str) -> Result<Value> {
    agent.wait_for_status(&format!("{uplink} is active"), SOON, |status| {
        let works = |uplink: &Value| uplink["health"] == "Up" || !uplink["drill_s"].is_null();
        let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
        status["active"] == uplink && uplinks.all(works)
    })
}

/// The last switch of IPv4; IPv6 has no targets here and follows.
fn last_switch(status: &Value) -> &Value {
    let mut switches = status["switches"].as_array().into_iter().flatten();
    let last = switches.find(|switch| switch["family"] == "ipv4");
    last.unwrap_or(&Value::Null)
}

#[test]
#[ignore = "needs root"]
fn a_switch_by_hand_holds_and_a_switch_back_drains() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "lte"]).build()?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_active(&agent, "cable")?;

    let answer = agent.verb(&["switch", "lte"])?;
    assert!(answer.contains("lte"), "{answer}");
    let status = wait_active(&agent, "lte")?;
    assert_eq!(last_switch(&status)["cause"], "manual");
    assert_eq!(
        status["uplinks"][1]["families"]["ipv4"]["manual_override"],
        true
    );
    // To a less preferred one: cut at once. Its sockets are ended beside the loop that answers.
    assert_eq!(status["uplinks"][0]["gate"], "closed");
    agent.wait_for_status("cable is cut", SOON, |status| {
        let last = last_switch(status);
        last["to"] == "lte" && last["timeline"]["cut_us"].is_u64()
    })?;

    agent.verb(&["switch", "auto"])?;
    let status = wait_active(&agent, "cable")?;
    assert_eq!(last_switch(&status)["cause"], "failback");
    assert_eq!(status["uplinks"][1]["gate"], "open");
    assert!(
        status["uplinks"][1]["families"]["ipv4"]["draining_s"].is_f64(),
        "{status}"
    );
    agent.wait_for_status("the drain is over", SOON, |status| {
        let lte = &status["uplinks"][1];
        lte["gate"] == "closed" && lte["families"]["ipv4"]["draining_s"].is_null()
    })?;

    assert_refused(&lab, &["switch", "ltr"], 28, "did you mean `lte`?")?;
    let fault = lab.uplink("lte").blackhole()?;
    agent.wait_for_status("lte is Down", SOON, |status| {
        status["uplinks"][1]["health"] == "Down"
    })?;
    assert_refused(&lab, &["switch", "lte"], 27, "it is Down")?;
    assert_refused(
        &lab,
        &["drill", "cable", "--for", "30s"],
        27,
        "no other uplink is proven Up",
    )?;
    fault.repair()?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_drill_outlives_its_agent_and_ends() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "lte"]).build()?;
    let file = lab.agent_dirs().state.join("drill.json");
    let over = "{\"uplink\":\"cable\",\"until\":\"2001-01-01T00:00:00Z\"}";
    std::fs::write(&file, over)?;
    let mut agent = lab.start_agent(&config(&lab))?;
    wait_active(&agent, "cable")?;
    // The file is the store's business, a moment later.
    wait_until("the drill's file is gone", SOON, || !file.exists())?;
    agent.verb(&["drill", "cable", "--for", "1h"])?;
    let status = wait_active(&agent, "lte")?;
    assert_eq!(status["uplinks"][0]["health"], "Down");
    assert_eq!(status["uplinks"][0]["gate"], "closed");
    assert_refused(&lab, &["switch", "cable"], 27, "it is in a drill")?;

    agent.kill9()?;
    agent.wait_exit(SOON)?;
    drop(agent);
    let agent = lab.start_agent(&config(&lab))?;
    wait_active(&agent, "lte")?;
    assert!(file.exists());

    // What it is for is at stake: the last uplink that works is taken, drill or not.
    let fault = lab.uplink("lte").blackhole()?;
    agent.wait_for_status("cable is active", SOON, |status| {
        status["active"] == "cable"
    })?;
    wait_until("the drill's file is gone", SOON, || !file.exists())?;
    fault.repair()?;

    agent.wait_for_status("lte is Up", SOON, |status| {
        status["uplinks"][1]["health"] == "Up"
    })?;
    agent.verb(&["drill", "cable", "--for", "2s"])?;
    wait_active(&agent, "lte")?;
    wait_active(&agent, "cable")?;
    wait_until("the drill's file is gone", SOON, || !file.exists())?;
    let listed = agent.verb(&["events"])?;
    assert!(!listed.contains("error"), "{listed}");
    Ok(())
}
