//! The demonstration's program: what it reports, and that it fails and ends as it says.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use failover_lab::wait_for;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_failover-demo"));
    command.args(arguments);
    command
}

/// Its one object, and nothing else, on standard output.
fn report(output: &Output) -> Result<Value> {
    let stdout = str::from_utf8(&output.stdout)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(stdout).with_context(|| format!("stdout: {stdout}\nstderr: {stderr}"))
}

/// Places of the events for which `matches` holds.
fn places(report: &Value, matches: impl Fn(&Value) -> bool) -> Vec<usize> {
    let events = report["timeline"].as_array().into_iter().flatten();
    events
        .enumerate()
        .filter_map(|(place, event)| matches(event).then_some(place))
        .collect()
}

/// The place of an event's first appearance.
fn place(report: &Value, name: &str, key: &str, value: &str) -> usize {
    let found = places(report, |event| {
        event["event"] == name && event[key] == value
    });
    assert!(
        !found.is_empty(),
        "no {name} with {key} {value}: {report:#}"
    );
    found[0]
}

#[test]
#[ignore = "needs root"]
fn it_reports_a_failover_and_a_failback() -> Result<()> {
    let output = demo(&["--json"]).output()?;
    let report = report(&output)?;
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["version"], 1);
    assert_eq!(
        (&report["ok"], &report["error"]),
        (&true.into(), &Value::Null)
    );

    let order = [
        place(&report, "decision", "cause", "start-up"),
        place(&report, "flowing", "stream", "host"),
        place(&report, "fault", "uplink", "cable"),
        place(&report, "decision", "cause", "failover"),
        place(&report, "first-packet", "uplink", "lte"),
        place(&report, "repair", "uplink", "cable"),
        place(&report, "decision", "cause", "failback"),
        place(&report, "first-packet", "uplink", "cable"),
        places(&report, |event| event["event"] == "stopped")[0],
    ];
    assert!(order.is_sorted(), "{order:?}: {report:#}");
    let times = report["timeline"].as_array().unwrap().iter();
    let times: Vec<_> = times.map(|event| event["t_ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let (fault, failover) = (order[2], order[3]);
    let failed = places(&report, |event| {
        event["event"] == "probe-failed" && event["uplink"] == "cable" && event["fall"] == 3
    });
    let failed = failed.iter().filter(|&&at| at > fault && at < failover);
    assert!(failed.count() >= 3, "{report:#}");

    let summary = &report["summary"];
    let number = |path: &str| {
        let value = summary.pointer(path).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no {path}: {summary:#}"))
    };
    for stream in ["host", "client"] {
        let gap = number(&format!("/failover/longest_gap_ms/{stream}"));
        // Three rounds, 100 ms apart, cannot be shorter.
        assert!(gap > 200.0, "{summary:#}");
        assert!(
            number(&format!("/failover/lost/{stream}")) > 0.0,
            "{summary:#}"
        );
        let of = |what: &str| number(&format!("/packets/{stream}/{what}"));
        assert_eq!(of("sent"), of("answered") + of("lost"));
    }
    assert!(number("/failover/detection_ms") > 200.0, "{summary:#}");
    assert!(number("/failover/detection_ms") <= number("/failover/longest_gap_ms/host"));
    // It waits for hold, which is one second from the first good round on.
    assert!(number("/failback/detection_ms") > 500.0, "{summary:#}");
    assert!(number("/failover/decision_to_route_ms") > 0.0);
    for stream in ["host", "client"] {
        place(&report, "ended", "stream", stream);
        let path = format!("/failover/old_connection_ended_ms/{stream}");
        assert!(number(&path) > 0.0, "{summary:#}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn it_fails_when_there_is_nowhere_to_go() -> Result<()> {
    let output = demo(&["--json", "--break-backup"]).output()?;
    let report = report(&output)?;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_eq!(
        (&report["ok"], &report["summary"]),
        (&false.into(), &Value::Null)
    );
    let error = report["error"].as_str().unwrap();
    assert!(error.starts_with("no failover: "), "{error}");
    assert!(
        error.contains("no uplink is proven Up"),
        "the log's end: {error}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains(error.trim_end()));
    place(&report, "fault", "uplink", "lte");
    place(&report, "health", "to", "Down");
    Ok(())
}

#[test]
fn it_says_how_to_get_a_missing_agent() -> Result<()> {
    let output = demo(&["--agent", "/nonexistent/agent"]).output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("/nonexistent/agent"), "{stderr}");
    assert!(stderr.contains("cargo build --release"), "{stderr}");
    Ok(())
}

/// A running demonstration whose text is read; killed if the test fails.
struct Running {
    child: Child,
    text: BufReader<ChildStderr>,
}

impl Running {
    fn start() -> Result<Running> {
        let mut child = demo(&["--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let text = BufReader::new(child.stderr.take().context("no standard error")?);
        Ok(Running { child, text })
    }

    /// Reads on until a line contains `mark`, and returns the line.
    fn read_until(&mut self, mark: &str) -> Result<String> {
        let mut lines = self.text.by_ref().lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains(mark));
        line.with_context(|| format!("it never said {mark}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Namespaces, directories, mounts and processes of the laboratories of process `pid`.
fn leftovers(pid: u32) -> Result<Vec<String>> {
    let id = format!("fa-{pid}-");
    let mut found = Vec::new();
    for dir in ["/run", "/run/netns"] {
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            found.extend(name.starts_with(&id).then_some(name));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter(|line| line.contains(&id));
    found.extend(mounts.map(str::to_owned));
    for entry in fs::read_dir("/proc")? {
        // What has ended meanwhile is not left over.
        if let Ok(arguments) = fs::read_to_string(entry?.path().join("cmdline"))
            && arguments.contains(&format!("/{id}"))
        {
            found.push(arguments.replace('\0', " "));
        }
    }
    Ok(found)
}

#[test]
#[ignore = "needs root"]
fn interrupted_at_any_point_it_leaves_nothing_behind() -> Result<()> {
    let points = [
        ("seconds", Signal::SIGINT, 130),
        ("running", Signal::SIGTERM, 143),
        ("FAULT", Signal::SIGINT, 130),
        ("REPAIR", Signal::SIGTERM, 143),
    ];
    for (mark, signal, code) in points {
        let mut running = Running::start()?;
        let pid = running.child.id();
        running.read_until(mark)?;
        if mark != "seconds" {
            let there = leftovers(pid)?;
            assert!(
                there.iter().any(|line| line.contains("failover-agent")),
                "{there:?}"
            );
        }
        kill(Pid::from_raw(pid.cast_signed()), signal)?;
        let status = wait_for("it ends", Duration::from_secs(20), || {
            running.child.try_wait()?.context("it still runs")
        })?;
        // "seconds" is said a moment before the laboratory takes over the signals.
        if mark != "seconds" {
            assert_eq!(status.code(), Some(code), "at {mark}");
        }
        assert_eq!(leftovers(pid)?, [""; 0], "at {mark}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn it_fails_when_the_agent_dies() -> Result<()> {
    let mut running = Running::start()?;
    let line = running.read_until("running (process ")?;
    let (_, pid) = line.split_once("(process ").context("no process id")?;
    let (pid, _) = pid.split_once(')').context("no process id")?;
    kill(Pid::from_raw(pid.parse()?), Signal::SIGKILL)?;
    running.read_until("the agent has ended by itself")?;
    running.read_until("The agent's log ended with:")?;
    assert_eq!(running.child.wait()?.code(), Some(1));
    assert_eq!(leftovers(running.child.id())?, [""; 0]);
    Ok(())
}
