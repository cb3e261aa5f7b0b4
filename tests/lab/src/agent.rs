//! The agent as a process: started in a namespace, watched, and ended whatever happens.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    clock::WallClock,
    namespace::Namespace,
    usage::{cpu_time, rss_bytes},
    wait::wait_for,
    worker::lock,
};

/// Log level of agents in the laboratory.
const LOG: &str = "info,failover_agent=debug";

/// Lines of the log that are shown when a test fails.
const LAST_LINES: usize = 60;

/// Where an agent in the laboratory keeps its files.
#[derive(Clone, Debug)]
pub struct AgentDirs {
    /// `--run-dir`.
    pub run: PathBuf,
    /// `--bpf-dir`: on a BPF file system, not made yet.
    pub bpf: PathBuf,
    /// `--state-dir`.
    pub state: PathBuf,
    /// For anything else, such as captures.
    pub scratch: PathBuf,
}

impl AgentDirs {
    pub(super) fn in_dir(dir: &Path, bpf: PathBuf) -> AgentDirs {
        AgentDirs {
            run: dir.join("run"),
            bpf,
            state: dir.join("state"),
            scratch: dir.to_owned(),
        }
    }

    /// Where [`Lab::write_config`](super::Lab::write_config) writes.
    pub(super) fn config_file(&self) -> PathBuf {
        self.scratch.join("agent.toml")
    }

    /// The agent's flags for all of them.
    pub fn flags(&self) -> [&Path; 6] {
        [
            Path::new("--run-dir"),
            &self.run,
            Path::new("--bpf-dir"),
            &self.bpf,
            Path::new("--state-dir"),
            &self.state,
        ]
    }
}

/// The agent's executable, which cargo puts beside the running one's.
///
/// # Errors
/// When it is not there; the error says how to build it.
pub fn agent_path() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running executable")?;
    // Tests run in target/<profile>/deps, other executables in target/<profile>.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("failover-agent"))
        .find(|path| path.is_file())
        .with_context(|| {
            let release = own.iter().any(|part| part == "release");
            let release = if release { " --release" } else { "" };
            format!(
                "no failover-agent beside {}: build it with `cargo build{release}`",
                own.display()
            )
        })
}

/// A line that the agent has written.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// When it arrived here.
    pub at: Instant,
    /// As written.
    pub text: String,
    /// Parsed, with `--log-format json`.
    pub json: Option<Value>,
}

impl LogLine {
    /// A field of a JSON log line.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.json.as_ref()?.get(name)
    }
}

/// A running agent; killed when dropped. If the test is failing then, the end of its log is printed.
#[derive(Debug)]
pub struct AgentProcess {
    child: Child,
    program: PathBuf,
    namespace: Namespace,
    dirs: AgentDirs,
    log: Arc<Mutex<Vec<LogLine>>>,
    attention: Arc<Attention>,
    /// Standard output and standard error.
    readers: Vec<JoinHandle<()>>,
}

impl AgentProcess {
    /// Starts `program` with `arguments`, followed by the flags for `dirs`, and JSON lines as log format.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        program: &Path,
        namespace: &Namespace,
        arguments: &[&str],
        dirs: &AgentDirs,
    ) -> Result<AgentProcess> {
        AgentProcess::spawn_logging(program, namespace, arguments, dirs, LOG)
    }

    /// The same, with a time of day of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn spawn_by(
        clock: &WallClock,
        program: &Path,
        namespace: &Namespace,
        arguments: &[&str],
        dirs: &AgentDirs,
    ) -> Result<AgentProcess> {
        let mut environment = vec![("RUST_LOG", LOG.into())];
        environment.extend(clock.environment());
        AgentProcess::spawn_in(program, namespace, arguments, dirs, &environment)
    }

    /// The same, with this `RUST_LOG`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_logging(
        program: &Path,
        namespace: &Namespace,
        arguments: &[&str],
        dirs: &AgentDirs,
        log: &str,
    ) -> Result<AgentProcess> {
        let environment = [("RUST_LOG", log.into())];
        AgentProcess::spawn_in(program, namespace, arguments, dirs, &environment)
    }

    fn spawn_in(
        program: &Path,
        namespace: &Namespace,
        arguments: &[&str],
        dirs: &AgentDirs,
        environment: &[(&str, OsString)],
    ) -> Result<AgentProcess> {
        let mut child = namespace
            .command(program)
            .args(arguments)
            .args(dirs.flags())
            .args(["--log-format", "json"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C in a terminal is for the laboratory; it ends the agent itself.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let attention = Arc::<Attention>::default();
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(collect(stdout, log.clone(), attention.clone())?);
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(collect(stderr, log.clone(), attention.clone())?);
        }
        Ok(AgentProcess {
            child,
            program: program.to_owned(),
            namespace: namespace.clone(),
            dirs: dirs.clone(),
            log,
            attention,
            readers,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether nobody reads what it writes from now on, so that its pipes fill.
    pub fn set_unread(&self, unread: bool) {
        self.attention.set(!unread);
    }

    /// Everything it has written.
    pub fn log(&self) -> Vec<LogLine> {
        lock(&self.log).clone()
    }

    /// Waits for a line, which may have been written already.
    ///
    /// # Errors
    /// When none comes within `timeout`.
    pub fn wait_for_line(
        &self,
        what: &str,
        timeout: Duration,
        matches: impl Fn(&LogLine) -> bool,
    ) -> Result<LogLine> {
        wait_for(&format!("the agent logs {what}"), timeout, || {
            let log = lock(&self.log);
            let line = log.iter().find(|line| matches(line));
            line.cloned().ok_or_else(|| last_lines(&log))
        })
    }

    /// What `failover-agent status --json` prints.
    ///
    /// # Errors
    /// When it fails, for example since the agent does not answer yet.
    pub fn status_json(&self) -> Result<Value> {
        let output = self.verb(&["status", "--json"])?;
        serde_json::from_str(&output).with_context(|| format!("status --json: {output}"))
    }

    /// Runs another verb of the same executable in the same namespace on the same directories, and returns its standard output.
    ///
    /// # Errors
    /// When it fails; the error holds its standard error.
    pub fn verb(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .namespace
            .command(&self.program)
            .args(arguments)
            .args(self.dirs.flags())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until the status fulfils a condition, and returns it.
    ///
    /// # Errors
    /// When it does not within `timeout`; the error shows the last status.
    pub fn wait_for_status(
        &self,
        what: &str,
        timeout: Duration,
        matches: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("the agent's status shows {what}");
        wait_for(&what, timeout, || match self.status_json() {
            Ok(status) if matches(&status) => Ok(status),
            Ok(status) => Err(format!("{status:#}")),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Waits until it answers on its control socket.
    pub(super) fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let proc = format!("/proc/{}/stat", self.pid());
        wait_for("the agent answers", timeout, || {
            let error = match self.status_json() {
                Ok(_) => return Ok(Ok(())),
                Err(error) => error,
            };
            // A zombie: it has ended and will never answer.
            if fs::read_to_string(&proc).is_ok_and(|stat| stat.contains(") Z ")) {
                let log = last_lines(&lock(&self.log));
                return Ok(Err(anyhow::anyhow!("the agent has ended:\n{log}")));
            }
            Err(error)
        })?
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to the agent"))
    }

    /// Kills it as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the agent")?;
        self.child.wait().context("cannot wait for the agent")?;
        Ok(())
    }

    /// How it has ended; `None` while it runs.
    ///
    /// # Errors
    /// When it cannot be asked for.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot look at the agent")
    }

    /// Waits until it ends, and until all it wrote is in the log.
    ///
    /// # Errors
    /// When it does not end within `timeout`.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let status = wait_for("the agent ends", timeout, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(last_lines(&lock(&self.log))),
            Err(error) => Err(error.to_string()),
        })?;
        // It has ended: what is in its pipes is read, whoever was away.
        self.attention.set(true);
        for reader in self.readers.drain(..) {
            if reader.join().is_err() {
                bail!("the thread that reads the agent's log has panicked");
            }
        }
        Ok(status)
    }

    /// Processor time that its living threads have used, to the nanosecond.
    ///
    /// # Errors
    /// When it has ended, or the kernel has no CONFIG_SCHED_INFO.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.pid())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn rss_bytes(&self) -> Result<u64> {
        rss_bytes(self.pid())
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        self.attention.set(true);
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            let log = last_lines(&lock(&self.log));
            eprintln!("the agent's log ended with:\n{log}");
        }
    }
}

/// Whether a process is listened to.
#[derive(Debug, Default)]
pub(super) struct Attention {
    /// Nobody reads.
    away: Mutex<bool>,
    back: Condvar,
}

impl Attention {
    fn set(&self, given: bool) {
        *lock(&self.away) = !given;
        self.back.notify_all();
    }

    fn wait(&self) {
        let mut away = lock(&self.away);
        while *away {
            away = (self.back.wait(away)).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Puts the lines of a pipe into `log`, in a thread that ends with it.
pub(super) fn collect(
    pipe: impl Read + Send + 'static,
    log: Arc<Mutex<Vec<LogLine>>>,
    attention: Arc<Attention>,
) -> Result<JoinHandle<()>> {
    let reader = thread::Builder::new().name("agent-log".to_owned());
    let reader = reader.spawn(move || {
        for text in BufReader::new(pipe).lines().map_while(Result::ok) {
            let at = Instant::now();
            let json = serde_json::from_str(&text).ok();
            lock(&log).push(LogLine { at, text, json });
            attention.wait();
        }
    })?;
    Ok(reader)
}

/// The end of a log.
pub(super) fn last_lines(log: &[LogLine]) -> String {
    let from = log.len().saturating_sub(LAST_LINES);
    let lines: Vec<&str> = log[from..].iter().map(|line| line.text.as_str()).collect();
    lines.join("\n")
}
