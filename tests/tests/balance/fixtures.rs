//! What the scenarios share: a host with a balance group, and what the agent and the kernel say of it.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use failover_agent::control::Status;
use failover_ebpf::Gate;
use failover_lab::{AgentConfig, AgentProcess, Lab, UdpStream, wait_for};
use failover_policy::Family;
pub(crate) use failover_tests::fixtures::{SOON, default_routes, history, status};

/// A configuration of these uplinks with their ranks.
fn ranked(lab: &Lab, uplinks: &[(&str, u32)]) -> AgentConfig {
    let names: Vec<&str> = uplinks.iter().map(|(name, _)| *name).collect();
    let config = lab.agent_config().quick().only(&names);
    uplinks.iter().fold(config, |config, (name, rank)| {
        config.uplink(name, |uplink| uplink.rank(*rank))
    })
}

/// Two that share new connections 3 to 1, and one that stands behind them.
pub(crate) fn two(lab: &Lab) -> AgentConfig {
    ranked(lab, &[("cable", 0), ("dsl", 0), ("lte", 1)]).uplink("cable", |cable| cable.weight(3))
}

/// Three that share alike, and one that stands behind them.
pub(crate) fn three(lab: &Lab) -> AgentConfig {
    ranked(lab, &[("cable", 0), ("dsl", 0), ("fiber", 0), ("lte", 1)])
}

/// Starts an agent and waits until these are active.
pub(crate) fn start(lab: &Lab, config: &AgentConfig, active: &str) -> Result<AgentProcess> {
    let agent = lab.start_agent(config)?;
    wait_active(lab, &agent, active)?;
    Ok(agent)
}

/// Waits until exactly these uplinks, sorted and joined by commas, are active in both families: in the status, in the main table, and
/// with the only open gates.
pub(crate) fn wait_active(lab: &Lab, agent: &AgentProcess, active: &str) -> Result<Status> {
    wait_for(&format!("{active} is active"), SOON, || {
        let status = status(agent)?;
        check_active(lab, &status, active)?;
        anyhow::Ok(status)
    })
}

/// Whether a status and the main table say that of both families.
pub(crate) fn check_active(lab: &Lab, status: &Status, active: &str) -> Result<()> {
    ensure!(
        status.active.as_deref() == Some(active),
        "active: {:?}",
        status.active
    );
    let names: Vec<&str> = active.split(',').collect();
    for family in Family::ALL {
        for uplink in &status.uplinks {
            let carries = names.contains(&uplink.name.as_str());
            let Some(state) = uplink.families.get(family) else {
                ensure!(!carries, "{} has no {family}", uplink.name);
                continue;
            };
            // Where the interface is gone there is no gate to close.
            let gated = carries || state.source.is_none() || state.gate == Gate::Closed;
            ensure!(
                state.active == carries && gated && (!carries || state.gate == Gate::Open),
                "{} ({family}): {state:?}",
                uplink.name
            );
        }
        let best = default_routes(lab, family)?.into_iter().next();
        let best = best.context("no default route")?.interface;
        ensure!(best == active, "{family} leaves by {best}");
    }
    Ok(())
}

/// Checks that there was an egress path for each datagram of a stream.
pub(crate) fn ensure_never_without_route(stream: UdpStream) -> Result<()> {
    let records = stream.stop()?.records;
    ensure!(!records.is_empty(), "nothing was sent");
    let refused = records.iter().find(|record| record.send_error.is_some());
    ensure!(refused.is_none(), "not sent: {refused:?}");
    Ok(())
}

/// Checks that connections go on.
pub(crate) fn ensure_alive<'a>(
    connections: impl IntoIterator<Item = &'a failover_lab::TcpClient>,
) -> Result<()> {
    let now = Instant::now();
    for connection in connections {
        connection.wait_received_after(now, SOON)?;
    }
    Ok(())
}
