//! Programs that hang, talk too much, or are not there.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context;
use failover_lab::{Lab, Scenario, agent_path, wait_until};
use failover_tests::fixtures::{SOON, json::wait_active, message, script, wait_for_file};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::fixtures::{PATIENT, config, is_there, said, start, wait_gone};

/// Never ends by itself, nor does its child.
const HANG: &str =
    "trap '' TERM; sleep 1000 & echo $! > $DIR/child; echo $$ >> $DIR/hanging; wait; sleep 1000";

#[test]
#[ignore = "needs root"]
fn a_program_that_hangs_delays_neither_a_switch_nor_the_stop() -> Scenario {
    let lab = Lab::builder().build()?;
    let program = script(&lab, "on-switch", HANG)?;
    let mut agent = start(&lab, &[&program.to_string_lossy()], Duration::from_hours(1))?;
    let leader = wait_for_file(&lab, "hanging", |pid| pid.ends_with('\n'))?;
    let child = wait_for_file(&lab, "child", |pid| pid.ends_with('\n'))?;

    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    fault.repair()?;
    let status = wait_active(&agent, "cable")?;
    assert!(is_there(&leader), "it was to hang");
    for switch in status["switches"].as_array().context("no switches")? {
        // From the decision to the gates: what the program could have delayed takes well below a millisecond on an idle machine.
        let timeline = &switch["timeline"];
        let time = |step: &str| timeline[step].as_u64().with_context(|| format!("{switch}"));
        let took = Duration::from_micros(time("gated_us")? - time("decided_us")?);
        assert!(took < Duration::from_secs(1), "{switch}");
    }
    // Only the first one was run, and those that came meanwhile wait.
    let hanging = wait_for_file(&lab, "hanging", |pids| !pids.is_empty())?;
    assert_eq!(hanging, leader);

    let begun = Instant::now();
    agent.signal(Signal::SIGTERM)?;
    assert!(agent.wait_exit(SOON)?.success());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!is_there(&leader), "it outlives the agent");
    assert!(!is_there(&child), "its child outlives the agent");
    let log = said(&agent.log());
    let end = log.last().context("nothing is logged")?;
    assert!(end.contains("signal: 9 (SIGKILL)"), "{end}");
    assert!(end.ends_with("since the agent stops"), "{end}");
    // Everything is restored nevertheless.
    let routes = lab.host().default_routes_v4()?;
    assert!(
        routes.iter().all(|route| route.protocol == "dhcp"),
        "{routes:?}"
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_program_that_takes_too_long_is_ended_and_the_newest_switch_is_told() -> Scenario {
    let lab = Lab::builder().build()?;
    // Of IPv6 there is nothing to tell apart here.
    let program = script(
        &lab,
        "on-switch",
        "[ $FAMILY = ipv4 ] || exit 0; echo \"$PREVIOUS-$UPLINK\" >> $DIR/told; echo $$ >> $DIR/pid; sleep 1000",
    )?;
    let agent = start(&lab, &[&program.to_string_lossy()], Duration::from_secs(5))?;
    let first = wait_for_file(&lab, "pid", |pid| pid.ends_with('\n'))?;
    for uplink in ["lte", "cable", "lte"] {
        agent.verb(&["switch", uplink])?;
    }
    wait_gone(&first)?;
    let told = wait_for_file(&lab, "told", |text| text.lines().count() == 2)?;
    assert_eq!(told, "-cable\ncable-lte\n", "{:?}", said(&agent.log()));
    agent.wait_for_line("that it was ended", SOON, |line| {
        let message = message(line);
        message.ends_with("since it ran for more than 5s")
            && line.field("level") == Some(&Value::from("WARN"))
            && message.contains("signal: 15 (SIGTERM)")
    })?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn ten_megabytes_of_output_are_counted_not_kept() -> Scenario {
    let lab = Lab::builder().build()?;
    let program = script(
        &lab,
        "on-switch",
        "[ $FAMILY = ipv4 ] || exit 0\n\
         echo to standard error >&2; printf 'odd: \\377\\033[2J\\n'\n\
         head -c 1000000 /dev/zero; echo\n\
         yes 'a line of output' | head -c 10000000; exit 3",
    )?;
    // What an agent takes that has switched and has run something.
    let agent = start(&lab, &["/bin/true"], PATIENT)?;
    wait_until("the program has ended", SOON, || {
        said(&agent.log()).len() >= 2
    })?;
    let quiet = agent.rss_bytes()?;
    drop(agent);

    let agent = start(&lab, &[&program.to_string_lossy()], PATIENT)?;
    let end = agent.wait_for_line("the end of the program", SOON, |line| {
        message(line).contains("exit status: 3")
    })?;
    assert_eq!(end.field("level"), Some(&Value::from("WARN")));
    assert_eq!(end.field("code"), Some(&Value::from(3)));
    let log = said(&agent.log());
    let lines: Vec<&String> = log
        .iter()
        .filter(|line| *line == "hooks.on_switch: a line of output")
        .collect();
    assert_eq!(lines.len(), 200 - 3, "{log:?}");
    assert!(log.contains(&"hooks.on_switch: to standard error".to_owned()));
    assert!(
        log.contains(&"hooks.on_switch: odd: \u{fffd}\u{fffd}[2J".to_owned()),
        "{log:?}"
    );
    let long = log
        .iter()
        .find(|line| line.ends_with("(999500 bytes more)"));
    assert!(long.is_some(), "{log:?}");
    let counted = log.iter().any(|line| {
        line.contains("more lines are not logged") && line.contains("(11000030 bytes in all)")
    });
    assert!(counted, "{log:?}");

    // It goes on with its work, and has kept nothing.
    let _fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    let noisy = agent.rss_bytes()?;
    assert!(
        noisy < quiet + 4_000_000,
        "{quiet} bytes before, {noisy} after"
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_missing_program_is_a_warning() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = config(&lab, &["/nowhere/on-switch"], PATIENT);
    let config = config.uplink("cable", |cable| cable.recover(&["/etc/passwd"]));
    let path = lab.write_config(&config)?;
    let output = lab
        .host()
        .namespace()
        .command(agent_path()?)
        .args(["check", "--config"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()?;
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{warnings}");
    let missing = "hooks.on_switch: /nowhere/on-switch cannot be run: No such file or directory";
    let unfit = "recover of cable: /etc/passwd cannot be run: not executable";
    for words in [missing, unfit] {
        assert!(warnings.contains(words), "{warnings}");
    }

    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable")?;
    for words in [
        missing,
        unfit,
        "hooks.on_switch: /nowhere/on-switch cannot be started: No such file or directory",
    ] {
        agent.wait_for_line(words, SOON, |line| {
            line.field("level") == Some(&Value::from("WARN")) && message(line).contains(words)
        })?;
    }
    Ok(())
}
