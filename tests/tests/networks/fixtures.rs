//! What the scenarios share: the agent's settings and status, and what the kernel has been told.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context, Result};
use failover_agent::control::Status;
use failover_lab::{
    AgentProcess, DefaultRoute, Lab, TARGETS_V4, TARGETS_V6, Uplink as LabUplink, UplinkSpec,
    wait_for,
};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    OURS, SOON, default_routes, state, status, uplink, wait_for_status,
};

/// Starts an agent that probes these families. The timeout is longer than the interval: quick to notice, patient when the machine is busy.
pub(crate) fn start_agent(lab: &Lab, families: &[Family]) -> Result<AgentProcess> {
    let targets = families.iter().flat_map(|family| match family {
        Family::V4 => TARGETS_V4.map(IpAddr::from),
        Family::V6 => TARGETS_V6.map(IpAddr::from),
    });
    let config = lab.agent_config().quick().targets(targets);
    let config = config.interval(Duration::from_millis(100));
    lab.start_agent(&config.hold(Duration::ZERO))
}

/// Waits until an uplink leaves by this gateway from this address.
pub(crate) fn wait_for_next_hop_of(
    agent: &AgentProcess,
    name: &str,
    gateway: IpAddr,
    source: IpAddr,
) -> Result<Status> {
    let family = if source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let what = format!("{name} leaves by {gateway} from {source}");
    wait_for_status(agent, &what, |status| {
        state(status, name, family)
            .is_some_and(|state| (state.gateway, state.source) == (Some(gateway), Some(source)))
    })
}

/// Waits until the uplinks have answered some more probes, and are Up.
pub(crate) fn wait_for_answers(agent: &AgentProcess, family: Family, names: &[&str]) -> Result<()> {
    /// Some rounds of three targets.
    const SOME: u64 = 15;

    let before = status(agent)?;
    let probes = |status: &Status, name| uplink(status, name).counters.probes_passed;
    wait_for_status(agent, "more probes, and no loss", |now| {
        names.iter().all(|name| {
            let up = state(now, name, family).is_some_and(|state| state.health == Health::Up);
            up && probes(now, name) >= probes(&before, name) + SOME
        })
    })?;
    Ok(())
}

/// Default routes of the main table as `INTERFACE GATEWAY METRIC`: ours, and those of others. Sorted.
pub(crate) fn routes(lab: &Lab, family: Family) -> Result<(Vec<String>, Vec<String>)> {
    let all = default_routes(lab, family)?;
    let words = |route: &DefaultRoute| {
        let gateway = route.gateway.as_deref().unwrap_or("-");
        format!("{} {gateway} {}", route.interface, route.metric)
    };
    let (ours, others): (Vec<_>, Vec<_>) = all.iter().partition(|route| route.protocol == OURS);
    let sorted = |routes: Vec<&DefaultRoute>| {
        let mut words: Vec<String> = routes.into_iter().map(words).collect();
        words.sort();
        words
    };
    Ok((sorted(ours), sorted(others)))
}

/// Waits until the main table has exactly these default routes, in the words of [`routes`].
pub(crate) fn wait_for_routes(
    lab: &Lab,
    family: Family,
    ours: &[String],
    others: &[String],
) -> Result<()> {
    let sorted = |routes: &[String]| {
        let mut routes = routes.to_vec();
        routes.sort();
        routes
    };
    let expected = (sorted(ours), sorted(others));
    let what = format!("the default routes, ours and others, are {expected:?}");
    wait_for(&what, SOON, || match routes(lab, family) {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(format!("{found:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
}

/// The index of the uplink's interface to which the datapath thinks that an address belongs.
pub(crate) fn owner_in_datapath(lab: &Lab, address: Ipv4Addr) -> Result<Option<u64>> {
    let pin = lab.agent_dirs().bpf.join("addresses");
    let pin = pin.to_string_lossy();
    let dump = ["-j", "map", "dump", "pinned", &pin];
    let entries = lab.host().namespace().exec_json("bpftool", &dump)?;
    let key = address.to_ipv6_mapped().octets();
    let entries = entries.as_array().context("no list of addresses")?;
    let entry = entries.iter().find(|entry| {
        let bytes = entry["formatted"]["key"].as_array();
        bytes.is_some_and(|bytes| {
            bytes.len() == key.len()
                && bytes
                    .iter()
                    .zip(key)
                    .all(|(byte, wanted)| byte.as_u64() == Some(wanted.into()))
        })
    });
    Ok(entry.and_then(|entry| entry["formatted"]["value"]["ifindex"].as_u64()))
}

/// The index of a host's interface.
pub(crate) fn ifindex(lab: &Lab, interface: &str) -> Result<u64> {
    let links = ["-j", "link", "show", "dev", interface];
    let links = lab.host().namespace().exec_json("ip", &links)?;
    links[0]["ifindex"].as_u64().context("no index")
}

/// A laboratory whose host has IPv4 addresses and waits for router advertisements.
pub(crate) fn ipv6_by_advertisements() -> Result<Lab> {
    let spec = |name| UplinkSpec::veth(name).without_ipv6();
    Lab::builder().uplinks(["cable", "lte"].map(spec)).build()
}

/// One of the customer's /64 prefixes.
pub(crate) fn prefix(uplink: &LabUplink, number: u16) -> Ipv6Addr {
    let mut segments = uplink.addresses().host_v6.segments();
    segments[3..].fill(0);
    segments[3] = number;
    segments.into()
}

/// Waits until the host has made itself a preferred address of a prefix (RFC 4862), and returns it.
pub(crate) fn autoconfigured(lab: &Lab, name: &str, number: u16) -> Result<Ipv6Addr> {
    let prefix = prefix(lab.uplink(name), number).segments();
    let what = format!("{name} has an address of its prefix {number}");
    wait_for(&what, SOON, || {
        let show = ["-j", "-6", "address", "show", "dev", name, "-deprecated"];
        let links = lab.host().namespace().exec_json("ip", &show)?;
        let addresses = links[0]["addr_info"].as_array().into_iter().flatten();
        addresses
            .filter_map(|address| address["local"].as_str()?.parse::<Ipv6Addr>().ok())
            .find(|address| address.segments()[..4] == prefix[..4])
            .with_context(|| format!("{links}"))
    })
}
