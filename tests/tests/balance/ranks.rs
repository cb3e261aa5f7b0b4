//! A group with a backup behind it.

use std::time::Duration;

use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6};
use failover_policy::Family;

use super::{
    fixtures::{
        SOON, ensure_alive, ensure_never_without_route, history, start, status, two, wait_active,
    },
    flows::connect_by,
};

#[test]
#[ignore = "needs root"]
fn the_backup_takes_over_when_the_whole_group_is_down() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "lte"])
        .lan()
        .build()?;
    let agent = start(&lab, &two(&lab), "cable,dsl")?;
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    let last = connect_by(&lab, lab.client(), TARGET_V4, "dsl")?;
    let cable = lab.uplink("cable").blackhole()?;
    wait_active(&lab, &agent, "dsl")?;
    let dsl = lab.uplink("dsl").blackhole()?;
    wait_active(&lab, &agent, "lte")?;
    last.wait_ended(SOON)?;

    let backup = connect_by(&lab, lab.host(), TARGET_V6, "lte")?;
    dsl.repair()?;
    wait_active(&lab, &agent, "dsl")?;
    backup.wait_ended(SOON)?;
    let first = connect_by(&lab, lab.client(), TARGET_V4, "dsl")?;
    cable.repair()?;
    wait_active(&lab, &agent, "cable,dsl")?;
    ensure_alive([&first])?;
    let expected = [
        "start-up cable,dsl",
        "failover dsl",
        "failover lte",
        "failback dsl",
        "failback cable,dsl",
    ];
    assert_eq!(history(&agent, Family::V4), expected);
    ensure_never_without_route(steady)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_backup_drains_when_the_group_is_back() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let agent = start(&lab, &two(&lab).drain(Duration::from_hours(1)), "cable,dsl")?;
    let _cable = lab.uplink("cable").blackhole()?;
    let dsl = lab.uplink("dsl").blackhole()?;
    wait_active(&lab, &agent, "lte")?;
    let backup = connect_by(&lab, lab.host(), TARGET_V4, "lte")?;
    dsl.repair()?;
    agent.wait_for_status("dsl as the active one", SOON, |status| {
        status["active"] == "dsl"
    })?;
    ensure_alive([&backup])?;
    let status = status(&agent)?;
    for family in Family::ALL {
        let lte = status.uplinks.iter().find(|uplink| uplink.name == "lte");
        let state = lte.and_then(|lte| lte.families.get(family));
        let drains = state.is_some_and(|state| state.draining_s > Some(3000.0));
        assert!(drains, "{family}: {status:#?}");
    }
    Ok(())
}
