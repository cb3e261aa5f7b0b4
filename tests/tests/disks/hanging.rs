//! A disk that does not answer: whoever writes to it waits for as long as it likes, and cannot be killed.

use anyhow::Result;
use failover_tests::{
    lab::{Disk, Lab},
    scene::{SOON, json::wait_active},
};
use nix::sys::signal::Signal;

use super::scene::*;

#[test]
#[ignore = "needs root"]
fn a_frozen_state_directory_holds_nothing_up_and_a_restart_and_a_stop_end() -> Result<()> {
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
    disk.thaw()
}
