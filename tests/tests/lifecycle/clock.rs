//! The time of day is set while the agent runs, as on a router without a clock of its own, whose first right time comes by an uplink.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use failover_lab::{AgentProcess, Lab, Scenario, WallClock, wait_for};
use failover_tests::fixtures::{
    BLUR, SOON, ensure_times,
    json::{uplink, wait_active, wait_health},
    time,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const DAY: i64 = 24 * 3600;

#[test]
#[ignore = "needs root"]
fn what_happened_before_the_clock_was_set_has_the_right_time_and_the_next_failover_too() -> Scenario
{
    let lab = Lab::builder().build()?;
    let mut clock = WallClock::new(&lab)?;
    clock.set(-300 * DAY)?;
    let begin = Instant::now();
    let agent = lab.start_agent_by(&clock, &lab.agent_config().quick())?;
    ensure_times(&wait_active(&agent, "cable")?, &clock, begin)?;
    // It becomes right, is set back, and is far ahead.
    for (set, name, other) in [
        (0, "cable", "lte"),
        (-DAY / 2, "lte", "cable"),
        (4000 * DAY, "cable", "lte"),
    ] {
        agent.verb(&["switch", name])?;
        wait_active(&agent, name)?;
        clock.set(set)?;
        ensure_times(&agent.status_json()?, &clock, begin)?;
        let fault = lab.uplink(name).blackhole()?;
        let status = wait_active(&agent, other)?;
        ensure_times(&status, &clock, begin)?;
        // The newest comes first.
        let mut switches = status["switches"].as_array().into_iter().flatten();
        let newest = switches.find(|switch| switch["cause"] == "failover");
        let newest = &newest.context("no failover")?["at"];
        let down = &uplink(&status, name)["health_since"];
        for at in [newest, down] {
            assert!(time(at)? + BLUR > clock.at(fault.since()), "{status:#}");
        }
        fault.repair()?;
        let status = wait_health(&agent, name, "Up")?;
        ensure_times(&status, &clock, begin)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_drill_lasts_as_long_as_was_said_over_a_restart_and_a_crash_after_the_clock_was_set() -> Scenario
{
    let lab = Lab::builder().build()?;
    let mut clock = WallClock::new(&lab)?;
    let begin = Instant::now();
    let config = lab.agent_config().quick();
    let mut agent = lab.start_agent_by(&clock, &config)?;
    wait_active(&agent, "cable")?;
    agent.verb(&["drill", "cable", "--for", "1h"])?;
    wait_active(&agent, "lte")?;
    // Ahead the drill would be over long ago, and behind go on for days.
    for set in [40 * DAY, -40 * DAY] {
        clock.set(set)?;
        let before = agent.status_json()?;
        ensure_times(&before, &clock, begin)?;
        agent.verb(&["restart"])?;
        let status = agent.wait_for_status("a new start", SOON, |status| {
            status["agent"]["started"] != before["agent"]["started"]
        })?;
        ensure_drilled(&status)?;
        ensure_times(&status, &clock, begin)?;
        ensure_drilled(&wait_active(&agent, "lte")?)?;
    }
    clock.set(0)?;
    // What a crash finds there was written within a second or so.
    let file = lab.agent_dirs().state.join("drill.json");
    wait_for("the end of the drill by the new time", SOON, || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let until = serde_json::from_str(&text).map(|drill: Value| time(&drill["until"]));
        let right =
            clock.now() + Duration::from_secs(3000)..clock.now() + Duration::from_secs(3601);
        match until {
            Ok(Ok(until)) if right.contains(&until) => Ok(()),
            _ => Err(text),
        }
    })?;
    agent.kill9()?;
    let agent = lab.start_agent_by(&clock, &config)?;
    ensure_drilled(&wait_active(&agent, "lte")?)?;
    end(agent)?;
    Ok(())
}

fn end(mut agent: AgentProcess) -> Result<()> {
    agent.signal(Signal::SIGTERM)?;
    ensure!(agent.wait_exit(SOON)?.success());
    Ok(())
}

fn ensure_drilled(status: &Value) -> Result<()> {
    let left = uplink(status, "cable")["drill_s"].as_f64();
    ensure!(
        left.is_some_and(|left| (3000.0..=3600.0).contains(&left)),
        "{left:?}: {status:#}"
    );
    Ok(())
}
