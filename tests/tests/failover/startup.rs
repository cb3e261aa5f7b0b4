//! What is decided when nothing works, or nothing is known yet.

use failover_ebpf::Gate;
use failover_lab::{Lab, Scenario, TARGET_V4};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    FORCED, default_routes, history, status, uplink, wait_for_health, wait_for_history,
    wait_for_probes,
};

use super::fixtures::{MANY, Settings, check_active};

#[test]
#[ignore = "needs root"]
fn with_the_preferred_uplink_dead_at_the_start_the_backup_is_first() -> Scenario {
    let lab = Lab::builder().build()?;
    let fault = lab.uplink("cable").blackhole()?;
    let agent = lab.start_agent(&Settings::default().config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up lte"])?;
    check_active(&lab, &agent, Family::V4, "lte")?;
    fault.repair()?;
    wait_for_history(&agent, Family::V4, &["start-up lte", "failback cable"])?;
    check_active(&lab, &agent, Family::V4, "cable")?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn with_all_uplinks_dead_at_the_start_nothing_is_touched_until_one_answers() -> Scenario {
    let lab = Lab::builder().build()?;
    let routes = |family| default_routes(&lab, family);
    let before = [routes(Family::V4)?, routes(Family::V6)?];
    let cable = lab.uplink("cable").blackhole()?;
    let lte = lab.uplink("lte").blackhole()?;
    let agent = lab.start_agent(&Settings::default().config(&lab))?;
    for name in ["cable", "lte"] {
        wait_for_health(&agent, name, Family::V4, Health::Down)?;
    }
    wait_for_probes(&agent, &["cable", "lte"], MANY)?;
    assert_eq!(history(&agent, Family::V4), [""; 0]);
    assert_eq!([routes(Family::V4)?, routes(Family::V6)?], before);
    let untouched = status(&agent)?;
    assert_eq!(untouched.active, None);
    for name in ["cable", "lte"] {
        // There is no answer either way, but the gate must not be why.
        lab.host().ping_by(name, TARGET_V4, FORCED)?;
        let now = status(&agent)?;
        assert_eq!(uplink(&now, name).gate, Gate::Open);
        assert_eq!(uplink(&now, name).counters.cut_packets, 0);
    }

    // Whichever answers first, however much less it is preferred.
    lte.repair()?;
    wait_for_history(&agent, Family::V4, &["start-up lte"])?;
    wait_for_history(&agent, Family::V6, &["follow lte"])?;
    check_active(&lab, &agent, Family::V4, "lte")?;
    cable.repair()?;
    wait_for_history(&agent, Family::V4, &["start-up lte", "failback cable"])?;
    check_active(&lab, &agent, Family::V4, "cable")?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn with_both_uplinks_down_nothing_changes_until_one_recovers() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&Settings::default().config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_history(&agent, Family::V6, &["follow cable"])?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    check_active(&lab, &agent, Family::V4, "cable")?;
    let before = lab.host().snapshot()?;

    // The backup first: there is never anywhere to go.
    let lte = lab.uplink("lte").blackhole()?;
    wait_for_health(&agent, "lte", Family::V4, Health::Down)?;
    let cable = lab.uplink("cable").blackhole()?;
    wait_for_health(&agent, "cable", Family::V4, Health::Down)?;
    wait_for_probes(&agent, &["cable", "lte"], MANY)?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    before.ensure_same(&lab.host().snapshot()?)?;
    check_active(&lab, &agent, Family::V4, "cable")?;

    lte.repair()?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    check_active(&lab, &agent, Family::V4, "lte")?;
    cable.repair()?;
    wait_for_history(
        &agent,
        Family::V4,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    Ok(())
}
