//! The eBPF programs' messages, through `log` into tracing.

use std::convert::Infallible;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;

use super::raw::readable;

/// Messages of the eBPF programs.
pub struct Log(EbpfLogger<&'static dyn ::log::Log>);

impl Log {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Log> {
        Ok(Log(
            EbpfLogger::init(ebpf).context("opening the programs' messages")?
        ))
    }

    /// Forwards messages until it is dropped. Needs a tokio runtime with I/O, and panics without one, as all of tokio does.
    ///
    /// # Errors
    ///
    /// Waiting for messages fails.
    pub async fn forward(self) -> Result<Infallible> {
        let mut messages = readable(self.0).context(WAITING)?;
        loop {
            let mut ready = messages.readable_mut().await.context(WAITING)?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

const WAITING: &str = "waiting for the programs' messages";
