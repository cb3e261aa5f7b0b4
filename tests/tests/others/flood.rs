//! Routes and rules that are none of the agent's business, thousands a second.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Context;
use failover_lab::{Lab, Scenario, TARGET_V4, wait_for};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, history, message};

use super::fixtures::{BATCH, flooded, foreign_routes, start, wake_ups};

/// `BATCH` changes to rules, as a container engine or VPN makes them.
fn rules() -> String {
    "rule add pref 20000 from 10.99.0.1 lookup main\nrule del pref 20000\n"
        .repeat(usize::try_from(BATCH).unwrap_or_default() / 2)
}

#[test]
#[ignore = "needs root"]
fn foreign_routes_and_rules_do_not_wake_the_agent() -> Scenario {
    let lab = Lab::builder().build()?;
    let second = Duration::from_secs(1);
    let config = lab.agent_config().targets([TARGET_V4]).rise(1);
    let agent = start(&lab, &config.interval(second).timeout(second))?;
    for (what, lines) in [("routes", foreign_routes(&lab)), ("rules", rules())] {
        let begun = Instant::now();
        let (woken, cpu) = (wake_ups(&agent)?, agent.cpu_time()?);
        let (changes, ()) = flooded(lab.host().namespace(), &lines, |changes| {
            wait_for("enough changes", 3 * SOON, || {
                let changes = changes.load(Ordering::Relaxed);
                if changes >= 20 * BATCH {
                    Ok(())
                } else {
                    Err(changes)
                }
            })
        })?;
        let (woken, cpu) = (wake_ups(&agent)? - woken, agent.cpu_time()? - cpu);
        let took = begun.elapsed();
        eprintln!("{changes} changes of {what} in {took:?}: {woken} wake-ups, {cpu:?} of CPU time");
        // Probe rounds, the lease and what belongs to them: 5 wake-ups and 1 ms of CPU time a second. The changes, if they came
        // through, would be hundreds and 25 ms.
        let seconds = u32::try_from(took.as_secs())? + 1;
        assert!(
            woken < 30 * u64::from(seconds) && cpu < Duration::from_millis(8) * seconds,
            "{woken} wake-ups and {cpu:?} in {took:?} for {changes} changes of {what}"
        );
    }
    let resync = |line: &failover_lab::LogLine| message(line) == "netlink: Resync";
    assert!(!agent.log().iter().any(resync));
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn foreign_routes_do_not_delay_a_switch() -> Scenario {
    /// Thousands of times what a switch takes, and less than a wait for anything.
    const BOUND: Duration = Duration::from_secs(1);

    let lab = Lab::builder().build()?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    let (changes, timeline) = flooded(lab.host().namespace(), &foreign_routes(&lab), |changes| {
        wait_for("the flood", SOON, || {
            let changes = changes.load(Ordering::Relaxed);
            if changes >= 4 * BATCH {
                Ok(())
            } else {
                Err(changes)
            }
        })?;
        let _fault = lab.uplink("cable").blackhole()?;
        let status = agent.wait_for_status("lte as the active one", SOON, |status| {
            status["switches"][0]["to"] == "lte"
                && status["switches"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|switch| switch["family"] == "ipv4" && switch["to"] == "lte")
        })?;
        let switches = status["switches"].as_array().context("no switches")?;
        let switch = switches
            .iter()
            .find(|switch| switch["family"] == "ipv4" && switch["to"] == "lte");
        Ok(switch.context("no switch")?["timeline"].clone())
    })?;
    eprintln!("a switch during {changes} changes: {timeline}");
    let step = |name: &str| timeline[name].as_u64().context("no such step");
    let took = Duration::from_micros(step("routed_us")? - step("decided_us")?);
    assert!(took < BOUND, "{took:?} from the decision to the route");
    Ok(())
}
