//! SIGTERM and SIGINT: everything displaced is put back, everything of the agent's own is gone.

use std::{thread, time::Duration};

use anyhow::Result;
use failover_tests::{
    lab::{Lab, TARGET_V4, UplinkSpec, wait_until},
    scene::{SOON, json::wait_active},
};
use nix::sys::signal::Signal;

use super::support::{Everything, config, set_foreign_route, start};

#[test]
#[ignore = "needs root"]
fn a_stop_gives_back_exactly_what_was_displaced() -> Result<()> {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = start(&lab, "")?;
        if signal == Signal::SIGINT {
            // Once more, after a failover.
            let fault = lab.uplink("cable").blackhole()?;
            wait_active(&agent, "lte")?;
            fault.repair()?;
        }
        let during = Everything::of(&lab)?;
        assert!(before.ensure_same(&during).is_err());
        let routes = lab.host().default_routes_v4()?;
        assert!(
            routes.iter().all(|route| route.metric > 0),
            "the foreign route was not displaced: {routes:?}"
        );
        for part in [
            "tcx cable egress",
            "tcx cable ingress",
            "tcx lte egress",
            "tcx lte ingress",
        ] {
            assert_eq!(during.kernel().lines_with(part).len(), 1, "{part}");
        }
        agent.signal(signal)?;
        assert_eq!(agent.wait_exit(SOON)?.code(), Some(0), "after {signal}");
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    assert!(lab.host().ping(TARGET_V4, SOON)?.is_some());
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn more_signals_during_the_clean_up_do_not_make_it_worse() -> Result<()> {
    let lab = Lab::builder().build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    for signals in [
        [Signal::SIGINT, Signal::SIGINT],
        [Signal::SIGTERM, Signal::SIGINT],
        [Signal::SIGTERM, Signal::SIGTERM],
    ] {
        let mut agent = start(&lab, "")?;
        for signal in signals.into_iter().cycle().take(60) {
            // A process that has ended but was not waited for takes signals, too.
            agent.signal(signal)?;
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(agent.wait_exit(SOON)?.code(), Some(0), "after {signals:?}");
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_signal_in_the_middle_of_the_start_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::builder().build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    let path = lab.write_config(&config(&lab, ""))?;
    let dirs = lab.agent_dirs();
    for early in [
        dirs.bpf.clone(),
        dirs.bpf.join("settings"),
        dirs.run.join("control.sock"),
    ] {
        let mut agent = lab.spawn_agent(&["run", "--config", &path.to_string_lossy()])?;
        let what = format!("{} exists", early.display());
        wait_until(&what, SOON, || early.exists())?;
        agent.signal(Signal::SIGTERM)?;
        assert_eq!(agent.wait_exit(SOON)?.code(), Some(0), "{what}");
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    Ok(())
}
