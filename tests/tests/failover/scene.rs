//! What the scenarios share: settings, and what the agent has done so far.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use failover_agent::{
    control::{
        Status,
        status::{FamilyState, Uplink},
    },
    policy::{Family, Health},
};
use failover_ebpf::Gate;
use failover_tests::lab::{
    AgentProcess, DefaultRoute, Lab, TARGET_V4, TARGET_V6, TARGETS_V4, TARGETS_V6,
    Uplink as LabUplink, wait_for,
};
use nix::sys::signal::Signal;

/// Long enough for everything that is to happen, even on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// How long an answer is waited for that is not to come.
pub(crate) const FORCED: Duration = Duration::from_millis(50);

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
            interval: Duration::from_millis(50),
            timeout: Duration::from_millis(250),
            fall: 3,
            rise: 4,
            quorum: 1,
            hold: Duration::ZERO,
        }
    }
}

impl Settings {
    /// The configuration of an agent for all of a laboratory's uplinks.
    pub(crate) fn config(&self, lab: &Lab) -> String {
        let targets: Vec<String> = self.targets.iter().map(IpAddr::to_string).collect();
        lab.config(&format!(
            "targets = {targets:?}\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nfall = {}\nrise = {}\nquorum = {}\nhold = \"{}ms\"",
            self.interval.as_millis(),
            self.timeout.as_millis(),
            self.fall,
            self.rise,
            self.quorum,
            self.hold.as_millis(),
        ))
    }
}

pub(crate) fn targets_v4() -> Vec<IpAddr> {
    TARGETS_V4.map(IpAddr::from).to_vec()
}

pub(crate) fn targets_v6() -> Vec<IpAddr> {
    TARGETS_V6.map(IpAddr::from).to_vec()
}

/// A switch that an agent has logged.
#[derive(Clone, Debug)]
struct Switched {
    /// When the line arrived.
    at: Instant,
    /// "failover lte".
    what: String,
}

fn switches(agent: &AgentProcess, family: Family) -> Vec<Switched> {
    let log = agent.log();
    let switches = log.iter().filter_map(|line| {
        let text = |name| line.field(name)?.as_str();
        // Only the line of a confirmed switch has both.
        line.field("routed_us")?;
        let (cause, to) = (text("cause")?, text("to")?);
        (text("family")? == family.to_string()).then(|| Switched {
            at: line.at,
            what: format!("{cause} {to}"),
        })
    });
    switches.collect()
}

/// All switches of a family so far: `["start-up cable", "failover lte"]`.
pub(crate) fn history(agent: &AgentProcess, family: Family) -> Vec<String> {
    let switches = switches(agent, family).into_iter();
    switches.map(|switch| switch.what).collect()
}

/// Waits until the agent has made exactly these switches, and returns when the last of them was done.
pub(crate) fn wait_for_history(
    agent: &AgentProcess,
    family: Family,
    expected: &[&str],
) -> Result<Instant> {
    let what = format!("the agent has made the switches {expected:?} for {family}");
    let switches = wait_for(&what, SOON, || {
        let switches = switches(agent, family);
        if switches.len() >= expected.len() {
            return Ok(switches);
        }
        Err(format!("{switches:?}"))
    })?;
    let made: Vec<&str> = switches.iter().map(|switch| switch.what.as_str()).collect();
    ensure!(
        made == expected,
        "the agent has made the switches {made:?}, not {expected:?}"
    );
    Ok(switches[expected.len() - 1].at)
}

pub(crate) fn status(agent: &AgentProcess) -> Result<Status> {
    Ok(serde_json::from_value(agent.status_json()?)?)
}

/// Waits until the agent's status fulfils a condition, and returns it.
pub(crate) fn wait_for_status(
    agent: &AgentProcess,
    what: &str,
    condition: impl Fn(&Status) -> bool,
) -> Result<Status> {
    let what = format!("the agent's status shows {what}");
    wait_for(&what, SOON, || match status(agent) {
        Ok(status) if condition(&status) => Ok(status),
        Ok(status) => Err(format!("{status:#?}")),
        Err(error) => Err(format!("{error:#}")),
    })
}

/// An uplink's part of a status.
pub(crate) fn uplink<'a>(status: &'a Status, name: &str) -> &'a Uplink {
    let mut uplinks = status.uplinks.iter();
    let Some(uplink) = uplinks.find(|uplink| uplink.name == name) else {
        panic!("no uplink {name} in {status:#?}")
    };
    uplink
}

/// An uplink's part of a status in one family.
pub(crate) fn state<'a>(status: &'a Status, name: &str, family: Family) -> &'a FamilyState {
    let Some(state) = uplink(status, name).families.get(family) else {
        panic!("no {family} on {name} in {status:#?}")
    };
    state
}

/// Whether an uplink has this health in a family.
pub(crate) fn has_health(status: &Status, name: &str, family: Family, health: Health) -> bool {
    state(status, name, family).health == health
}

/// Waits until an uplink has this health in a family.
pub(crate) fn wait_for_health(
    agent: &AgentProcess,
    name: &str,
    family: Family,
    health: Health,
) -> Result<Status> {
    let what = format!("{name} {health} ({family})");
    wait_for_status(agent, &what, |status| {
        has_health(status, name, family, health)
    })
}

/// Waits until so many more probes were sent that their rounds would have led to any decision long ago.
pub(crate) fn wait_for_probes(agent: &AgentProcess, names: &[&str]) -> Result<()> {
    /// 20 rounds of three targets.
    const MANY: u64 = 60;

    let before = status(agent)?;
    let probes = |status: &Status, name| uplink(status, name).counters.probes_passed;
    wait_for_status(agent, "many more probes", |now| {
        names
            .iter()
            .all(|name| probes(now, name) >= probes(&before, name) + MANY)
    })?;
    Ok(())
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
                50
            } else {
                100 + rank
            };
            (metric, uplink.name().to_owned(), "136".to_owned())
        })
        .collect();
    expected.sort();
    ensure!(found == expected, "{found:?}, not {expected:?}");

    for standby in lab.uplinks().iter().map(LabUplink::name) {
        let gate = state(&before, standby, family).gate;
        if standby == active {
            ensure!(gate == Gate::Open, "{standby}: {gate:?}");
            continue;
        }
        ensure!(gate == Gate::Closed, "{standby}: {gate:?}");
        let answer = lab.host().ping_by(standby, target(family), FORCED)?;
        ensure!(answer.is_none(), "a forced packet has left by {standby}");
        let cut = |status| uplink(status, standby).counters.cut_packets;
        let after = status(agent)?;
        ensure!(
            cut(&after) > cut(&before),
            "a forced packet was not counted: {before:#?}\n{after:#?}"
        );
    }
    Ok(())
}

/// The default routes of the main table, best first.
pub(crate) fn default_routes(lab: &Lab, family: Family) -> Result<Vec<DefaultRoute>> {
    match family {
        Family::V4 => lab.host().default_routes_v4(),
        Family::V6 => lab.host().default_routes_v6(),
    }
}

/// The target of a family's traffic.
pub(crate) fn target(family: Family) -> IpAddr {
    match family {
        Family::V4 => TARGET_V4,
        Family::V6 => TARGET_V6,
    }
}

/// Ends an agent as a service manager would, and checks that it calls that a success.
pub(crate) fn stop(mut agent: AgentProcess) -> Result<()> {
    agent.signal(Signal::SIGTERM)?;
    let end = agent.wait_exit(SOON)?;
    ensure!(end.success(), "the agent has ended with {end}");
    Ok(())
}
