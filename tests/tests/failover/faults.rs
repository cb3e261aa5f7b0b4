//! One failover and one failback for each way in which a link can fail.

use std::time::{Duration, Instant};

use anyhow::Result;
use failover_lab::{AgentProcess, Direction, Fault, Lab, Scenario, UplinkSpec, paced, wait_until};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    SOON, has_health, history, state, status, uplink, wait_for_health, wait_for_history,
    wait_for_probes, wait_for_status,
};

use super::fixtures::{MANY, Settings, check_active, targets_v4, targets_v6};

const BROKEN: [&str; 2] = ["start-up cable", "failover lte"];
const REPAIRED: [&str; 3] = ["start-up cable", "failover lte", "failback cable"];

/// A laboratory with `cable` and `lte`, and an agent to which both are Up and `cable` is active.
fn start(settings: &Settings) -> Result<(Lab, AgentProcess)> {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&settings.config(&lab))?;
    wait_for_history(&agent, Family::V4, &BROKEN[..1])?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    Ok((lab, agent))
}

/// With the fault in force the agent fails over, and back when it is repaired.
fn fails_over_and_back(lab: &Lab, agent: &AgentProcess, fault: Fault) -> Result<()> {
    wait_for_history(agent, Family::V4, &BROKEN)?;
    fault.repair()?;
    wait_for_history(agent, Family::V4, &REPAIRED)?;
    check_active(lab, agent, Family::V4, "cable")
}

#[test]
#[ignore = "needs root"]
fn loss_in_one_direction_is_enough() -> Scenario {
    for direction in [Direction::Out, Direction::In] {
        let (lab, agent) = start(&Settings::default())?;
        let fault = lab.uplink("cable").one_way_loss(direction)?;
        fails_over_and_back(&lab, &agent, fault)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_lost_carrier_needs_no_probes() -> Scenario {
    // By its probes it would notice after 50 s.
    let (lab, agent) = start(&Settings {
        fall: 1000,
        ..Settings::default()
    })?;
    let fault = lab.uplink("cable").carrier_down()?;
    fails_over_and_back(&lab, &agent, fault)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_was_set_down_comes_back_with_all_that_is_ours() -> Scenario {
    let (lab, agent) = start(&Settings::default())?;
    check_active(&lab, &agent, Family::V4, "cable")?;
    check_active(&lab, &agent, Family::V6, "cable")?;
    let before = lab.host().snapshot()?;
    let as_before = || {
        wait_until("routes, rules and addresses are as they were", SOON, || {
            lab.host().snapshot().is_ok_and(|now| now == before)
        })
        .or_else(|_| before.ensure_same(&lab.host().snapshot()?))
    };

    // The standby alone: nobody should notice.
    let fault = lab.uplink("lte").admin_down()?;
    wait_for_health(&agent, "lte", Family::V4, Health::Down)?;
    fault.repair()?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    as_before()?;
    check_active(&lab, &agent, Family::V4, "cable")?;

    let fault = lab.uplink("cable").admin_down()?;
    wait_for_history(&agent, Family::V4, &BROKEN)?;
    assert!(lab.host().ping(targets_v4()[0], SOON)?.is_some());
    fault.repair()?;
    wait_for_history(&agent, Family::V4, &REPAIRED)?;
    as_before()?;
    check_active(&lab, &agent, Family::V4, "cable")?;
    check_active(&lab, &agent, Family::V6, "cable")?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_gateway_that_does_not_answer_arp_is_loss() -> Scenario {
    let (lab, agent) = start(&Settings::default())?;
    let fault = lab.uplink("cable").gateway_gone()?;
    // As if it had been gone for long: the probes now wait for ARP.
    let host = lab.host().namespace();
    host.exec("ip", &["neighbour", "flush", "dev", "cable"])?;
    fails_over_and_back(&lab, &agent, fault)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_icmp_error_is_no_answer() -> Scenario {
    let settings = Settings {
        targets: [targets_v4(), targets_v6()].concat(),
        ..Settings::default()
    };
    let (lab, agent) = start(&settings)?;
    wait_for_history(&agent, Family::V6, &BROKEN[..1])?;
    wait_for_health(&agent, "lte", Family::V6, Health::Up)?;
    let fault = lab.uplink("cable").unreachable()?;
    wait_for_history(&agent, Family::V6, &BROKEN)?;
    fails_over_and_back(&lab, &agent, fault)?;
    wait_for_history(&agent, Family::V6, &REPAIRED)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_answer_may_take_longer_than_the_interval_but_not_than_the_timeout() -> Scenario {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::tun("cable"), UplinkSpec::veth("lte")])
        .build()?;
    let settings = Settings {
        timeout: paced(600),
        ..Settings::default()
    };
    let one_way = paced(100);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let probes = |agent: &AgentProcess| {
        Ok::<_, anyhow::Error>(uplink(&status(agent)?, "cable").counters.probes_passed)
    };
    let slow = lab.uplink("cable").delay(one_way)?;
    let agent = lab.start_agent(&settings.config(&lab))?;
    wait_for_history(&agent, Family::V4, &BROKEN[..1])?;
    let begun = Instant::now();
    let before = probes(&agent)?;
    wait_for_probes(&agent, &["cable"], MANY)?;
    let rounds = (probes(&agent)? - before) / settings.targets.len() as u64;
    // At four intervals to the answer; had they waited for each other they would have been fewer.
    let one_by_one = begun.elapsed().as_millis() / (2 * one_way).as_millis();
    assert!(u128::from(rounds) > one_by_one, "{rounds}, {one_by_one}");
    let delayed = wait_for_status(&agent, "the delay", |status| {
        uplink(status, "cable").rtt_ms >= Some(ms(2 * one_way))
    })?;
    assert!(has_health(&delayed, "cable", Family::V4, Health::Up));
    assert_eq!(history(&agent, Family::V4), BROKEN[..1]);

    let too_slow = lab.uplink("cable").delay(settings.timeout)?;
    wait_for_history(&agent, Family::V4, &BROKEN)?;
    let during = wait_for_health(&agent, "cable", Family::V4, Health::Down)?;
    let rtt = state(&during, "cable", Family::V4).and_then(|state| state.rtt_ms);
    assert!(
        rtt < Some(ms(settings.timeout)),
        "a late answer was taken: {rtt:?}"
    );
    too_slow.repair()?;
    slow.repair()?;
    wait_for_history(&agent, Family::V4, &REPAIRED)?;
    Ok(())
}
