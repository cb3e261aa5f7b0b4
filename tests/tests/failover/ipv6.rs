//! IPv6: alone, beside IPv4 with a mind of its own, and in IPv4's wake.

use std::time::Instant;

use anyhow::Result;
use failover_lab::{Fault, Lab, Scenario, TARGET_V4, TARGET_V6, TARGETS_V6};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{SOON, history, status, wait_for_health, wait_for_history};

use super::fixtures::{Settings, check_active, targets_v4, targets_v6};

#[test]
#[ignore = "needs root"]
fn ipv6_targets_alone_lead_both_families() -> Scenario {
    one_family_leads_both(Family::V6, Family::V4)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn ipv4_targets_alone_lead_both_families() -> Scenario {
    one_family_leads_both(Family::V4, Family::V6)?;
    Ok(())
}

fn one_family_leads_both(leader: Family, follower: Family) -> Result<()> {
    let lab = Lab::builder().build()?;
    let settings = Settings {
        targets: match leader {
            Family::V4 => targets_v4(),
            Family::V6 => targets_v6(),
        },
        ..Settings::default()
    };
    let agent = lab.start_agent(&settings.config(&lab))?;
    wait_for_history(&agent, leader, &["start-up cable"])?;
    wait_for_health(&agent, "lte", leader, Health::Up)?;
    assert_eq!(status(&agent)?.primary, leader);
    let streams = [TARGET_V4, TARGET_V6].map(|target| lab.host().udp_stream(target).start());
    let streams = streams.into_iter().collect::<Result<Vec<_>>>()?;
    for stream in &streams {
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    }
    let fault = lab.uplink("cable").blackhole()?;
    wait_for_history(&agent, leader, &["start-up cable", "failover lte"])?;
    wait_for_history(&agent, follower, &["follow cable", "follow lte"])?;
    for stream in &streams {
        stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    }
    for family in Family::ALL {
        check_active(&lab, &agent, family, "lte")?;
    }
    fault.repair()?;
    wait_for_history(
        &agent,
        leader,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    wait_for_history(
        &agent,
        follower,
        &["follow cable", "follow lte", "follow cable"],
    )?;
    for family in Family::ALL {
        check_active(&lab, &agent, family, "cable")?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_families_fail_over_independently() -> Scenario {
    let lab = Lab::builder().build()?;
    let settings = Settings {
        targets: [targets_v4(), targets_v6()].concat(),
        ..Settings::default()
    };
    let agent = lab.start_agent(&settings.config(&lab))?;
    for family in Family::ALL {
        wait_for_history(&agent, family, &["start-up cable"])?;
        wait_for_health(&agent, "lte", family, Health::Up)?;
    }
    let v4 = lab.host().udp_stream(TARGET_V4).start()?;
    let v6 = lab.host().udp_stream(TARGET_V6).start()?;
    for stream in [&v4, &v6] {
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    }
    let cable = lab.uplink("cable");
    let since = Instant::now();
    let faults: Vec<Fault> = TARGETS_V6
        .iter()
        .map(|target| cable.towards((*target).into()).blackhole())
        .collect::<Result<_>>()?;
    wait_for_history(&agent, Family::V6, &["start-up cable", "failover lte"])?;
    v6.wait_for_echo_by("lte", since, SOON)?;
    check_active(&lab, &agent, Family::V6, "lte")?;
    check_active(&lab, &agent, Family::V4, "cable")?;
    faults
        .into_iter()
        .try_for_each(|fault| fault.repair().map(drop))?;
    wait_for_history(
        &agent,
        Family::V6,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    v6.wait_for_echo_by("cable", Instant::now(), SOON)?;
    assert_eq!(v6.stop()?.path(), ["cable", "lte", "cable"]);
    let v4 = v4.stop()?;
    assert_eq!((v4.path(), v4.lost()), (vec!["cable"], 0));
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}
