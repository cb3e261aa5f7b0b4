//! The signals that the agent obeys.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Restore everything and end. The signal's name.
    Stop(&'static str),
    /// Read the configuration file anew.
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
        Ok(Signals {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
            hang_up: install(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}
