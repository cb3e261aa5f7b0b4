//! Standard error and standard output, whoever reads them or not.

use std::{
    fs::File,
    io::{self, Write as _},
    net::UdpSocket,
    os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result};
use failover_lab::{AgentProcess, Lab, Scenario, TARGET_V4, agent_path, wait_until};
use failover_tests::fixtures::{
    SOON,
    json::{uplink, wait_active},
};
use nix::{
    fcntl::OFlag,
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use serde_json::Value;

use super::fixtures::{Everything, run, set_foreign_route, start};

/// Who reads the log.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Stops reading once the agent runs.
    Stops,
    /// Hangs up once the agent runs.
    Leaves,
    /// None: what is written to a full disk is lost from the first line on.
    FullDisk,
}

/// Starts an agent whose standard error is `log`.
fn start_logging_to(lab: &Lab, log: &Path) -> Result<AgentProcess> {
    let path = lab.write_config(&lab.agent_config().quick())?;
    let script = format!("exec \"$0\" run --config \"$@\" 2>{}", log.display());
    AgentProcess::spawn(
        Path::new("/bin/sh"),
        lab.host().namespace(),
        &[
            "-c",
            &script,
            &agent_path()?.to_string_lossy(),
            &path.to_string_lossy(),
        ],
        lab.agent_dirs(),
    )
}

fn wait_until_active(lab: &Lab, name: &str) -> Result<Value> {
    let mut last = Value::Null;
    wait_until(&format!("{name} is active"), SOON, || {
        let Ok(status) = run(lab, &["status", "--json"]) else {
            return false;
        };
        last = serde_json::from_str(&status.stdout).unwrap_or_default();
        last["active"] == name && uplink(&last, "cable")["health"] != "Unknown"
    })?;
    Ok(last)
}

/// Writes into a pipe until nothing fits into it any more.
fn fill(fifo: &Path) -> Result<()> {
    let mut options = File::options();
    let mut pipe = options
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(fifo)?;
    for length in [4096, 64, 1] {
        while pipe.write(&[b'#'].repeat(length)).is_ok() {}
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_log_that_nobody_reads_keeps_nothing_from_happening() -> Scenario {
    let lab = Lab::builder().build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    for reader in [Reader::Stops, Reader::Leaves, Reader::FullDisk] {
        let (path, end) = match reader {
            Reader::FullDisk => (PathBuf::from("/dev/full"), None),
            Reader::Stops | Reader::Leaves => {
                let fifo = lab.agent_dirs().scratch.join(format!("{reader:?}"));
                mkfifo(&fifo, Mode::S_IRWXU)?;
                let mut options = File::options();
                let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
                let end = options.open(&fifo)?;
                (fifo, Some(end))
            }
        };
        let mut agent = start_logging_to(&lab, &path)?;
        wait_until_active(&lab, "cable").with_context(|| format!("{reader:?}"))?;
        let end = match reader {
            Reader::Stops => {
                fill(&path)?;
                end
            }
            Reader::Leaves | Reader::FullDisk => {
                drop(end);
                None
            }
        };
        let fault = lab.uplink("cable").blackhole()?;
        let status = wait_until_active(&lab, "lte").with_context(|| format!("{reader:?}"))?;
        if !matches!(reader, Reader::Stops) {
            // What waits is not lost yet.
            assert!(status["log"]["lost"].as_u64() > Some(0), "{status:#}");
        }
        fault.repair()?;
        for verb in ["reload", "restart"] {
            let ordered = run(&lab, &[verb])?;
            assert_eq!(ordered.code, Some(0), "{verb}, {reader:?}: {ordered:?}");
        }
        agent.signal(Signal::SIGTERM)?;
        assert_eq!(agent.wait_exit(SOON)?.code(), Some(0), "{reader:?}");
        drop(end);
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn verbs_whose_reader_hangs_up_end_quietly() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let config = lab.write_config(&lab.agent_config().quick())?;
    let config = config.to_string_lossy();
    let run_to = |arguments: &[&str], stdout: Stdio| -> Result<std::process::Output> {
        let mut command = lab.host().namespace().command(agent_path()?);
        let command = command.args(arguments).args(lab.agent_dirs().flags());
        Ok(command.stdin(Stdio::null()).stdout(stdout).output()?)
    };
    let verbs: [&[&str]; 6] = [
        &["status"],
        &["status", "--json"],
        &["check", "--config", &config],
        &["doctor", "--config", &config],
        &["switch", "auto"],
        &["reload"],
    ];
    for verb in verbs {
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let ended = run_to(verb, writer.into())?;
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            ended.status.signal(),
            Some(Signal::SIGPIPE as i32),
            "{verb:?}: {} {stderr}",
            ended.status
        );
        assert_eq!(stderr, "", "{verb:?}");
    }
    // A full disk is an error that is told.
    let full = File::options().write(true).open("/dev/full")?;
    let ended = run_to(&["status"], full.into())?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("cannot write to standard output: No space left"),
        "{stderr}"
    );

    // What a reset has to do it does.
    let mut agent = agent;
    agent.kill9()?;
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let ended = run_to(&["reset"], writer.into())?;
    assert_eq!(ended.status.signal(), Some(Signal::SIGPIPE as i32));
    let again = run(&lab, &["reset"])?;
    assert_eq!(again.stdout, "nothing to reset: no trace of an agent\n");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn packets_of_others_do_not_fill_the_log() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    wait_active(&agent, "cable")?;
    agent.wait_for_status("lte's gate as closed", SOON, |status| {
        uplink(status, "lte")["gate"] == "closed"
    })?;
    let (before, lte) = (agent.log().len(), lab.uplink("lte"));
    // Each is a flow of its own that the closed gate ends, in both families.
    for source in [lte.host_v4(), lte.host_v6()] {
        lab.host().namespace().run(|| {
            for port in 1..=2000u16 {
                let socket = UdpSocket::bind((source, 20_000 + port))?;
                let target = match source.is_ipv4() {
                    true => TARGET_V4,
                    false => failover_lab::TARGETS_V6[0].into(),
                };
                // The gate's answer may be there already.
                socket.send_to(b"x", (target, 9)).ok();
            }
            Ok(())
        })?;
    }
    let status = agent.wait_for_status("lines that were left out", SOON, |status| {
        status["log"]["left_out"].as_u64() > Some(100)
    })?;
    let told = agent.wait_for_line("how many lines were left out", SOON, |line| {
        let message = line.field("message").and_then(|message| message.as_str());
        message.is_some_and(|message| {
            message.contains("more lines of this kind") && message.contains("flow ended: UDP ")
        })
    })?;
    assert!(told.field("left_out").and_then(Value::as_u64) > Some(10));
    let lines = agent.log().len() - before;
    assert!(lines < 200, "{lines} lines, {:#}", status["log"]);
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let mut events = lab.host().namespace().command(agent_path()?);
    let events = events.arg("events").args(lab.agent_dirs().flags());
    let ended = events.stdin(Stdio::null()).stdout(writer).output()?;
    assert_eq!(ended.status.signal(), Some(Signal::SIGPIPE as i32));
    assert_eq!(ended.stderr, b"");
    let text = agent.verb(&["status"])?;
    assert!(
        text.contains("lines that could not be written, and "),
        "{text}"
    );
    Ok(())
}
