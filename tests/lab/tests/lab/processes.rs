//! The laboratory's guards of processes: an agent's (here a shell script), and the clean-up when the laboratory's own process ends badly.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use failover_lab::{AgentProcess, Disk, Lab, Scenario, sweep, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::SOON;

/// Starts a shell script in the host in the agent's place.
fn start_script(lab: &Lab, script: &str) -> Result<AgentProcess> {
    AgentProcess::spawn(
        Path::new("/bin/sh"),
        lab.host().namespace(),
        &["-c", script, "script"],
        lab.agent_dirs(),
    )
}

#[test]
#[ignore = "needs root"]
fn an_agent_is_watched_signalled_and_waited_for() -> Scenario {
    let lab = Lab::builder().build()?;
    let begun = Instant::now();
    let mut agent = start_script(
        &lab,
        r#"trap 'echo "{\"message\":\"stopped\"}" >&2; exit 7' TERM
        echo "$@"
        ip -brief link show cable
        while :; do sleep 0.01; done"#,
    )?;
    let flags = agent.wait_for_line("its flags", SOON, |line| line.text.contains("--run-dir"))?;
    for part in [
        "/run --bpf-dir ",
        "/bpf/failover-agent --state-dir ",
        "--log-format json",
    ] {
        assert!(flags.text.contains(part), "{}", flags.text);
    }
    assert!(flags.at > begun && flags.json.is_none());
    agent.wait_for_line("the host's interface", SOON, |line| {
        line.text.starts_with("cable@") && line.text.contains("UP")
    })?;
    let missing = agent.wait_for_line("what it never says", Duration::from_millis(20), |_| false);
    assert!(missing.unwrap_err().to_string().contains("--run-dir"));
    wait_until("it has used processor time", SOON, || {
        agent.cpu_time().is_ok_and(|time| time > Duration::ZERO)
    })?;
    assert!((100 << 10..100 << 20).contains(&agent.rss_bytes()?));

    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait_exit(SOON)?.code(), Some(7));
    let log = agent.log();
    let stopped = log.last().unwrap().field("message");
    assert_eq!(
        stopped.and_then(|message| message.as_str()),
        Some("stopped")
    );

    let mut other = start_script(&lab, "exec sleep 1000")?;
    other.kill9()?;
    assert_eq!(other.wait_exit(SOON)?.signal(), Some(9));
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_bpf_file_system_is_one_and_the_directories_exist() -> Scenario {
    let lab = Lab::builder().build()?;
    let dirs = lab.agent_dirs();
    assert!(dirs.run.is_dir() && dirs.state.is_dir() && !dirs.bpf.exists());
    let mount = dirs.bpf.parent().unwrap();
    let kind = nix::sys::statfs::statfs(mount)?.filesystem_type();
    assert_eq!(kind, nix::sys::statfs::BPF_FS_MAGIC);
    // Seen from inside a namespace too, which `ip netns exec` would prevent.
    fs::create_dir(&dirs.bpf)?;
    let path = dirs.bpf.to_string_lossy();
    lab.host().namespace().exec("ls", &[&*path])?;
    Ok(())
}

/// Everything that bears a laboratory's id: namespaces, its directory, mounts, processes that got its directories as arguments.
fn leftovers(id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for dir in ["/run", "/run/netns"] {
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // The dash: another laboratory's number may begin with this one's.
        found.extend(names.filter(|name| name == id || name.starts_with(&format!("{id}-"))));
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let own = |line: &&str| line.contains(&format!("/{id}/")) || line.contains(&format!("/{id}-"));
    found.extend(mounts.lines().filter(own).map(str::to_owned));
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path().join("cmdline");
        if let Ok(arguments) = fs::read_to_string(path)
            && arguments.contains(&format!("/{id}/"))
        {
            found.push(arguments.replace('\0', " "));
        }
    }
    Ok(found)
}

fn id_of(lab: &Lab) -> String {
    lab.host().namespace().name().replace("-host", "")
}

#[test]
#[ignore = "needs root"]
fn a_panic_leaves_nothing_behind() -> Scenario {
    let lab = Lab::builder().build()?;
    let id = id_of(&lab);
    assert!(leftovers(&id)?.len() >= 6, "{:?}", leftovers(&id)?);
    let panicked = std::thread::spawn(move || {
        let _agent = start_script(&lab, "echo running; exec sleep 1000").unwrap();
        let _fault = lab.uplink("cable").blackhole().unwrap();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(leftovers(&id)?, [""; 0]);
    Ok(())
}

/// Set in the process that is to be ended; it is this executable, running one test.
const VICTIM: &str = "FAILOVER_LAB_VICTIM";

/// Builds a laboratory with an agent, a capture, and a process that waits for a frozen disk and cannot be killed; reports that process's id, and waits for its end.
fn be_the_victim() -> Result<()> {
    let lab = Lab::builder().build()?;
    let script = "trap '' INT TERM; echo running; while :; do sleep 1; done";
    let agent = start_script(&lab, script)?;
    agent.wait_for_line("that it runs", SOON, |line| line.text == "running")?;
    let file = lab.agent_dirs().scratch.join("all.pcap");
    let _capture = lab.host().capture("cable", "", &file)?;
    let dirs = lab.agent_dirs();
    let mut disk = Disk::in_file(&dirs.state, &dirs.scratch.join("image"))?;
    disk.freeze()?;
    let mut write = lab.host().namespace().command("sh");
    let file = dirs.state.join("file");
    let writer = write.args(["-c", "echo >$0"]).arg(file).spawn()?;
    wait_until("it waits for the disk", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", writer.id()));
        stat.is_ok_and(|stat| stat.contains(") D "))
    })?;
    println!("victim {}", id_of(&lab));
    loop {
        std::thread::park();
    }
}

/// This module's path without the crate's name, as the test harness has it.
fn module() -> &'static str {
    module_path!().split_once("::").map_or("", |(_, path)| path)
}

fn start_victim(test: &str) -> Result<(Child, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            &format!("{}::{test}", module()),
            "--exact",
            "--include-ignored",
        ])
        .arg("--nocapture")
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
    let id = stdout
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("victim ")?.1.to_owned()));
    Ok((child, id.context("no laboratory was built")?))
}

#[test]
#[ignore = "needs root"]
fn a_signal_leaves_nothing_behind_and_a_sweep_removes_what_sigkill_leaves() -> Scenario {
    let name = "a_signal_leaves_nothing_behind_and_a_sweep_removes_what_sigkill_leaves";
    if std::env::var_os(VICTIM).is_some() {
        be_the_victim()?;
        return Ok(());
    }
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (mut victim, id) = start_victim(name)?;
        assert!(leftovers(&id)?.len() >= 8, "{:?}", leftovers(&id)?);
        kill(Pid::from_raw(victim.id().cast_signed()), signal)?;
        assert_eq!(victim.wait()?.code(), Some(code));
        assert_eq!(leftovers(&id)?, [""; 0], "after {signal}");
    }

    let (mut victim, id) = start_victim(name)?;
    sweep()?;
    let before = leftovers(&id)?;
    assert!(before.len() >= 8, "a living one was swept: {before:?}");
    victim.kill()?;
    victim.wait()?;
    // Other tests' laboratories sweep too.
    sweep()?;
    assert_eq!(leftovers(&id)?, [""; 0]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn laboratories_side_by_side_do_not_meet() -> Scenario {
    let first = Lab::builder().build()?;
    let second = Lab::builder().build()?;
    let directory = |lab: &Lab| PathBuf::from(&lab.agent_dirs().run);
    assert_ne!(id_of(&first), id_of(&second));
    assert_ne!(directory(&first), directory(&second));
    let id = id_of(&first);
    drop(first);
    assert_eq!(leftovers(&id)?, [""; 0]);
    let target = failover_lab::TARGET_V4;
    assert!(second.host().ping(target, SOON)?.is_some());
    Ok(())
}
