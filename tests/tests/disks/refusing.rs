//! Disks that refuse: full ones, read-only ones.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_lab::{Disk, Lab, Scenario, UplinkSpec};
use failover_tests::fixtures::{SOON, json::wait_active, start};
use nix::sys::signal::Signal;

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn with_full_disks_it_starts_switches_restarts_and_gives_everything_back() -> Scenario {
    let lab = Lab::builder().build()?;
    let dirs = lab.agent_dirs();
    let (run, state) = (Disk::in_memory(&dirs.run)?, Disk::in_memory(&dirs.state)?);
    set_rival(&lab)?;
    let before = metrics(&lab)?;
    state.fill()?;
    let mut agent = start(&lab)?;
    wait_rival(&lab, false)?;
    wait_words(&agent, &["cannot write", "gateways.json", "No space left"])?;
    // What it displaces from now on, only its memory knows: first the rival again.
    run.fill()?;
    set_rival(&lab)?;
    wait_rival(&lab, false)?;
    let another = lab.uplinks()[1].addresses().gateway_v4;
    let ip = |line: &str| lab.host().namespace().ip_batch(line);
    ip(&format!(
        "route add default via {another} dev lte proto static metric 8"
    ))?;
    wait_words(
        &agent,
        &["not on record yet", "displaced.json", "No space left"],
    )?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    restart(&agent)?;
    let status = wait_active(&agent, "lte")?;
    assert_eq!(status["uplinks"][0]["health"], "Down");
    drop(fault);

    agent.signal(Signal::SIGTERM)?;
    let status = agent.wait_exit(SOON)?;
    assert_eq!(status.code(), Some(0));
    let mut after = metrics(&lab)?;
    assert!(after.contains(&8), "{after:?}");
    after.retain(|metric| *metric != 8);
    assert_eq!(after, before);

    // Where there is room again, what waits is written without being asked.
    state.make_room()?;
    run.make_room()?;
    ip("route del default dev lte metric 8")?;
    let agent = start(&lab)?;
    wait_file(&dirs.state.join("gateways.json"), "10.64.1.1")?;
    state.fill()?;
    agent.verb(&["drill", "cable", "--for", "1h"])?;
    wait_words(&agent, &["cannot write", "drill.json"])?;
    state.make_room()?;
    wait_file(&dirs.state.join("drill.json"), "cable")?;
    drop(agent);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn on_read_only_disks_a_stop_gives_everything_back_and_says_what_it_leaves() -> Scenario {
    let lab = Lab::builder().build()?;
    let dirs = lab.agent_dirs();
    let (run, state) = (Disk::in_memory(&dirs.run)?, Disk::in_memory(&dirs.state)?);
    set_rival(&lab)?;
    let before = lab.host().snapshot()?;
    let mut agent = start(&lab)?;
    wait_rival(&lab, false)?;
    wait_file(&dirs.run.join("displaced.json"), "metric 7")?;
    state.make_read_only()?;
    run.make_read_only()?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    fault.repair()?;
    wait_active(&agent, "cable")?;
    agent.signal(Signal::SIGTERM)?;
    agent.wait_exit(SOON)?;
    before.ensure_same(&lab.host().snapshot()?)?;
    wait_words(&agent, &["displaced.json is not removed", "Read-only"])?;

    // The record that could not be removed brings nothing back that its owner has taken away since.
    run.make_writable()?;
    state.make_writable()?;
    set_gateway_away(&lab)?;
    let before = lab.host().snapshot()?;
    let mut agent = start(&lab)?;
    agent.signal(Signal::SIGTERM)?;
    agent.wait_exit(SOON)?;
    before.ensure_same(&lab.host().snapshot()?)?;
    Ok(())
}

/// The rival's owner says something else while no agent runs.
fn set_gateway_away(lab: &Lab) -> Result<()> {
    let gateway = lab.uplinks()[0].addresses().gateway_v4;
    lab.host().namespace().ip_batch(&format!(
        "route del default dev cable metric 7\n\
         route add default via {gateway} dev cable proto static metric 9000"
    ))
}

#[test]
#[ignore = "needs root"]
fn a_route_that_flaps_does_not_wear_the_disk_out() -> Scenario {
    // Nobody displaces these routes, so that each word of their owner is learned.
    let lab = Lab::builder()
        .uplinks([
            UplinkSpec::veth("cable").metric(9000),
            UplinkSpec::veth("lte").metric(9001),
        ])
        .build()?;
    let agent = start(&lab)?;
    let file = lab.agent_dirs().state.join("gateways.json");
    wait_file(&file, "10.64.1.1")?;
    let written = || {
        fs::metadata(&file)
            .ok()
            .map(|file| (file.ino(), file.mtime_nsec()))
    };
    let (begun, mut seen) = (Instant::now(), BTreeSet::new());
    let gateways = ["10.64.1.254", "10.64.1.1"].iter().cycle();
    for gateway in gateways {
        lab.host().namespace().ip_batch(&format!(
            "route replace default via {gateway} dev cable proto dhcp metric 9000\n\
             address add 10.77.0.1/32 dev cable\n\
             address del 10.77.0.1/32 dev cable"
        ))?;
        for _ in 0..5 {
            sleep(Duration::from_millis(10));
            seen.extend(written());
        }
        if begun.elapsed() > Duration::from_secs(3) && *gateway == "10.64.1.254" {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs() + 1;
    let most = usize::try_from(4 + 2 * seconds)?;
    assert!(
        seen.len() <= most,
        "written {} times in {seconds} s",
        seen.len()
    );
    assert!(seen.len() > 1, "nothing was learned");
    // The newest is what is written in the end.
    wait_file(&file, "10.64.1.254")?;
    drop(agent);
    Ok(())
}
