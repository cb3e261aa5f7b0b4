//! A program of ours that is followed: the agent, or `reset`.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use failover_agent::control::socket_path;
use failover_lab::{Lab, lock, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    places::Places,
    state::summary,
    tracer::{Exit, Traced},
    watch::{Order, Record, Watch},
};

/// How long the agent may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Lines of the log that are shown with a failure.
const LAST_LINES: usize = 40;

#[derive(Debug)]
pub(super) struct Subject {
    traced: Traced,
    watch: Arc<Watch>,
    log: Arc<Mutex<Vec<String>>>,
    run_dir: PathBuf,
}

impl Subject {
    /// Starts `program` in the laboratory's host, and counts its calls from the first one on, if that is the `phase` that matters.
    pub(super) fn start(
        lab: &Lab,
        program: &Path,
        arguments: &[&str],
        phase: Option<Option<&Order>>,
    ) -> Result<Subject> {
        let dirs = lab.agent_dirs();
        let (reader, writer) = io::pipe()?;
        let mut command = lab.host().namespace().command(program);
        command
            .args(arguments)
            .args(dirs.flags())
            .env("RUST_LOG", "info,failover_agent=debug")
            .env("NO_COLOR", "1")
            // Of cargo's: the loader would look for libraries in some fifty places.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        thread::Builder::new()
            .name("agent-log".to_owned())
            .spawn(move || {
                for line in BufReader::new(reader).lines().map_while(Result::ok) {
                    lock(&lines).push(line);
                }
            })?;
        let watch = Arc::new(Watch::default());
        if let Some(order) = phase {
            watch.begin(order);
        }
        let places = Places::of(dirs, program);
        Ok(Subject {
            traced: Traced::start(command, watch.clone(), places)?,
            watch,
            log,
            run_dir: dirs.run.clone(),
        })
    }

    /// The phase that matters begins.
    pub(super) fn begin(&self, order: Option<&Order>) {
        self.watch.begin(order);
    }

    /// The phase that matters is over.
    pub(super) fn end(&self) -> Record {
        self.watch.end()
    }

    /// When the call that is to fail has failed in this phase.
    pub(super) fn injected(&self) -> Option<Instant> {
        self.watch.injected()
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.traced.exit()
    }

    pub(super) fn pid(&self) -> i32 {
        self.traced.pid().as_raw()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.traced.signal(signal)
    }

    /// Waits until the process has ended.
    pub(super) fn wait_exit(&self, timeout: Duration) -> Result<Exit> {
        wait_for("the program ends", timeout, || {
            self.exit().ok_or("it still runs")
        })
    }

    /// An order over the control socket; the answer's word and text.
    pub(super) fn order(&self, request: &str) -> Result<Value> {
        let mut socket = UnixStream::connect(socket_path(&self.run_dir))
            .context("connecting to the control socket")?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.set_write_timeout(Some(ANSWER))?;
        writeln!(socket, "{}", json!({ "request": request }))?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line)?;
        ensure!(!line.is_empty(), "no answer to `{request}`");
        Ok(serde_json::from_str(&line)?)
    }

    pub(super) fn status(&self) -> Result<Value> {
        Ok(self.order("status")?["status"].take())
    }

    /// Waits until the status fulfils a condition; says so when the process has ended instead.
    pub(super) fn wait_for_status(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Came> {
        wait_for(what, timeout, || {
            if let Some(exit) = self.exit() {
                return Ok(Came::Ended(exit));
            }
            match self.status() {
                Ok(status) if condition(&status) => Ok(Came::True(Box::new(status))),
                Ok(status) => Err(summary(&status)),
                Err(error) => Err(format!("{error:#}")),
            }
        })
    }

    /// The same for one that must not end.
    pub(super) fn must_show(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        match self.wait_for_status(what, timeout, condition)? {
            Came::True(status) => Ok(*status),
            Came::Ended(exit) => bail!("the agent has ended ({exit:?}) before {what}"),
        }
    }

    /// The end of what it has written.
    pub(super) fn last_lines(&self) -> String {
        let log = lock(&self.log);
        log[log.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

/// What a wait has ended with.
pub(super) enum Came {
    True(Box<Value>),
    Ended(Exit),
}
