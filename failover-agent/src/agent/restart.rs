//! Restarting the program in the same process, without letting go of routes and gates: for a new version of it.

use std::{
    convert::Infallible,
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::unistd::{AccessFlags, access};
use tracing::{debug, info};

use super::{
    Agent, Ended,
    reload::check_fixed,
    signals::{Asked, Signals},
};
use crate::{control::Response, store::Handover};

/// For the answer to reach whoever ordered it.
const GRACE: Duration = Duration::from_millis(100);

/// The program as it was called, found before an upgrade replaces its file.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// This process's.
    ///
    /// # Errors
    ///
    /// `/proc` is not there.
    pub fn this() -> Result<Program> {
        let path = env::current_exe().context("finding the program's file")?;
        Ok(Program(path))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs what stands in its file now, with the same arguments, in this process, and passes on what is handed over.
    ///
    /// # Errors
    ///
    /// The file cannot be executed. Returns only then.
    pub fn execute(&self, handover: Option<&Handover>) -> Result<Infallible> {
        let mut arguments = env::args_os();
        let mut command = Command::new(&self.0);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        if let Some(handover) = handover {
            handover.announce(&mut command);
        }
        let error = command.args(arguments).exec();
        Err(error).with_context(|| format!("cannot execute {}", self.0.display()))
    }
}

impl Agent<'_> {
    /// Orders it, if a new start can be expected to succeed.
    pub(super) fn order_restart(&mut self) -> Response {
        match self.check_restart() {
            Ok(()) => {
                info!("restarting: routes, gates and programs stay as they are");
                self.restart = Some(Instant::now() + GRACE);
                Response::Done("restarting".to_owned())
            }
            Err(error) => Response::Refused(format!("{error:#} (the agent goes on)")),
        }
    }

    /// Ends the user's programs after the agent was `served`, before the routes change under their feet, and lets what is being cut end. That
    /// takes its time: meanwhile gates stay as they are, and whoever wants a stop gets one instead of a new start.
    pub(super) async fn end(
        mut self,
        served: Result<Ended>,
        signals: &mut Signals,
    ) -> Result<Ended> {
        // By its pins a stop finds what it must remove, and a new start what it adopts.
        if let Err(error) = self.datapath.pin_maps() {
            debug!("{error:#}");
        }
        let mut ending = std::pin::pin!(std::mem::take(&mut self.hooks).stop());
        let mut ended = false;
        let mut stop = None;
        while !(ended && self.cut_tasks.is_idle()) {
            tokio::select! {
                () = &mut ending, if !ended => ended = true,
                Some(cut) = self.cut_tasks.done() => self.finish_cut(cut),
                _ = self.lease.tick() => self.renew_lease(),
                asked = signals.next() => if let Asked::Stop(signal) = asked {
                    stop = Some(signal);
                },
            }
        }
        // The next run has nothing but the time of day to know when a drill ends.
        self.follow_time_of_day();
        if served? == Ended::Stopped {
            return Ok(Ended::Stopped);
        }
        if stop.is_none() {
            stop = signals.hand_over().await?;
        }
        match stop {
            Some(signal) => {
                info!("{signal}: stopping");
                Ok(Ended::Stopped)
            }
            None => Ok(Ended::Restarting),
        }
    }

    fn check_restart(&mut self) -> Result<()> {
        let path = self.program.path();
        access(path, AccessFlags::X_OK)
            .with_context(|| format!("{} cannot be executed", path.display()))?;
        match &self.origin {
            // What it would not find again would stay behind.
            Some(origin) => {
                let config = origin.read()?;
                check_fixed(&self.config, &config)?;
                // What would end the new program at its start.
                self.router.await_uplinks(&config).map(drop)
            }
            None => self.router.await_uplinks(&self.config).map(drop),
        }
    }
}
