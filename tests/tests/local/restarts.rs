//! A new start of the program at a bad moment.

use std::{
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use failover_lab::{Lab, Scenario, TARGET_V4, agent_path, wait_until};
use nix::sys::signal::Signal;

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn drills_dead_uplinks_and_running_programs_are_in_nobodys_way() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "fibre", "lte"])
        .build()?;
    let unplugged = lab.uplink("fibre").unplug()?;
    // A program that takes longer to be ended than the lease lasts.
    let program = script(
        &lab,
        "on-switch",
        "trap '' TERM; echo $$ >> $DIR/running; sleep 1000; sleep 1000",
    )?;
    let config = lab.agent_config().quick().lease(Duration::from_secs(1));
    let config = config.on_switch(&[&program.to_string_lossy()]);
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable", &["fibre"])?;
    let fault = lab.uplink("dsl").blackhole()?;
    wait_health(&agent, "dsl", "Down")?;
    agent.verb(&["drill", "cable", "--for", "1h"])?;
    let lost = ["cable", "dsl", "fibre"];
    let before = wait_active(&agent, "lte", &lost)?;
    let running = wait_written(&lab, "running", 1)?;

    // Its gate must stay closed all the time.
    let cable = lab.uplink("cable");
    let capture = cable.capture("udp", &lab.agent_dirs().scratch.join("cable.pcap"))?;
    let forced = lab.host().udp_stream(TARGET_V4).from(cable.host_v4());
    let forced = forced.start()?;
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    steady.wait_for_echo_by("lte", Instant::now(), SOON)?;
    agent.verb(&["restart"])?;
    let after = wait_active(&agent, "lte", &lost)?;
    assert_ne!(after["agent"]["started"], before["agent"]["started"]);
    for name in lost {
        assert_eq!(uplink(&after, name)["health"], "Down", "{name}");
        let drilled = uplink(&after, name)["drill_s"].is_number();
        assert_eq!(drilled, name == "cable", "{name}");
    }
    let ended = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", running[0]));
        stat.map_or(true, |stat| stat.contains(") Z "))
    };
    wait_until("the program of the earlier run ends", SOON, ended)?;
    // The new run tells it of the state as it is.
    wait_written(&lab, "running", 2)?;
    steady.wait_for_echo_by("lte", Instant::now(), SOON)?;
    drop(forced);
    let steady = steady.stop()?;
    assert_eq!((steady.path(), steady.lost()), (vec!["lte"], 0));
    assert_eq!(capture.finish()?.count("")?, 0, "a gate was open");

    drop(fault);
    unplugged.repair()?;
    agent.verb(&["switch", "auto"])?;
    wait_active(&agent, "cable", &[])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_stop_in_the_middle_of_it_is_obeyed() -> Scenario {
    let lab = Lab::builder().build()?;
    let before = lab.host().snapshot()?;
    for delay in 0..6 {
        let mut agent = lab.start_agent(&lab.agent_config().quick())?;
        wait_active(&agent, "cable", &[])?;
        let restart = lab
            .host()
            .namespace()
            .command(agent_path()?)
            .arg("restart")
            .args(lab.agent_dirs().flags())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut restart = restart?;
        let ordered = agent.wait_for_line("that it restarts", SOON, |line| {
            text(line, "message").starts_with("restarting")
        })?;
        // It gives up its work a tenth of a second after the order.
        let at = ordered.at + Duration::from_millis(97 + 3 * delay);
        sleep(at.saturating_duration_since(Instant::now()));
        agent.signal(Signal::SIGTERM)?;
        let status = agent.wait_exit(SOON)?;
        restart.kill()?;
        restart.wait()?;
        assert!(status.success(), "{delay}: {status}");
        before.ensure_same(&lab.host().snapshot()?)?;
    }
    Ok(())
}
