//! What a switch does to that which was going on by the old uplink: the agent orders it and cuts, beside a script of `ip route` and
//! `iptables` that drops.

mod client;
mod foreign;
mod forwarded;
mod idle;
mod local;
mod program;

pub(super) use self::{
    foreign::FOREIGN, forwarded::FORWARDED_TCP, forwarded::FORWARDED_UDP, idle::IDLE, local::LOCAL,
    program::RESET, program::STALE,
};

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use failover_lab::{AgentProcess, Lab, TARGET_V4};

use super::{Settings, agent, datapath::command};

/// How long a switch may take.
const SOON: Duration = Duration::from_secs(10);

/// How long an application waits for its error; one that has none by then counts with this time.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long something flows before a switch.
const BEFORE: Duration = Duration::from_millis(100);

/// An agent with its defaults but for its pace, and quick enough to find uplinks Up.
fn start_agent(settings: &Settings, lab: &Lab) -> Result<AgentProcess> {
    let probe = format!(
        "targets = [\"{TARGET_V4}\"]\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 5\nrise = 1"
    );
    agent::start(settings, lab, &probe)
}

/// When a switch of the agent's was at which step.
struct Switched {
    /// The policy had decided, and nothing was done yet: the strictest beginning.
    decided: Instant,
    /// The new route was confirmed, and the old uplink's gate about to be closed.
    routed: Instant,
    /// Everything was cut that was to be cut.
    cut: Instant,
}

/// Orders a switch (`switch UPLINK` or `switch auto`) and waits until it is carried out to the end.
fn switch(agent: &AgentProcess, order: &str, to: &str) -> Result<Switched> {
    agent.verb(&["switch", order])?;
    let status = agent.wait_for_status("the switch with its cut", SOON, |status| {
        let newest = &status["switches"][0];
        newest["to"] == to && newest["timeline"]["cut_us"].is_u64()
    })?;
    let switch = &status["switches"][0];
    let detected = switch["at"].as_str().context("a switch without a time")?;
    let detected = humantime::parse_rfc3339(detected)?;
    let step = |name: &str| {
        let micros = switch["timeline"][name].as_u64();
        let micros = micros.with_context(|| format!("no {name} in {switch}"))?;
        // The agent's wall clock and this one are the same.
        let ago = SystemTime::now().duration_since(detected + Duration::from_micros(micros))?;
        let at = Instant::now().checked_sub(ago);
        at.context("a switch before the start of the machine")
    };
    Ok(Switched {
        decided: step("decided_us")?,
        routed: step("routed_us")?,
        cut: step("cut_us")?,
    })
}

/// The script's switch; undone when dropped.
struct Script<'a>(&'a Lab);

impl Script<'_> {
    fn switch(lab: &Lab) -> Result<Script<'_>> {
        let script = Script(lab);
        script.change("replace", "-I")?;
        Ok(script)
    }

    fn change(&self, route: &str, rule: &str) -> Result<()> {
        let [old, new] = [0, 1].map(|rank| &self.0.uplinks()[rank]);
        let (gateway, name) = (new.addresses().gateway_v4, new.name());
        let host = self.0.host().namespace();
        host.ip_batch(&format!(
            "route {route} default via {gateway} dev {name} metric 5"
        ))?;
        host.run(|| {
            ["OUTPUT", "FORWARD"].into_iter().try_for_each(|chain| {
                let drop = ["-w", rule, chain, "-o", old.name(), "-j", "DROP"];
                command("iptables", &drop)
            })
        })
    }
}

impl Drop for Script<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.change("del", "-D") {
            eprintln!("the script's switch could not be undone: {error:#}");
        }
    }
}
