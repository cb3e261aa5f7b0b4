//! A disk that does not answer: whoever writes to it waits for as long as it likes, and cannot be killed.

use std::{fs, time::Instant};

use anyhow::Result;
use failover_lab::{Disk, Lab, Scenario, UplinkSpec};
use failover_tests::fixtures::{
    SOON,
    json::{wait_active, wait_health},
    start, stop,
};
use nix::sys::signal::Signal;

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn a_frozen_state_directory_holds_nothing_up_and_a_restart_and_a_stop_end() -> Scenario {
    let lab = Lab::builder().build()?;
    let dirs = lab.agent_dirs();
    let mut disk = Disk::in_file(&dirs.state, &dirs.scratch.join("image"))?;
    set_rival(&lab)?;
    let before = metrics(&lab)?;
    let mut agent = start(&lab)?;
    wait_rival(&lab, false)?;
    wait_file(&dirs.state.join("gateways.json"), "10.64.1.1")?;
    disk.freeze()?;
    // An order that is to outlive everything must be written, and cannot be.
    agent.verb(&["drill", "cable", "--for", "1h"])?;
    wait_active(&agent, "lte")?;
    wait_words(&agent, &["does not answer"])?;
    agent.verb(&["switch", "auto"])?;
    wait_active(&agent, "cable")?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    fault.repair()?;
    wait_active(&agent, "cable")?;
    agent.verb(&["drill", "cable", "--for", "1h"])?;
    wait_active(&agent, "lte")?;

    // The disk has heard of nothing; the new program has.
    let status = restart(&agent)?;
    assert_eq!(status["active"], "lte");
    wait_words(&agent, &["the drill goes on"])?;
    assert!(!dirs.state.join("drill.json").exists());

    agent.signal(Signal::SIGTERM)?;
    agent.wait_exit(SOON)?;
    wait_rival(&lab, true)?;
    assert_eq!(metrics(&lab)?, before);
    wait_words(&agent, &["drill.json is not written"])?;
    assert!(!dirs.bpf.exists(), "the programs are gone");
    disk.thaw()?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_reload_is_taken_over_while_the_state_directory_is_frozen() -> Scenario {
    let dsl = UplinkSpec::veth("dsl");
    let lab = Lab::builder()
        .uplinks(["cable".into(), dsl, "lte".into()])
        .build()?;
    let dirs = lab.agent_dirs();
    let mut disk = Disk::in_file(&dirs.state, &dirs.scratch.join("image"))?;
    let config = |uplinks: &[&str]| lab.agent_config().quick().only(uplinks);
    let before = metrics(&lab)?;
    let agent = lab.start_agent(&config(&["cable", "lte"]))?;
    wait_active(&agent, "cable")?;
    wait_file(&dirs.state.join("gateways.json"), "10.64.3.1")?;
    let written = files_and_contents(&dirs.state)?;
    disk.freeze()?;

    // The gateway of the one that comes is to be written, and so is the order that was given of the one that goes.
    agent.verb(&["switch", "lte"])?;
    wait_active(&agent, "lte")?;
    set_rival(&lab)?;
    wait_rival(&lab, false)?;
    lab.write_config(&config(&["dsl", "cable"]))?;
    let begun = Instant::now();
    let said = agent.verb(&["reload"])?;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(said.contains("added dsl; removed lte"), "{said}");
    wait_active(&agent, "dsl")?;
    wait_health(&agent, "cable", "Up")?;
    wait_words(&agent, &["does not answer"])?;

    // What is wrong is refused as ever, and the next failover happens.
    lab.write_config("[[uplink]]\n")?;
    let refused = agent.verb(&["reload"]);
    assert!(refused.is_err(), "{refused:?}");
    let fault = lab.uplink("dsl").blackhole()?;
    wait_active(&agent, "cable")?;
    fault.repair()?;
    wait_active(&agent, "dsl")?;
    assert_eq!(files_and_contents(&dirs.state)?, written);

    // The disk hears of the last of it only.
    disk.thaw()?;
    wait_file(&dirs.state.join("gateways.json"), "10.64.2.1")?;
    stop(agent)?;
    wait_rival(&lab, true)?;
    lab.host()
        .namespace()
        .exec("ip", &["route", "del", "default", "metric", "7"])?;
    assert_eq!(metrics(&lab)?, before);
    Ok(())
}

/// What a directory's files say, which can be read while nothing can be written.
fn files_and_contents(dir: &std::path::Path) -> Result<Vec<(String, Vec<u8>)>> {
    let names = files(dir)?.into_iter();
    let said = names.filter(|name| dir.join(name).is_file());
    said.map(|name| Ok((name.clone(), fs::read(dir.join(name))?)))
        .collect()
}
