//! What the log tells, and how.

use std::path::Path;

use anyhow::Result;
use failover_lab::{AgentProcess, Lab, LogLine, Scenario, TARGET_V4, agent_path, wait_until};
use failover_tests::fixtures::{SOON, json::wait_active, text, wait_sent};
use nix::sys::signal::Signal;

use super::fixtures::start;

fn number(line: &LogLine, field: &str) -> Option<u64> {
    line.field(field)?.as_u64()
}

#[test]
#[ignore = "needs root"]
fn a_failover_is_told_step_by_step() -> Scenario {
    let lab = Lab::builder().build()?;
    let mut agent = start(&lab)?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    // A packet for the gate to cut.
    let forced = lab.host().udp_stream(TARGET_V4);
    let forced = forced.from(lab.uplink("cable").host_v4()).start()?;
    wait_sent(&forced, 1)?;
    let port = forced.local().port();
    let cut = agent.wait_for_line("the packet that was cut", SOON, |line| {
        let from = format!("10.64.1.2 port {port} to 192.0.2.1 port 7");
        text(line, "message").contains(&from)
    })?;
    let message = text(&cut, "message");
    assert!(
        message.starts_with("gate closed on interface "),
        "{message}"
    );
    assert!(message.contains("cut IPv4 protocol 17"), "{message}");
    drop(forced);
    fault.repair()?;
    wait_active(&agent, "cable")?;
    agent.signal(Signal::SIGTERM)?;
    agent.wait_exit(SOON)?;

    let log = agent.log();
    for line in &log {
        assert!(line.json.is_some(), "no JSON: {}", line.text);
        for key in ["timestamp", "level", "target", "message"] {
            assert!(!text(line, key).is_empty(), "no {key}: {}", line.text);
        }
    }
    let find = |what: &str, matches: &dyn Fn(&LogLine) -> bool| match log.iter().position(matches) {
        Some(place) => place,
        None => panic!("the log does not tell of {what}"),
    };
    let steps = [
        find("the first failure", &|line| {
            text(line, "message") == "cable (IPv4): ping of 192.0.2.1 failed (1/3)"
                && number(line, "failed") == Some(1)
                && number(line, "fall") == Some(3)
                && text(line, "probed") == "192.0.2.1"
        }),
        find("the second", &|line| {
            text(line, "message").ends_with("failed (2/3)")
        }),
        find("the third", &|line| {
            text(line, "message").ends_with("failed (3/3)")
        }),
        find("cable's health", &|line| {
            [text(line, "uplink"), text(line, "from"), text(line, "to")] == ["cable", "Up", "Down"]
        }),
        find("the new gate", &|line| {
            [
                text(line, "uplink"),
                text(line, "family"),
                text(line, "gate"),
            ] == ["lte", "IPv4", "open"]
        }),
        find("the old gate", &|line| {
            [
                text(line, "uplink"),
                text(line, "family"),
                text(line, "gate"),
            ] == ["cable", "IPv4", "closed"]
        }),
        find("the failover", &|line| {
            let times = ["decided_us", "routed_us", "gated_us"].map(|step| number(line, step));
            [text(line, "cause"), text(line, "from"), text(line, "to")]
                == ["failover", "cable", "lte"]
                && times[0].is_some()
                && times.is_sorted()
        }),
        find("the failback", &|line| {
            [text(line, "cause"), text(line, "family"), text(line, "to")]
                == ["failback", "IPv4", "cable"]
        }),
        find("the signal", &|line| {
            text(line, "message") == "SIGTERM: stopping"
        }),
        find("the end", &|line| {
            text(line, "message").starts_with("stopped: ")
        }),
    ];
    assert!(steps.is_sorted(), "{steps:?}");
    Ok(())
}

/// Runs an agent as a shell script starts it until it answers, and returns its log. `$AGENT` begins its command line.
fn log_of(lab: &Lab, script: &str) -> Result<Vec<LogLine>> {
    // The last two of the flags that the laboratory adds choose JSON.
    let script = format!("AGENT=\"$0 run --config $1 $2 $3 $4 $5 $6 $7\"\n{script}");
    let config = lab.write_config(&lab.agent_config().quick())?;
    let mut agent = AgentProcess::spawn(
        Path::new("/bin/sh"),
        lab.host().namespace(),
        &[
            "-c",
            &script,
            &agent_path()?.to_string_lossy(),
            &config.to_string_lossy(),
        ],
        lab.agent_dirs(),
    )?;
    let socket = lab.agent_dirs().run.join("control.sock");
    wait_until("the agent answers", SOON, || socket.exists())?;
    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait_exit(SOON)?.code(), Some(0));
    Ok(agent.log())
}

#[test]
#[ignore = "needs root"]
fn the_environment_and_flags_choose_what_is_logged_and_how() -> Scenario {
    let lab = Lab::builder().build()?;
    let has = |log: &[LogLine], word: &str| log.iter().any(|line| line.text.contains(word));

    let log = log_of(&lab, "unset RUST_LOG; exec $AGENT")?;
    assert!(has(&log, " INFO running") && !has(&log, "DEBUG"), "{log:?}");
    for line in &log {
        let stamp = line.text.split(' ').next().unwrap_or_default();
        // UTC with microseconds.
        assert_eq!(
            (stamp.len(), stamp.ends_with('Z')),
            (27, true),
            "{}",
            line.text
        );
        assert!(line.json.is_none());
    }
    let log = log_of(&lab, "unset RUST_LOG; exec $AGENT -v")?;
    assert!(has(&log, "DEBUG") && has(&log, "routing tables: added"));
    let log = log_of(&lab, "RUST_LOG=warn exec $AGENT -v")?;
    assert!(
        log.iter().all(|line| !line.text.contains("INFO")),
        "{log:?}"
    );
    let log = log_of(
        &lab,
        "RUST_LOG=error,failover_agent::route=debug exec $AGENT",
    )?;
    assert!(!has(&log, " INFO running"), "{log:?}");
    let log = log_of(
        &lab,
        "RUST_LOG=failover_agent=info exec $AGENT --log-format json",
    )?;
    assert!(
        !log.is_empty() && log.iter().all(|line| line.json.is_some()),
        "{log:?}"
    );
    Ok(())
}
