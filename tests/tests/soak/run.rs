//! One soak run: the laboratory, the agent, and what must be true of them.

mod apply;
mod environment;

use std::{thread::sleep, time::Duration, time::Instant};

use anyhow::{Result, ensure};
use failover_ebpf::Gate;
use failover_lab::{AgentProcess, Fault, Lab, Snapshot, TARGET_V4, TARGET_V6, UdpStream, wait_for};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    OURS, SOON, default_routes, ensure_times, state, stop, wait_for_status,
};

use self::environment::{Environment, METRICS};
use super::events::Event;

const PROBE: &str = "targets = [\"192.0.2.1\", \"2001:db8:f::1\"]\ninterval = \"50ms\"\ntimeout = \"500ms\"\nfall = 3\nrise = 2\nhold = \"300ms\"";

/// How long the agent may need until it repairs again what another program keeps undoing.
const SETTLED: Duration = Duration::from_millis(1500);

/// Further tables of the configuration, of which each reload takes the next.
pub(crate) const TABLES: [&str; 3] = [
    "",
    "[route]\non_down = \"withdraw\"",
    "[route]\nstandby_metric = 200\n[cutoff]\nmode = \"drop\"",
];

/// How the agent is configured at the beginning of a run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Settings {
    /// The first two uplinks share the load.
    pub(crate) grouped: bool,
    /// Which of [`TABLES`] the configuration begins with.
    pub(crate) tables: usize,
}

/// Lines at the end of the agent's log that the report of a failed run shows.
const LAST_LINES: usize = 200;

pub(crate) struct SoakRun {
    settings: Settings,
    /// Before the laboratory, whose directory it is in.
    environment: Environment,
    lab: Lab,
    begin: Instant,
    before: Snapshot,
    /// None only while another one starts.
    agent: Option<AgentProcess>,
    streams: Vec<UdpStream>,
    uplinks: Vec<State>,
    /// In order of preference.
    order: Vec<usize>,
    chosen: Option<usize>,
    drilled: Option<usize>,
    /// Gates may have been open, because the lease was not renewed.
    unguarded: bool,
    events: Vec<String>,
}

/// Whether two lines of a snapshot's difference tell of one IPv6 default route, but for its protocol. With a VPN's route of the same metric
/// it was one multipath route for a while, and the kernel tells one protocol for all nexthops of such a one: a program that puts a nexthop back
/// knows no other.
fn merged(line: &str, other: &str) -> bool {
    let plain = |line: &str| line.replace(",\"protocol\":\"ra\"", "");
    let (kind, of_vpn) = (
        "route6 {",
        METRICS.map(|metric| format!("\"metric\":{metric},")),
    );
    line.get(..1) != other.get(..1)
        && line.contains(kind)
        && of_vpn.iter().any(|metric| line.contains(metric))
        && plain(line).get(1..) == plain(other).get(1..)
}

/// What is known of an uplink.
#[derive(Default)]
struct State {
    broken: Option<Fault>,
    second_address: bool,
    /// Whether its interface was created again.
    replaced: bool,
    /// Whether a default route that beats the agent's was put in.
    preempted: [bool; 2],
}

impl SoakRun {
    pub(crate) fn begin(lab: Lab, settings: Settings) -> Result<SoakRun> {
        let environment = Environment::new(&lab)?;
        let before = lab.host().snapshot()?;
        let targets = [TARGET_V4, TARGET_V6].into_iter();
        let streams = targets.map(|target| lab.host().udp_stream(target).start());
        let streams = streams.collect::<Result<_>>()?;
        let count = lab.uplinks().len();
        let mut run = SoakRun {
            settings,
            environment,
            begin: Instant::now(),
            before,
            agent: None,
            streams,
            uplinks: (0..count).map(|_| State::default()).collect(),
            order: (0..count).collect(),
            chosen: None,
            drilled: None,
            unguarded: false,
            events: Vec::new(),
            lab,
        };
        run.start()?;
        run.settle()?;
        Ok(run)
    }

    /// The events of the run, and the end of the agent's log.
    pub(crate) fn report(&self) -> String {
        let said = self.agent.as_ref().map(AgentProcess::log);
        let said = said.unwrap_or_default();
        let last = said.iter().rev().take(LAST_LINES).rev();
        let lines = last.map(|line| line.text.as_str());
        let events = self.events.iter().map(String::as_str);
        let all: Vec<&str> = events.chain(lines).collect();
        all.join("\n")
    }

    /// Waits until the agent has come to what is right, and traffic follows.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.events.push("- settle".to_owned());
        let agent = self.agent()?;
        let right = self.right();
        if right.is_empty() {
            // Nothing works: the agent answers all the same.
            return agent.status_json().map(drop);
        }
        let uplinks = (0..self.uplinks.len()).map(|uplink| {
            let active = right.contains(&uplink);
            (self.name(uplink), self.is_up(uplink), active)
        });
        let uplinks: Vec<(String, bool, bool)> = uplinks.collect();
        wait_for_status(agent, &format!("name, Up, active: {uplinks:?}"), |status| {
            Family::ALL.into_iter().all(|family| {
                uplinks.iter().all(|(name, up, active)| {
                    let gate = if *active { Gate::Open } else { Gate::Closed };
                    state(status, name, family).is_some_and(|state| {
                        // One that has never worked is Unknown.
                        state.active == *active
                            && (state.health == Health::Up) == *up
                            && (!up || state.gate == gate)
                    })
                })
            })
        })?;
        ensure_times(&agent.status_json()?, &self.environment.clock, self.begin)?;
        let settled = Instant::now();
        let right: Vec<String> = right.iter().map(|uplink| self.name(*uplink)).collect();
        for stream in &self.streams {
            wait_for("an echo by what is active", SOON, || {
                let echoed = right.iter().any(|uplink| {
                    let echo = stream.wait_for_echo_by(uplink, settled, Duration::ZERO);
                    echo.is_ok()
                });
                let routes = Family::ALL.map(|family| default_routes(&self.lab, family));
                echoed
                    .then_some(())
                    .ok_or_else(|| format!("{right:?}: {routes:?}"))
            })?;
        }
        if !self.unguarded {
            for uplink in self.lab.uplinks() {
                let foreign = uplink.foreign_packets()?;
                ensure!(
                    foreign == 0,
                    "{foreign} foreign packets by {}",
                    uplink.name()
                );
            }
        }
        Ok(())
    }

    /// The same, and nothing of what happened before is still under way: no late result of a probe, no repair that waits.
    pub(super) fn rest(&mut self) -> Result<()> {
        sleep(SETTLED);
        self.settle()
    }

    /// Everything is repaired, the agent stopped: nothing is left of the run.
    pub(crate) fn end(&mut self) -> Result<()> {
        for uplink in 0..self.uplinks.len() {
            if self.uplinks[uplink].broken.is_some() {
                self.apply(Event::Repair(uplink))?;
            }
        }
        self.environment.restore(&self.lab)?;
        self.agent()?.set_unread(false);
        self.apply(Event::Auto)?;
        self.settle()?;
        for uplink in 0..self.uplinks.len() {
            if self.uplinks[uplink].second_address {
                self.second_address(uplink)?;
            }
        }
        self.rest()?;
        for family in Family::ALL {
            let routes = default_routes(&self.lab, family)?;
            let best = routes
                .first()
                .map(|route| (route.protocol.as_str(), route.metric));
            ensure!(best == Some((OURS, 80)), "{routes:?}");
            let ours = routes.iter().filter(|route| route.protocol == OURS).count();
            let group = usize::from(self.settings.grouped);
            ensure!(ours == self.uplinks.len() - group, "{routes:?}");
        }
        self.agent.take().map_or(Ok(()), stop)?;
        for (uplink, state) in self.uplinks.iter().enumerate() {
            for family in Family::ALL
                .into_iter()
                .filter(|family| state.preempted[*family as usize])
            {
                // It may have gone with its interface.
                self.bid("del", uplink, family).ok();
            }
        }
        let diff = self.before.diff(&self.lab.host().snapshot()?);
        let mut left = diff
            .lines()
            .iter()
            .filter(|line| !self.is_new_address(line))
            .filter(|line| !diff.lines().iter().any(|other| merged(line, other)));
        ensure!(
            left.next().is_none(),
            "the kernel's state has changed:\n{diff}"
        );
        Ok(())
    }

    /// Whether a line of a snapshot tells of the link-local address of an interface that was created again.
    fn is_new_address(&self, line: &str) -> bool {
        let about_address = line.contains("addr_info") || line.contains("\"type\":\"local\"");
        let mut replaced = (0..self.uplinks.len()).filter(|uplink| self.uplinks[*uplink].replaced);
        about_address
            && line.contains("\"fe80::")
            && replaced.any(|uplink| line.contains(&format!("\"{}\"", self.name(uplink))))
    }

    /// The uplinks that should be active; none of them: nothing works.
    fn right(&self) -> Vec<usize> {
        let mut working = self.working();
        if working.len() > 1 {
            working.retain(|uplink| self.drilled != Some(*uplink));
        }
        if let Some(chosen) = self.chosen.filter(|chosen| working.contains(chosen)) {
            return vec![chosen];
        }
        let rank = |uplink: usize| {
            let position = self.order.iter().position(|other| *other == uplink);
            position.map(|position| self.rank(position))
        };
        let best = working.first().copied().and_then(rank);
        working.retain(|uplink| rank(*uplink) == best);
        working
    }

    /// The rank at a position in the order of preference.
    fn rank(&self, position: usize) -> usize {
        match self.settings.grouped {
            true => position.saturating_sub(1),
            false => position,
        }
    }

    /// In order of preference.
    fn working(&self) -> Vec<usize> {
        let order = self.order.iter().copied();
        order
            .filter(|uplink| self.uplinks[*uplink].broken.is_none())
            .collect()
    }

    fn is_up(&self, uplink: usize) -> bool {
        self.uplinks[uplink].broken.is_none() && self.drilled != Some(uplink)
    }

    fn agent(&self) -> Result<&AgentProcess> {
        let agent = self.agent.as_ref();
        agent.ok_or_else(|| anyhow::anyhow!("no agent runs"))
    }

    fn start(&mut self) -> Result<()> {
        let agent = (self.lab).start_agent_by(&self.environment.clock, &self.config())?;
        agent.set_unread(self.environment.is_unread());
        self.agent = Some(agent);
        Ok(())
    }

    fn config(&self) -> String {
        let mut config = format!("[probe]\n{PROBE}\n{}\n", TABLES[self.settings.tables]);
        for (position, &uplink) in self.order.iter().enumerate() {
            config += &self.lab.uplinks()[uplink].config();
            config += &format!("rank = {}\n", self.rank(position));
        }
        config
    }

    fn name(&self, uplink: usize) -> String {
        self.lab.uplinks()[uplink].name().to_owned()
    }
}
