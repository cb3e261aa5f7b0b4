//! Records that are damaged, or another agent's.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Result, ensure};
use failover_lab::{AgentProcess, Lab, Scenario, UplinkSpec};
use failover_tests::fixtures::{SOON, start};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};

use super::fixtures::*;

/// Each with what is at fault.
const FILES: [&str; 4] = [
    "displaced.json",
    "health.json",
    "hash_policy.json",
    "interfaces.json",
];
const LASTING: [&str; 2] = ["gateways.json", "drill.json"];

type Make = fn(&Path) -> Result<()>;

const DAMAGED: [(&str, Make); 6] = [
    ("empty", |path| Ok(fs::write(path, "")?)),
    ("cut off", |path| {
        Ok(fs::write(path, "{\n  \"boot_id\": \"")?)
    }),
    ("another program's", |path| {
        Ok(fs::write(
            path,
            "{\"routes\": 3, \"down\": 3, \"values\": 3, \"gateways\": 3, \"uplink\": 3}",
        )?)
    }),
    ("directory", |path| Ok(fs::create_dir(path)?)),
    ("FIFO", |path| Ok(mkfifo(path, Mode::S_IRWXU)?)),
    ("symbolic link", |path| Ok(symlink("/etc/passwd", path)?)),
];

/// Puts one of these in the place of each record.
fn damage(lab: &Lab, make: Make) -> Result<()> {
    let dirs = lab.agent_dirs();
    let run = FILES.iter().map(|name| dirs.run.join(name));
    let state = LASTING.iter().map(|name| dirs.state.join(name));
    fs::create_dir_all(&dirs.run)?;
    fs::create_dir_all(&dirs.state)?;
    for path in run.chain(state) {
        fs::remove_file(&path).ok();
        make(&path)?;
    }
    Ok(())
}

/// Waits until an uplink is active, whichever.
fn wait_for_any(agent: &AgentProcess) -> Result<()> {
    let active = agent.wait_for_status("an active uplink", SOON, |status| {
        status["active"].is_string()
    });
    active.map(drop)
}

fn ensure_set_aside(lab: &Lab) -> Result<()> {
    let dirs = lab.agent_dirs();
    let (run, state) = (files(&dirs.run)?, files(&dirs.state)?);
    for name in FILES {
        let aside = format!("{name}.damaged");
        ensure!(run.contains(&aside), "{aside} is not among {run:?}");
    }
    for name in LASTING {
        let aside = format!("{name}.damaged");
        ensure!(state.contains(&aside), "{aside} is not among {state:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn damaged_records_stop_neither_start_nor_restart_nor_reset() -> Scenario {
    // Routes that nobody displaces.
    let uplinks = ["cable", "lte"].map(|name| UplinkSpec::veth(name).metric(9000));
    let lab = Lab::builder().uplinks(uplinks).build()?;
    let dirs = lab.agent_dirs();
    let before = lab.host().snapshot()?;
    for (what, make) in DAMAGED {
        damage(&lab, make)?;
        let mut agent = lab.start_agent(&lab.agent_config().quick())?;
        wait_for_any(&agent)?;
        ensure_set_aside(&lab)?;
        wait_words(
            &agent,
            &["displaced.json counts as missing", "is set aside as"],
        )?;
        // What is damaged while it runs, it does not read.
        for dir in [&dirs.run, &dirs.state] {
            for name in files(dir)?.iter().filter(|name| name.ends_with(".damaged")) {
                let path = dir.join(name);
                if path.is_dir() {
                    fs::remove_dir(path)?;
                } else {
                    fs::remove_file(path)?;
                }
            }
        }
        if what == "cut off" {
            damage(&lab, make)?;
            restart(&agent)?;
            wait_for_any(&agent)?;
        }
        agent.kill9()?;
        agent.wait_exit(SOON)?;
        drop(agent);
        damage(&lab, make)?;
        let flags = dirs.flags();
        let program = failover_lab::agent_path()?;
        let host = lab.host().namespace();
        let reset = host.command(program).arg("reset").args(flags).output()?;
        let error = String::from_utf8_lossy(&reset.stderr);
        assert!(reset.status.success(), "{what}: {error}");
        // What it does not need it removes, if that is a file.
        let set_aside = files(&dirs.run)?;
        for name in ["displaced.json.damaged", "hash_policy.json.damaged"] {
            assert!(set_aside.contains(name), "{what}: {set_aside:?}");
        }
        before.ensure_same(&lab.host().snapshot()?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_record_of_another_network_namespace_brings_nothing_back() -> Scenario {
    let first = Lab::builder().build()?;
    set_rival(&first)?;
    let mut agent = start(&first)?;
    wait_rival(&first, false)?;
    let record = first.agent_dirs().run.join("displaced.json");
    wait_file(&record, "metric 7")?;
    agent.kill9()?;
    agent.wait_exit(SOON)?;

    // A container that is created again has the same interfaces, and the volume of the old one.
    let second = Lab::builder().build()?;
    let before = second.host().snapshot()?;
    let run = &second.agent_dirs().run;
    fs::create_dir_all(run)?;
    fs::copy(&record, run.join("displaced.json"))?;
    let mut other = start(&second)?;
    wait_words(
        &other,
        &[
            "displaced.json counts as missing",
            "another network namespace",
        ],
    )?;
    assert!(files(run)?.contains("displaced.json.foreign"));
    other.signal(Signal::SIGTERM)?;
    assert_eq!(other.wait_exit(SOON)?.code(), Some(0));
    before.ensure_same(&second.host().snapshot()?)?;

    // In its own it still counts.
    let mut agent = start(&first)?;
    agent.signal(Signal::SIGTERM)?;
    agent.wait_exit(SOON)?;
    wait_rival(&first, true)?;
    Ok(())
}
