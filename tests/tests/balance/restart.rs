//! Agents that begin and end while a group is active.

use std::time::Duration;

use anyhow::Result;
use failover_lab::{AgentProcess, Lab, Scenario, Snapshot, TARGET_V4, TARGET_V6, Uplink, wait_for};
use failover_policy::Family;
use nix::sys::signal::Signal;

use super::{
    fixtures::{
        SOON, check_active, ensure_alive, ensure_never_without_route, history, start, status, two,
        wait_active,
    },
    flows::{Flows, connect_by},
};

/// Longer than any start takes.
const LONG_LEASE: Duration = Duration::from_mins(1);

/// The kernel's state, and what groups change of its settings.
fn everything(lab: &Lab) -> Result<(Snapshot, [String; 2])> {
    let host = lab.host();
    let policy = |family| {
        let key = format!("net/{family}/fib_multipath_hash_policy");
        host.namespace().sysctl(&key)
    };
    Ok((host.snapshot()?, [policy("ipv4")?, policy("ipv6")?]))
}

/// Checks that nothing has changed but the programs' numbers, and that no gate was touched.
fn ensure_kept(agent: &AgentProcess, lines: usize, before: &Snapshot, lab: &Lab) -> Result<()> {
    for line in agent.log().iter().skip(lines) {
        assert!(line.field("gate").is_none(), "{}", line.text);
    }
    let diff = before.diff(&lab.host().snapshot()?);
    let mut changed = diff.lines().iter().filter(|line| !line.contains(" tcx "));
    assert!(changed.next().is_none(), "{diff}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_group_outlives_the_agent() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "lte"])
        .lan()
        .build()?;
    let mut agent = start(&lab, &two(&lab).lease(LONG_LEASE), "cable,dsl")?;
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    let connections = [
        connect_by(&lab, lab.host(), TARGET_V6, "dsl")?,
        connect_by(&lab, lab.client(), TARGET_V4, "cable")?,
        connect_by(&lab, lab.client(), TARGET_V4, "dsl")?,
    ];
    let mut flows = Flows::open(lab.client(), TARGET_V4, 60)?.only(&["cable", "dsl"]);
    let (standing, _) = everything(&lab)?;

    let lines = agent.log().len();
    agent.verb(&["restart"])?;
    check_active(&lab, &status(&agent)?, "cable,dsl")?;
    let starts = wait_for("the group is taken over", SOON, || {
        let starts = history(&agent, Family::V4);
        if starts.len() > 1 {
            Ok(starts)
        } else {
            Err("it is not")
        }
    })?;
    assert_eq!(starts, ["start-up cable,dsl"; 2]);
    flows.ensure_put()?;
    ensure_kept(&agent, lines, &standing, &lab)?;

    agent.kill9()?;
    flows.ensure_put()?;
    let agent = lab.start_agent(&two(&lab).lease(LONG_LEASE))?;
    // From the first moment on, before any round could tell.
    check_active(&lab, &status(&agent)?, "cable,dsl")?;
    wait_for("the group is taken over", SOON, || {
        match history(&agent, Family::V4).as_slice() {
            [] => Err("it is not"),
            _ => Ok(()),
        }
    })?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable,dsl"]);
    flows.ensure_put()?;
    ensure_kept(&agent, 0, &standing, &lab)?;
    ensure_alive(&connections)?;
    ensure_never_without_route(steady)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn nothing_of_a_group_is_left_behind() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let before = everything(&lab)?;
    for kill in [false, true] {
        let mut agent = start(&lab, &two(&lab), "cable,dsl")?;
        let (during, policies) = everything(&lab)?;
        assert_eq!(policies, ["1", "1"]);
        assert_eq!(
            during.lines_with("nexthop ").len(),
            5,
            "two for each member, and a group"
        );
        if kill {
            agent.kill9()?;
            agent.verb(&["reset"])?;
        } else {
            agent.signal(Signal::SIGTERM)?;
            assert_eq!(agent.wait_exit(SOON)?.code(), Some(0));
        }
        let after = everything(&lab)?;
        before.0.ensure_same(&after.0)?;
        assert_eq!(before.1, after.1);
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_member_that_was_down_does_not_join_because_of_a_restart() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "lte"])
        .lan()
        .build()?;
    let mut agent = start(&lab, &two(&lab).lease(LONG_LEASE), "cable,dsl")?;
    let mut flows = Flows::open(lab.client(), TARGET_V4, 60)?.only(&["cable", "dsl"]);
    let fault = lab.uplink("dsl").blackhole()?;
    wait_active(&lab, &agent, "cable")?;
    flows.ensure_all_by("cable")?;
    agent.kill9()?;
    let agent = lab.start_agent(&two(&lab).lease(LONG_LEASE))?;
    check_active(&lab, &status(&agent)?, "cable")?;
    fault.repair()?;
    wait_active(&lab, &agent, "cable,dsl")?;
    flows.ensure_all_by("cable")?;
    let expected = ["start-up cable", "failback cable,dsl"];
    assert_eq!(history(&agent, Family::V4), expected);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_group_is_taken_over_though_nobody_answers() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let mut agent = start(&lab, &two(&lab).lease(LONG_LEASE), "cable,dsl")?;
    agent.kill9()?;
    let standing = lab.host().snapshot()?;
    let faults: Result<Vec<_>> = lab.uplinks().iter().map(Uplink::blackhole).collect();
    let agent = lab.start_agent(&two(&lab).lease(LONG_LEASE))?;
    agent.wait_for_status("all uplinks Down", SOON, |status| {
        let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
        uplinks.all(|uplink| uplink["health"] == "Down")
    })?;
    check_active(&lab, &status(&agent)?, "cable,dsl")?;
    assert_eq!(history(&agent, Family::V4), [""; 0]);
    ensure_kept(&agent, 0, &standing, &lab)?;
    drop(faults);
    wait_active(&lab, &agent, "cable,dsl")?;
    Ok(())
}
