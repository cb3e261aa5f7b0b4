//! Losses that are none of the link's, losses that come and go, and how many targets it takes.

use std::{net::IpAddr, thread, time::Instant};

use anyhow::Result;
use failover_lab::{Fault, Lab, Scenario, TARGETS_V4, paced};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    has_health, history, status, stop, uplink, wait_for_health, wait_for_history, wait_for_probes,
    wait_for_status,
};

use super::fixtures::{MANY, Settings};

#[test]
#[ignore = "needs root"]
fn a_flapping_uplink_causes_one_failover_and_one_failback_in_each_hold_time() -> Scenario {
    const FLAPS: u32 = 5;

    let phase = paced(300);
    let lab = Lab::builder().build()?;
    let settings = Settings {
        timeout: paced(100),
        rise: 2,
        hold: paced(3000),
        ..Settings::default()
    };
    let agent = lab.start_agent(&settings.config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    let mut fault = lab.uplink("cable").blackhole()?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    for _ in 0..FLAPS {
        let repairing = Instant::now();
        fault.repair()?;
        // Good enough for `rise`, which alone would switch back and forth with every flap.
        wait_for_health(&agent, "cable", Family::V4, Health::Up)?;
        fault = lab.uplink("cable").blackhole()?;
        let flap = repairing.elapsed();
        assert!(flap < settings.hold, "this machine is too slow: {flap:?}");
        thread::sleep(phase);
    }
    assert_eq!(
        history(&agent, Family::V4),
        ["start-up cable", "failover lte"]
    );
    let repairing = Instant::now();
    fault.repair()?;
    let back = wait_for_history(
        &agent,
        Family::V4,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    let took = back - repairing;
    assert!(took >= settings.hold, "{took:?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn random_loss_on_all_targets_is_no_reason_to_switch() -> Scenario {
    let lab = Lab::builder().build()?;
    let settings = Settings {
        interval: paced(25),
        ..Settings::default()
    };
    let agent = lab.start_agent(&settings.config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    // Each way: a probe is lost with 19 %, a round of three with 0.7 %, three rounds on end with 1 in 3 million.
    let _faults = [lab.uplink("cable").loss(10)?, lab.uplink("lte").loss(10)?];
    for _ in 0..3 {
        wait_for_probes(&agent, &["cable", "lte"], MANY)?;
    }
    wait_for_status(&agent, "the loss", |status| {
        let loss = |name| uplink(status, name).loss_pct;
        loss("cable") > Some(5.0) && loss("lte") > Some(5.0)
    })?;
    let now = status(&agent)?;
    for name in ["cable", "lte"] {
        assert!(has_health(&now, name, Family::V4, Health::Up), "{name}");
    }
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_uplink_is_up_as_long_as_quorum_targets_answer() -> Scenario {
    let lab = Lab::builder().build()?;
    let cable = lab.uplink("cable");
    for quorum in [1, 2] {
        let settings = Settings {
            quorum,
            ..Settings::default()
        };
        let agent = lab.start_agent(&settings.config(&lab))?;
        wait_for_history(&agent, Family::V4, &["start-up cable"])?;
        let kill = |target| cable.towards(IpAddr::from(target)).blackhole();
        let (spare, needed) = TARGETS_V4.split_at(TARGETS_V4.len() - quorum as usize);
        let _dead: Vec<Fault> = spare.iter().copied().map(kill).collect::<Result<_>>()?;
        wait_for_probes(&agent, &["cable"], MANY)?;
        assert!(uplink(&status(&agent)?, "cable").loss_pct > Some(10.0));
        assert_eq!(history(&agent, Family::V4), ["start-up cable"]);

        let one_too_many = kill(needed[0])?;
        wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
        one_too_many.repair()?;
        wait_for_history(
            &agent,
            Family::V4,
            &["start-up cable", "failover lte", "failback cable"],
        )?;
        stop(agent)?;
    }
    Ok(())
}
