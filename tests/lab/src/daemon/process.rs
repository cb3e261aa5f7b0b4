//! A daemon as a process.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    agent::{LogLine, collect, last_lines},
    wait::wait_for,
    worker::lock,
};

/// How long a daemon may take to say something or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon; killed when dropped. Then the end of its log is printed.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    /// Standard output and standard error.
    log: Arc<Mutex<Vec<LogLine>>>,
}

impl Daemon {
    /// Starts one where the calling thread is.
    pub(super) fn spawn(command: &mut Command) -> Result<Daemon> {
        use std::os::unix::process::CommandExt;

        let name = Path::new(command.get_program())
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let mut child = command
            // Ctrl-C in a terminal is for the laboratory; it ends the daemon itself.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {name} (cargo xtask setup brings it)"))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, log.clone(), Arc::default())?;
        }
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, log.clone(), Arc::default())?;
        }
        Ok(Daemon { name, child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written.
    pub fn log(&self) -> Vec<LogLine> {
        lock(&self.log).clone()
    }

    /// Waits for a line that contains `text`, which may have been written already.
    ///
    /// # Errors
    /// When none comes in time, or the daemon has ended.
    pub fn wait_for_line(&mut self, text: &str) -> Result<LogLine> {
        let what = format!("{} writes `{text}`", self.name);
        wait_for(&what, PATIENCE, || {
            let ended = self.child.try_wait().ok().flatten();
            let log = lock(&self.log);
            match log.iter().find(|line| line.text.contains(text)) {
                Some(line) => Ok(Ok(line.clone())),
                None => match ended {
                    Some(status) => Ok(Err(anyhow::anyhow!(
                        "{} has ended with {status}:\n{}",
                        self.name,
                        last_lines(&log)
                    ))),
                    None => Err(last_lines(&log)),
                },
            }
        })?
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Ends it as a service manager would, and waits until it has ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        wait_for(&format!("{} ends", self.name), PATIENCE, || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err(last_lines(&lock(&self.log))),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        // The test harness shows it when the test fails, by a panic or by an error.
        let log = last_lines(&lock(&self.log));
        eprintln!("the log of {} ended with:\n{log}", self.name);
    }
}
