//! The signals that the agent obeys.

use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{SIGHUP, SIGINT, SIGTERM, SigSet};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

/// For a signal that has come to be noticed.
const NOTICE: Duration = Duration::from_millis(1);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Restore everything and end. The signal's name.
    Stop(&'static str),
    /// Read the configuration file again.
    Reload,
}

/// SIGINT, SIGTERM and SIGHUP, taken over before anything is changed. Those that come during the clean-up are swallowed: a second Ctrl-C
/// does not make it worse.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn install() -> anyhow::Result<Self> {
        let install = |kind| signal(kind).context("installing a signal handler");
        let signals = Signals {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
            hang_up: install(SignalKind::hangup())?,
        };
        // What has come while the program was restarted waits for this.
        ours().thread_unblock().context("taking signals")?;
        Ok(signals)
    }

    /// Has signals wait for the program that takes over: it would die of them before it can take them. Whoever wants a stop already.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub(super) async fn hand_over(&mut self) -> anyhow::Result<Option<&'static str>> {
        ours().thread_block().context("keeping signals")?;
        loop {
            tokio::select! {
                biased;
                asked = self.next() => match asked {
                    Asked::Stop(signal) => return Ok(Some(signal)),
                    // The new one reads the file anyway.
                    Asked::Reload => {}
                },
                () = sleep(NOTICE) => return Ok(None),
            }
        }
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}

fn ours() -> SigSet {
    [SIGINT, SIGTERM, SIGHUP].into_iter().collect()
}
