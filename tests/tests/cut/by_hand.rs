//! Switches by hand and drills.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use failover_lab::{AgentProcess, Lab, Scenario, TARGET_V4};
use failover_policy::{Cause, Family, Health};
use failover_tests::fixtures::{SOON, status, uplink, wait_for_active, wait_for_status};

use super::{
    fixtures::{AT_ONCE, config, settled, start, start_with, wait_for_cut},
    sockets::assert_cut,
};

/// The error text of an order that is refused.
fn refusal(agent: &AgentProcess, order: &[&str]) -> Result<String> {
    match agent.verb(order) {
        Ok(done) => bail!("{order:?} was carried out: {done}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
#[ignore = "needs root"]
fn switch_by_hand_holds_until_auto() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let old = lab.host().tcp_idle(TARGET_V4)?;
    agent.verb(&["switch", "lte"])?;
    let now = wait_for_cut(&agent, "lte")?;
    assert_cut("idle", &old.wait_ended(AT_ONCE)?);
    let switch = now
        .switches
        .iter()
        .find(|switch| switch.family == Family::V4);
    assert_eq!(switch.map(|switch| switch.cause), Some(Cause::Manual));
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("lte", Instant::now(), SOON)?;
    // The ranks would have it otherwise.
    let fault = lab.uplink("cable").blackhole()?;
    wait_for_status(&agent, "cable Down", |status| {
        uplink(status, "cable").health == Health::Down
    })?;
    let error = refusal(&agent, &["switch", "cable"])?;
    assert!(error.contains("cable"), "{error}");
    let error = refusal(&agent, &["switch", "cabel"])?;
    assert!(error.contains("did you mean `cable`"), "{error}");
    fault.repair()?;
    settled(&agent)?;
    assert_eq!(status(&agent)?.active.as_deref(), Some("lte"));
    assert_eq!(stream.stop()?.path(), ["lte"]);

    agent.verb(&["switch", "auto"])?;
    wait_for_cut(&agent, "cable")?;
    // A chosen uplink that goes Down is left like any other.
    agent.verb(&["switch", "lte"])?;
    wait_for_cut(&agent, "lte")?;
    let _fault = lab.uplink("lte").blackhole()?;
    wait_for_cut(&agent, "cable")?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn drill_fails_over_and_back_by_itself() -> Scenario {
    const DRILL: Duration = Duration::from_secs(1);

    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let old = lab
        .host()
        .tcp_stream(TARGET_V4, Duration::from_millis(10))?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    let begun = Instant::now();
    agent.verb(&["drill", "cable", "--for", "1s"])?;
    assert_cut("sending", &old.wait_ended(AT_ONCE)?);
    stream.wait_for_echo_by("lte", begun, SOON)?;
    wait_for_active(&agent, "cable")?;
    let took = begun.elapsed();
    assert!(took >= DRILL, "{took:?}");
    let now = wait_for_cut(&agent, "cable")?;
    assert_eq!(uplink(&now, "cable").drill_s, None);
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    let report = stream.stop()?;
    assert_eq!(report.path(), ["cable", "lte", "cable"]);
    // Both uplinks work: a packet that was routed before a switch and met the gate after it, each time.
    assert!(report.lost() <= 4, "{} lost", report.lost());
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn drill_is_refused_when_no_other_uplink_is_up() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let fault = lab.uplink("lte").blackhole()?;
    wait_for_status(&agent, "lte Down", |status| {
        uplink(status, "lte").health == Health::Down
    })?;
    let connection = lab
        .host()
        .tcp_stream(TARGET_V4, Duration::from_millis(20))?;
    let error = refusal(&agent, &["drill", "cable", "--for", "5s"])?;
    assert!(error.contains("no other uplink is proven Up"), "{error}");
    let error = refusal(&agent, &["drill", "cabel", "--for", "5s"])?;
    assert!(error.contains("did you mean `cable`"), "{error}");
    connection.wait_received_after(Instant::now(), SOON)?;
    assert_eq!(connection.state().ended, None);

    // And it is over as soon as that is so.
    fault.repair()?;
    settled(&agent)?;
    agent.verb(&["drill", "cable", "--for", "1h"])?;
    wait_for_cut(&agent, "lte")?;
    let _fault = lab.uplink("lte").blackhole()?;
    let now = wait_for_cut(&agent, "cable")?;
    assert_eq!(uplink(&now, "cable").drill_s, None);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn drill_survives_a_crash_and_ends_when_it_should() -> Scenario {
    const DRILL: Duration = Duration::from_secs(3);

    let lab = Lab::builder().build()?;
    let config = config(&lab).mode("reset");
    let mut agent = start_with(&lab, &config)?;
    let begun = Instant::now();
    agent.verb(&["drill", "cable", "--for", "3s"])?;
    wait_for_cut(&agent, "lte")?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    agent.kill9()?;
    let agent = lab.start_agent(&config)?;
    if begun.elapsed() < DRILL - Duration::from_secs(1) {
        let now = status(&agent)?;
        assert!(uplink(&now, "cable").drill_s.is_some(), "{now:#?}");
    }
    wait_for_active(&agent, "cable")?;
    let took = begun.elapsed();
    assert!(took >= DRILL, "{took:?}");
    let now = settled(&agent)?;
    assert_eq!(uplink(&now, "cable").drill_s, None);
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    let report = stream.stop()?;
    assert_eq!(
        report.path(),
        ["lte", "cable"],
        "neither the crash nor the start ended it"
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn drill_can_be_ended_by_hand() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    for order in [&["switch", "auto"][..], &["drill", "cable", "--for", "0s"]] {
        agent.verb(&["drill", "cable", "--for", "1h"])?;
        let now = wait_for_cut(&agent, "lte")?;
        assert!(uplink(&now, "cable").drill_s.is_some());
        agent.verb(order)?;
        let now = wait_for_cut(&agent, "cable")?;
        assert_eq!(uplink(&now, "cable").drill_s, None);
    }
    Ok(())
}
