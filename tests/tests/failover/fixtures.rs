//! What the scenarios share: settings, and what the agent has done so far.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use failover_ebpf::Gate;
use failover_lab::{
    AgentConfig, AgentProcess, DefaultRoute, Lab, TARGETS_V4, TARGETS_V6, Uplink as LabUplink,
    paced,
};
use failover_policy::Family;
use failover_tests::fixtures::{OURS, default_routes, ensure_cut, gate, status, target};

/// Probes after which any decision would have fallen long ago: 20 rounds of three targets.
pub(crate) const MANY: u64 = 60;

/// How an agent probes. The timeout is longer than the interval: quick to notice, patient when the machine is busy.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) targets: Vec<IpAddr>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) fall: u32,
    pub(crate) rise: u32,
    pub(crate) quorum: u32,
    pub(crate) hold: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            targets: targets_v4(),
            interval: paced(50),
            timeout: paced(250),
            fall: 3,
            rise: 4,
            quorum: 1,
            hold: Duration::ZERO,
        }
    }
}

impl Settings {
    /// The configuration of an agent for all of a laboratory's uplinks.
    pub(crate) fn config(&self, lab: &Lab) -> AgentConfig {
        lab.agent_config()
            .targets(self.targets.iter().copied())
            .interval(self.interval)
            .timeout(self.timeout)
            .fall(self.fall)
            .rise(self.rise)
            .quorum(self.quorum)
            .hold(self.hold)
    }
}

pub(crate) fn targets_v4() -> Vec<IpAddr> {
    TARGETS_V4.map(IpAddr::from).to_vec()
}

pub(crate) fn targets_v6() -> Vec<IpAddr> {
    TARGETS_V6.map(IpAddr::from).to_vec()
}

/// Checks that `active` carries a family's new traffic as it should: the status, the main table and the gates say so, and a packet
/// that is forced out by a standby is cut and counted.
pub(crate) fn check_active(
    lab: &Lab,
    agent: &AgentProcess,
    family: Family,
    active: &str,
) -> Result<()> {
    let before = status(agent)?;
    let in_status = before.active_in(family).map(|uplink| uplink.name.as_str());
    ensure!(in_status == Some(active), "status: {before:#?}");

    let routes = default_routes(lab, family)?;
    let shape = |route: &DefaultRoute| {
        (
            route.metric,
            route.interface.clone(),
            route.protocol.clone(),
        )
    };
    let found: Vec<_> = routes.iter().map(shape).collect();
    let mut expected: Vec<_> = (0..)
        .zip(lab.uplinks())
        .map(|(rank, uplink)| {
            let metric = if uplink.name() == active {
                80
            } else {
                5000 + rank
            };
            (metric, uplink.name().to_owned(), OURS.to_owned())
        })
        .collect();
    expected.sort();
    ensure!(found == expected, "{found:?}, not {expected:?}");

    for standby in lab.uplinks().iter().map(LabUplink::name) {
        let gate = gate(&before, standby, family);
        if standby == active {
            ensure!(gate == Some(Gate::Open), "{standby}: {gate:?}");
            continue;
        }
        ensure!(gate == Some(Gate::Closed), "{standby}: {gate:?}");
        ensure_cut(lab, agent, standby, target(family))?;
    }
    Ok(())
}
