//! Processes and streams: how they go on, and end.

use anyhow::{Result, ensure};
use failover_lab::{AgentProcess, UdpStream, wait_until};
use nix::sys::signal::Signal;

use super::SOON;

/// Ends an agent as a service manager would, and checks that it calls that a success.
///
/// # Errors
/// When it does not end [`SOON`], or not successfully.
pub fn stop(mut agent: AgentProcess) -> Result<()> {
    agent.signal(Signal::SIGTERM)?;
    let end = agent.wait_exit(SOON)?;
    let said = agent.log();
    let last = said.last().map_or("", |line| line.text.as_str());
    ensure!(end.success(), "the agent has ended with {end}: {last}");
    Ok(())
}

/// Waits until a stream has sent that many datagrams more.
///
/// # Errors
/// When it has not [`SOON`].
pub fn wait_sent(stream: &UdpStream, more: usize) -> Result<()> {
    let before = stream.report().sent();
    wait_until("the stream sends", SOON, || {
        stream.report().sent() >= before + more
    })
}
