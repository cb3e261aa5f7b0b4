//! What the scenarios share.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Error, Result, ensure};
use failover_lab::{AgentConfig, AgentProcess, Lab, TARGET_V4, TARGET_V6, UplinkSpec, wait_for};
use failover_policy::Family;
pub(crate) use failover_tests::fixtures::wait_words;
use failover_tests::fixtures::{OURS, SOON, default_routes, json::uplink};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

/// A configuration with quick probes of IPv4, and nothing said about the uplinks' gateways.
pub(crate) fn config(lab: &Lab) -> AgentConfig {
    AgentConfig::of(lab.uplinks().iter().map(failover_lab::Uplink::name)).quick()
}

/// The same with probes of IPv6.
pub(crate) fn config_v6(lab: &Lab) -> AgentConfig {
    config(lab).targets([TARGET_V6])
}

/// The same with probes of both families.
pub(crate) fn config_dual(lab: &Lab) -> AgentConfig {
    config(lab).targets([TARGET_V4, TARGET_V6])
}

/// A laboratory in which a new default route of `cable` has a metric of its own to replace the old one by: 900.
pub(crate) fn with_metric() -> Result<Lab> {
    let cable = UplinkSpec::veth("cable").metric(900);
    Lab::builder()
        .uplinks([cable, UplinkSpec::veth("lte")])
        .build()
}

/// The same with 10.64.1.254 as another gateway of `cable`.
pub(crate) fn with_two_gateways() -> Result<Lab> {
    let lab = with_metric()?;
    let provider = lab.uplink("cable").provider();
    provider.ip_batch("address add 10.64.1.254/24 dev customer")?;
    Ok(lab)
}

/// Runs lines of `ip` in the host.
pub(crate) fn ip(lab: &Lab, lines: &str) -> Result<()> {
    lab.host().namespace().ip_batch(lines)
}

/// Waits until `uplink` is active and `others` are all Up, its gate open and theirs closed.
pub(crate) fn wait_ready(agent: &AgentProcess, active: &str, others: &[&str]) -> Result<Value> {
    let what = format!("{active} active, {others:?} Up and closed");
    agent.wait_for_status(&what, SOON, |status| {
        let ready = |name: &str, gate: &str| {
            let uplink = uplink(status, name);
            uplink["health"] == "Up" && uplink["gate"] == gate
        };
        status["active"] == active
            && ready(active, "open")
            && others.iter().all(|other| ready(other, "closed"))
    })
}

/// Waits until an uplink leaves by `gateway`, with `source` as the probes' address.
pub(crate) fn wait_way(
    agent: &AgentProcess,
    name: &str,
    family: &str,
    gateway: Option<&str>,
    source: &str,
) -> Result<Value> {
    let what = format!("{name} by {gateway:?} from {source}");
    agent.wait_for_status(&what, SOON, |status| {
        let way = &uplink(status, name)["families"][family];
        way["gateway"].as_str() == gateway && way["source"] == source
    })
}

/// Sends a datagram with this source by this interface, and tells whether the programs took it for stale.
pub(crate) fn is_stale(
    lab: &Lab,
    agent: &AgentProcess,
    interface: &str,
    source: IpAddr,
    target: IpAddr,
) -> Result<bool> {
    let stale = |status: &Value| uplink(status, interface)["counters"]["stale_cut"].as_u64();
    let before = stale(&agent.status_json()?);
    lab.host().namespace().run(|| {
        let domain = Domain::for_address(SocketAddr::new(source, 0));
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.send_to(b"stale?", &SocketAddr::new(target, 9).into())?;
        Ok(())
    })?;
    Ok(stale(&agent.status_json()?) > before)
}

/// Waits until the best default route of a family leads by this interface and gateway, and is ours.
pub(crate) fn wait_best_route(
    lab: &Lab,
    family: Family,
    interface: &str,
    gateway: Option<&str>,
) -> Result<()> {
    wait_for(&format!("{interface} by {gateway:?}"), SOON, || {
        let routes = default_routes(lab, family)?;
        let best = routes.first().context("no default route")?;
        let found = (&*best.interface, best.gateway.as_deref(), &*best.protocol);
        ensure!(found == (interface, gateway, OURS), "{best:?}");
        Ok::<_, Error>(())
    })
}
