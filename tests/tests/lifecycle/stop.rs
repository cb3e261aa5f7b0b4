//! SIGTERM and SIGINT: everything displaced is put back, everything of the agent's own is gone.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use failover_lab::{
    ECHO_PORT, Lab, Scenario, TARGET_V4, TARGETS_V4, TARGETS_V6, UplinkSpec, wait_until,
};
use failover_tests::fixtures::{
    SOON,
    json::{uplink, wait_active},
};
use nix::sys::signal::Signal;

use super::fixtures::{Everything, run, set_foreign_route, start, start_with};

#[test]
#[ignore = "needs root"]
fn a_stop_gives_back_exactly_what_was_displaced() -> Scenario {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = start(&lab)?;
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
fn more_signals_during_the_clean_up_do_not_make_it_worse() -> Scenario {
    let lab = Lab::builder().build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    for signals in [
        [Signal::SIGINT, Signal::SIGINT],
        [Signal::SIGTERM, Signal::SIGINT],
        [Signal::SIGTERM, Signal::SIGTERM],
    ] {
        let mut agent = start(&lab)?;
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
fn a_signal_in_the_middle_of_the_start_leaves_nothing_behind() -> Scenario {
    let lab = Lab::builder().build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    let path = lab.write_config(&lab.agent_config().quick())?;
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

/// Connects again and again until told to stop; how many connections were made, and which errors there were.
fn connect(
    target: SocketAddr,
    stop: &AtomicBool,
) -> Result<(usize, BTreeMap<io::ErrorKind, usize>)> {
    let (mut made, mut errors) = (0, BTreeMap::new());
    while !stop.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&target, SOON) {
            Ok(_) => made += 1,
            Err(error) => *errors.entry(error.kind()).or_default() += 1,
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok((made, errors))
}

#[test]
#[ignore = "needs root"]
fn a_stop_refuses_no_new_connection() -> Scenario {
    let lab = Lab::builder().build()?;
    for attach in ["auto", "clsact"] {
        let mut agent = start_with(&lab, &lab.agent_config().quick().attach(attach))?;
        agent.wait_for_status("lte as Up", SOON, |status| {
            uplink(status, "lte")["health"] == "Up"
        })?;
        // Back to cable, whose gate is closed then, lead the routes that the stop leaves.
        agent.verb(&["switch", "lte"])?;
        agent.wait_for_status("cable's gates as closed", SOON, |status| {
            let families = &uplink(status, "cable")["families"];
            ["ipv4", "ipv6"].map(|family| &families[family]["gate"]) == ["closed", "closed"]
        })?;
        let stop = AtomicBool::new(false);
        let targets = [IpAddr::from(TARGETS_V4[0]), TARGETS_V6[0].into()];
        let host = lab.host().namespace();
        let results = thread::scope(|scope| {
            let clients = targets.map(|target| {
                let (target, stop) = (SocketAddr::new(target, ECHO_PORT), &stop);
                scope.spawn(move || host.run(|| connect(target, stop)))
            });
            thread::sleep(Duration::from_millis(100));
            let ended = agent
                .signal(Signal::SIGTERM)
                .and_then(|()| agent.wait_exit(SOON));
            thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
            let results = clients.map(thread::ScopedJoinHandle::join);
            ended.map(|status| (status, results))
        });
        let (status, results) = results?;
        assert_eq!(status.code(), Some(0));
        for (target, result) in targets.into_iter().zip(results) {
            let Ok(result) = result else {
                panic!("the client of {target} has panicked");
            };
            let (made, errors) = result?;
            assert!(made > 20, "{made} connections with {target}");
            assert_eq!(errors, BTreeMap::new(), "{target}, {attach}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn what_cannot_be_removed_is_told_after_all_the_rest_was() -> Scenario {
    let lab = Lab::builder().build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    let bpf = &lab.agent_dirs().bpf;
    let (links, mine) = (bpf.join("links"), bpf.join("links/not-the-agents"));
    // A directory of another program below the agent's own, which the agent cannot remove then.
    for stopped in [true, false] {
        let mut agent = start(&lab)?;
        fs::create_dir(&mine)?;
        let (code, told) = if stopped {
            agent.signal(Signal::SIGTERM)?;
            let code = agent.wait_exit(SOON)?.code();
            let last = agent.log().last().map(|line| line.text.clone());
            (code, last.unwrap_or_default())
        } else {
            agent.kill9()?;
            let reset = run(&lab, &["reset"])?;
            (reset.code, reset.stderr)
        };
        assert_eq!(code, Some(33), "{told}");
        for part in [
            "not everything",
            &links.display().to_string(),
            "failover-agent reset",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        before.kernel().ensure_same(&lab.host().snapshot()?)?;
        assert!(
            !bpf.join("settings").exists() && !lab.agent_dirs().run.join("control.sock").exists()
        );
        fs::remove_dir(&mine)?;
        let reset = run(&lab, &["reset"])?;
        assert_eq!(reset.code, Some(0), "{reset:?}");
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    Ok(())
}
