//! kill -9, and what then: a restart within the lease adopts everything; without one the gates open.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use failover_lab::{AgentProcess, Lab, Scenario, TARGET_V4, TARGETS_V4, agent_path};
use failover_tests::fixtures::{
    SOON,
    json::{counter, uplink, wait_active},
    wait_sent,
};
use serde_json::Value;

use super::fixtures::{Everything, run, set_foreign_route, start_with};

/// Longer than any restart takes.
const LONG_LEASE: Duration = Duration::from_mins(1);

const COUNTERS: [&str; 7] = [
    "tx_packets",
    "tx_bytes",
    "rx_packets",
    "rx_bytes",
    "cut_packets",
    "cut_bytes",
    "probes_passed",
];

/// Whether the agent has found both uplinks' programs in place.
fn ensure_adopted(agent: &AgentProcess) -> Result<()> {
    for uplink in ["cable", "lte"] {
        let line = agent.wait_for_line("what it did with the programs", SOON, |line| {
            line.field("uplink").is_some_and(|name| name == uplink)
                && line.field("adopted").is_some()
        })?;
        assert_eq!(
            line.field("adopted"),
            Some(&Value::Bool(true)),
            "{}",
            line.text
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_restart_keeps_counters_gates_and_traffic() -> Scenario {
    let lab = Lab::builder().build()?;
    let mut agent = start_with(&lab, &lab.agent_config().quick().lease(LONG_LEASE))?;
    let lte = lab.uplink("lte");
    let capture = lte.capture("udp", &lab.agent_dirs().scratch.join("lte.pcap"))?;
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    // Its source address leads it to the standby, past the main table.
    let forced = lab
        .host()
        .udp_stream(TARGETS_V4[1].into())
        .from(lte.host_v4())
        .every(Duration::from_millis(1))
        .start()?;
    for _ in 0..2 {
        wait_sent(&forced, 50)?;
        agent.kill9()?;
        let programs = lab.host().snapshot()?.lines_with("tcx ").len();
        assert_eq!(programs, 4, "the programs of the dead agent still run");
        wait_sent(&forced, 50)?;
        let path = lab.write_config(&lab.agent_config().quick().lease(LONG_LEASE))?;
        let next = lab.spawn_agent(&["run", "--config", &path.to_string_lossy()])?;
        ensure_adopted(&next)?;
        let status = wait_active(&next, "cable")?;
        wait_sent(&forced, 50)?;
        for line in next.log() {
            assert!(
                line.field("gate").is_none_or(|gate| gate != "open"),
                "{}",
                line.text
            );
        }
        assert!(counter(&status, "lte", "cut_packets") >= 100, "{status:#}");
        agent = next;
    }
    let forced = forced.stop()?;
    let status = agent.status_json()?;
    assert_eq!(counter(&status, "lte", "cut_packets"), forced.sent() as u64);
    assert_eq!(forced.answered(), 0);
    assert_eq!(capture.finish()?.lines("")?, [""; 0], "the gate was open");
    let steady = steady.stop()?;
    assert_eq!(steady.path(), ["cable"]);
    assert_eq!(steady.lost(), 0, "longest gap {:?}", steady.longest_gap());
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_restart_after_a_failover_stays_where_it_is() -> Scenario {
    let lab = Lab::builder().build()?;
    let mut agent = start_with(&lab, &lab.agent_config().quick().lease(LONG_LEASE))?;
    let fault = lab.uplink("cable").blackhole()?;
    let before = wait_active(&agent, "lte")?;
    agent.kill9()?;
    let routes = Everything::of(&lab)?;
    let agent = lab.start_agent(&lab.agent_config().quick().lease(LONG_LEASE))?;
    ensure_adopted(&agent)?;
    // From the first moment on, before any round could tell.
    let first = agent.status_json()?;
    assert_eq!(first["active"], "lte");
    assert_eq!(uplink(&first, "cable")["gate"], "closed");
    for name in ["cable", "lte"] {
        for key in COUNTERS {
            let (before, after) = (counter(&before, name, key), counter(&first, name, key));
            assert!(after >= before, "{key} of {name}: {before}, then {after}");
        }
    }
    agent.wait_for_status("cable as Down", SOON, |status| {
        uplink(status, "cable")["health"] == "Down" && uplink(status, "lte")["health"] == "Up"
    })?;
    let kernel = lab.host().snapshot()?;
    let diff = routes.kernel().diff(&kernel);
    let changed: Vec<_> = diff
        .lines()
        .iter()
        .filter(|line| !line.contains(" tcx "))
        .collect();
    assert!(changed.is_empty(), "{diff}");
    fault.repair()?;
    let status = wait_active(&agent, "cable")?;
    let causes: Vec<_> = status["switches"]
        .as_array()
        .context("no switches")?
        .iter()
        .map(|switch| switch["cause"].as_str().unwrap_or_default())
        .filter(|cause| *cause != "follow")
        .collect();
    assert_eq!(causes, ["failback", "start-up"], "{status:#}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_dead_agents_gate_opens_when_its_lease_is_past() -> Scenario {
    const LEASE: Duration = Duration::from_secs(1);
    let lab = Lab::builder().build()?;
    let mut agent = start_with(&lab, &lab.agent_config().quick().lease(LEASE))?;
    let lte = lab.uplink("lte");
    let forced = lab
        .host()
        .udp_stream(TARGET_V4)
        .from(lte.host_v4())
        .start()?;
    wait_sent(&forced, 20)?;
    let killed = Instant::now();
    agent.kill9()?;
    let left = Everything::of(&lab)?;
    let echo = forced.wait_for_echo_by("lte", killed, SOON)?;
    // It was renewed at most a third of its length before.
    let open = echo.at - killed;
    assert!(open >= LEASE / 2, "{open:?}");
    assert!(open <= LEASE * 3, "{open:?}");
    let report = forced.stop()?;
    let first = report.first_echo_by("lte", report.records[0].sent);
    assert_eq!(first.map(|(_, echo)| echo.at), Some(echo.at));
    left.ensure_same(&Everything::of(&lab)?)?;
    assert!(lab.host().ping(TARGET_V4, SOON)?.is_some());
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_program_is_restarted_in_place() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start_with(&lab, &lab.agent_config().quick().lease(LONG_LEASE))?;
    let _fault = lab.uplink("cable").blackhole()?;
    let before = wait_active(&agent, "lte")?;
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    let connection = lab
        .host()
        .tcp_stream(TARGET_V4, Duration::from_millis(10))?;
    wait_sent(&steady, 20)?;
    let lines = agent.log().len();
    let routes = Everything::of(&lab)?;

    let said = agent.verb(&["restart"])?;
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "restarting\nrestarted: version {version}, process {}\n",
        agent.pid()
    );
    assert_eq!(said, expected);
    let after = agent.status_json()?;
    assert_eq!(after["agent"]["pid"], agent.pid());
    assert_ne!(after["agent"]["started"], before["agent"]["started"]);
    assert_eq!(after["active"], "lte");
    assert_eq!(uplink(&after, "cable")["health"], "Down");
    let status = wait_active(&agent, "lte")?;
    let switches = status["switches"].as_array().into_iter().flatten();
    let causes = switches.map(|switch| switch["cause"].as_str().unwrap_or_default());
    let causes: Vec<_> = causes.filter(|cause| *cause != "follow").collect();
    assert_eq!(causes, ["start-up"], "{status:#}");
    wait_sent(&steady, 20)?;
    for line in agent.log().iter().skip(lines) {
        assert!(
            line.field("gate").is_none(),
            "a gate was touched: {}",
            line.text
        );
    }
    let kernel = lab.host().snapshot()?;
    let diff = routes.kernel().diff(&kernel);
    let changed = diff.lines().iter().filter(|line| !line.contains(" tcx "));
    assert_eq!(changed.count(), 0, "{diff}");
    let steady = steady.stop()?;
    assert_eq!(steady.lost(), 0, "longest gap {:?}", steady.longest_gap());
    connection.wait_received_after(Instant::now(), SOON)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_uplink_that_was_down_is_not_preferred_because_of_a_restart() -> Scenario {
    let lab = Lab::builder().build()?;
    // It comes back, but is not trusted again for a long time.
    let config = lab.agent_config().quick().rise(1000).lease(LONG_LEASE);
    let mut agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable")?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    fault.repair()?;
    let answered = |status: &Value| uplink(status, "cable")["loss_pct"].as_f64() < Some(50.0);
    agent.wait_for_status("answers by cable", SOON, answered)?;
    agent.kill9()?;
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "lte")?;
    let status = agent.wait_for_status("ten rounds", SOON, |status| {
        counter(status, "cable", "probes_passed") > 10 && answered(status)
    })?;
    assert_eq!(status["active"], "lte");
    assert_eq!(uplink(&status, "cable")["health"], "Down");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn what_was_chosen_by_hand_stays_chosen_over_a_restart() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start_with(&lab, &lab.agent_config().quick().lease(LONG_LEASE))?;
    agent.verb(&["switch", "lte"])?;
    wait_active(&agent, "lte")?;
    agent.verb(&["restart"])?;
    let before = counter(&wait_active(&agent, "lte")?, "cable", "probes_passed");
    let status = agent.wait_for_status("ten rounds", SOON, |status| {
        counter(status, "cable", "probes_passed") > before + 10
    })?;
    assert_eq!(status["active"], "lte");
    assert_eq!(uplink(&status, "cable")["health"], "Up");
    assert_eq!(
        uplink(&status, "lte")["families"]["ipv4"]["manual_override"],
        Value::Bool(true)
    );
    agent.verb(&["switch", "auto"])?;
    wait_active(&agent, "cable")?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_restart_that_cannot_succeed_is_refused_or_leaves_nothing() -> Scenario {
    let lab = Lab::builder().build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    let program = lab.agent_dirs().scratch.join("agent");
    fs::copy(agent_path()?, &program)?;
    let config = lab.agent_config().quick().lease(LONG_LEASE);
    let file = lab.write_config(&config)?;
    let mut agent = AgentProcess::spawn(
        &program,
        lab.host().namespace(),
        &["run", "--config", &file.to_string_lossy()],
        lab.agent_dirs(),
    )?;
    wait_active(&agent, "cable")?;
    // No gateway of cable's: a start would end with exit code 18.
    let wrong = config
        .clone()
        .uplink("cable", |cable| cable.gateway("10.64.9.9"));
    let wrong = wrong.to_string();
    fs::write(&file, &wrong)?;
    let refused = run(&lab, &["restart"])?;
    assert_eq!(refused.code, Some(27), "{refused:?}");
    assert!(refused.stderr.contains("10.64.9.9"), "{refused:?}");
    wait_active(&agent, "cable")?;

    // The new program finds what nobody could know before.
    fs::write(&file, config.to_string())?;
    let late = lab.agent_dirs().scratch.join("late.toml");
    fs::write(&late, &wrong)?;
    let script = format!(
        "#!/bin/sh\nshift 3\nexec {} run --config {} \"$@\"\n",
        agent_path()?.display(),
        late.display()
    );
    let replaced = program.with_extension("new");
    fs::write(&replaced, script)?;
    fs::set_permissions(&replaced, fs::Permissions::from_mode(0o755))?;
    fs::rename(&replaced, &program)?;
    let order = lab.host().namespace().spawn("order", {
        let mut order = lab.host().namespace().command(agent_path()?);
        order.arg("restart").args(lab.agent_dirs().flags());
        move || order.output()
    })?;
    let ended = agent.wait_exit(SOON)?;
    assert_eq!(ended.code(), Some(18), "{:?}", agent.log().last());
    before.ensure_same(&Everything::of(&lab)?)?;
    drop(order);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_program_that_cannot_be_executed_leaves_nothing_behind() -> Scenario {
    let lab = Lab::builder().build()?;
    let before = Everything::of(&lab)?;
    let dirs = lab.agent_dirs();
    let program = dirs.scratch.join("program");
    fs::copy(agent_path()?, &program)?;
    let file = lab.write_config(&lab.agent_config().quick().lease(LONG_LEASE))?;
    let arguments = ["run", "--config", &file.to_string_lossy()];
    let mut agent = AgentProcess::spawn(&program, lab.host().namespace(), &arguments, dirs)?;
    wait_active(&agent, "cable")?;

    let broken = dirs.scratch.join("broken");
    fs::write(&broken, "#!/nowhere\n")?;
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755))?;
    fs::rename(&broken, &program)?;
    let begun = Instant::now();
    let said = run(&lab, &["restart"])?;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("see its log"), "{said:?}");
    let waited = begun.elapsed();
    assert!(
        waited < Duration::from_secs(9),
        "{waited:?}: its end was not noticed"
    );
    assert_eq!(agent.wait_exit(SOON)?.code(), Some(1));
    let diff = before.kernel().diff(&lab.host().snapshot()?);
    assert_eq!(diff.lines(), [""; 0], "{diff}");
    Ok(())
}
