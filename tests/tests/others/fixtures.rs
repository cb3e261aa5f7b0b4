//! What the scenarios share.

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use failover_lab::{
    AgentConfig, AgentProcess, LINK_LOCAL_GATEWAY, Lab, Namespace, Snapshot, wait_for,
};
use failover_tests::fixtures::SOON;

/// Starts an agent, and waits until both uplinks are Up, the first is active, and IPv6 follows.
pub(crate) fn start(lab: &Lab, config: &AgentConfig) -> Result<AgentProcess> {
    let agent = lab.start_agent(config)?;
    agent.wait_for_status("both uplinks Up, the first active", SOON, |status| {
        let active = |family: &str| status["uplinks"][0]["families"][family]["active"] == true;
        active("ipv4")
            && active("ipv6")
            && status["uplinks"][0]["health"] == "Up"
            && status["uplinks"][1]["health"] == "Up"
    })?;
    Ok(agent)
}

/// How often the agent has waited for something, all its threads together (`voluntary_ctxt_switches` in `/proc/PID/status`).
pub(crate) fn wake_ups(agent: &AgentProcess) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
            .context("no count of context switches")?;
        sum += count.trim().parse::<u64>()?;
    }
    Ok(sum)
}

/// Another program, ended when this goes out of scope.
pub(crate) struct Script(Child);

impl Script {
    /// Runs a shell script.
    pub(crate) fn start(namespace: &Namespace, script: &str) -> Result<Script> {
        Script::spawn(namespace.command("sh").args(["-c", script]))
    }

    /// Starts a program that is given its commands by [`Script::feed`].
    pub(crate) fn spawn(command: &mut Command) -> Result<Script> {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Script(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Writes a line to its standard input.
    pub(crate) fn feed(&mut self, line: &str) -> Result<()> {
        let stdin = self.0.stdin.as_mut().context("no pipe")?;
        Ok(writeln!(stdin, "{line}")?)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits until routes, rules and all else in the host are what they were in `before`.
pub(crate) fn wait_restored(lab: &Lab, before: &Snapshot, after: &str) -> Result<()> {
    wait_for(&format!("{after:?} is undone"), SOON, || {
        let now = lab
            .host()
            .snapshot()
            .map_err(|error| format!("{error:#}"))?;
        let diff = before.diff(&now);
        if diff.is_empty() {
            Ok(())
        } else {
            Err(diff.to_string())
        }
    })
}

/// So many changes, so often: 5,000 a second, if the machine has the time.
pub(crate) const BATCH: u64 = 500;
const EVERY: Duration = Duration::from_millis(100);

/// `BATCH` changes to routes that are no default routes, as a routing daemon makes them.
pub(crate) fn foreign_routes(lab: &Lab) -> String {
    let gateway = lab.uplink("lte").addresses().gateway_v4;
    let v4 = |n| format!("10.99.0.{n}/32 via {gateway} dev lte proto bird\n");
    let v6 = |n| format!("2001:db8:99::{n}/128 via {LINK_LOCAL_GATEWAY} dev lte proto bird\n");
    let quarter = BATCH / 4;
    let routes = || (0..quarter).map(v4).chain((0..quarter).map(v6));
    let add = routes().map(|route| format!("route add {route}"));
    let delete = routes().map(|route| format!("route del {route}"));
    add.chain(delete).collect()
}

/// Has one `ip` work off `lines` every [`EVERY`] while `during` runs. Returns the number of changes asked for, and what `during` returned.
pub(crate) fn flooded<T>(
    host: &Namespace,
    lines: &str,
    during: impl FnOnce(&AtomicU64) -> Result<T>,
) -> Result<(u64, T)> {
    let (end, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut ip = host
        .command("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = ip.stdin.take().context("no pipe")?;
    let result = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                stdin.write_all(lines.as_bytes())?;
                stdin.flush()?;
                changes.fetch_add(BATCH, Ordering::Relaxed);
                thread::sleep(EVERY);
            }
            // It ends at the end of its input.
            drop(stdin);
            Ok::<_, std::io::Error>(())
        });
        let result = during(&changes);
        end.store(true, Ordering::Relaxed);
        flood.join().expect("the flood does not panic")?;
        result
    });
    let status = ip.wait()?;
    ensure!(status.success(), "ip: {status}");
    Ok((changes.load(Ordering::Relaxed), result?))
}
