//! What the scenarios share.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use failover_tests::lab::{AgentProcess, Lab, wait_for};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

/// Long enough for everything that is to happen, even on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// How long an answer is waited for that is not to come.
const FORCED: Duration = Duration::from_millis(50);

/// Decides quickly, and still does not take a busy machine for a dead uplink.
pub(crate) const PROBE: &str =
    "targets = [\"192.0.2.1\"]\ninterval = \"50ms\"\ntimeout = \"400ms\"\nfall = 3\nrise = 2";

/// The same with an IPv6 target.
pub(crate) const PROBE_V6: &str =
    "targets = [\"2001:db8:f::1\"]\ninterval = \"50ms\"\ntimeout = \"400ms\"\nfall = 3\nrise = 2";

/// A configuration with `probe`, and nothing said about the uplinks' gateways.
pub(crate) fn config(lab: &Lab, probe: &str) -> String {
    let mut config = format!("[probe]\n{probe}\n");
    for uplink in lab.uplinks() {
        config += &format!("[[uplink]]\ninterface = \"{}\"\n", uplink.name());
    }
    config
}

/// Runs lines of `ip` in the host.
pub(crate) fn ip(lab: &Lab, lines: &str) -> Result<()> {
    lab.host().namespace().ip_batch(lines)
}

/// One uplink's part of a status.
pub(crate) fn uplink<'a>(status: &'a Value, name: &str) -> &'a Value {
    let uplinks = status["uplinks"].as_array().into_iter().flatten();
    match uplinks.into_iter().find(|uplink| uplink["name"] == name) {
        Some(uplink) => uplink,
        None => panic!("no uplink {name} in {status:#}"),
    }
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

pub(crate) fn wait_health(agent: &AgentProcess, name: &str, health: &str) -> Result<Value> {
    agent.wait_for_status(&format!("{name} {health}"), SOON, |status| {
        uplink(status, name)["health"] == health
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

/// Waits for a line of the log with all these words.
pub(crate) fn wait_words(agent: &AgentProcess, words: &[&str]) -> Result<()> {
    let line = agent.wait_for_line(&format!("{words:?}"), SOON, |line| {
        words.iter().all(|word| line.text.contains(word))
    });
    line.map(drop)
}

/// All switches of a family so far: `["start-up cable", "failover lte"]`.
pub(crate) fn history(agent: &AgentProcess, family: &str) -> Vec<String> {
    let log = agent.log();
    let switches = log.iter().filter_map(|line| {
        let text = |name| line.field(name)?.as_str();
        // Only the line of a confirmed switch has both.
        line.field("routed_us")?;
        (text("family")? == family).then_some(format!("{} {}", text("cause")?, text("to")?))
    });
    switches.collect()
}

/// How often an uplink has become Down.
pub(crate) fn times_down(agent: &AgentProcess, name: &str) -> usize {
    let log = agent.log();
    let down = |line: &&failover_tests::lab::LogLine| {
        let text = |field| line.field(field).and_then(Value::as_str);
        text("uplink") == Some(name) && text("to") == Some("Down")
    };
    log.iter().filter(down).count()
}

/// Waits until `count` more probes of an uplink were sent.
pub(crate) fn wait_probes(agent: &AgentProcess, name: &str, count: u64) -> Result<()> {
    let probes = |status: &Value| uplink(status, name)["counters"]["probes_passed"].as_u64();
    let before = probes(&agent.status_json()?).context("no counter")?;
    agent.wait_for_status("more probes", SOON, |status| {
        probes(status) >= Some(before + count)
    })?;
    Ok(())
}

/// Checks that a standby's gate cuts: a packet that is forced out by it has no answer, and is counted.
pub(crate) fn ensure_cut(
    lab: &Lab,
    agent: &AgentProcess,
    standby: &str,
    target: IpAddr,
) -> Result<()> {
    let cut = |status: &Value| uplink(status, standby)["counters"]["cut_packets"].as_u64();
    let before = cut(&agent.status_json()?);
    let answer = lab.host().ping_by(standby, target, FORCED)?;
    ensure!(answer.is_none(), "a forced packet has left by {standby}");
    ensure!(
        cut(&agent.status_json()?) > before,
        "a forced packet was not counted by {standby}"
    );
    Ok(())
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

/// Sources of the agent's rules of a family (`-4`, `-6`), once each.
pub(crate) fn rule_sources(lab: &Lab, family: &str) -> Result<Vec<String>> {
    let rules = lab
        .host()
        .namespace()
        .exec_json("ip", &["-j", "-d", family, "rule"])?;
    let ours = rules
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| rule["protocol"] == "136");
    let mut sources: Vec<String> = ours
        .filter_map(|rule| rule["src"].as_str().map(ToOwned::to_owned))
        .filter(|source| source != "all")
        .collect();
    sources.sort();
    sources.dedup();
    Ok(sources)
}

/// Waits until the best default route of a family leads by this interface and gateway, and is ours.
pub(crate) fn wait_best_route(
    lab: &Lab,
    family: &str,
    interface: &str,
    gateway: Option<&str>,
) -> Result<()> {
    wait_for(&format!("{interface} by {gateway:?}"), SOON, || {
        let read = || -> Result<Value> {
            let routes = lab
                .host()
                .namespace()
                .exec_json("ip", &["-j", family, "route", "show", "default"])?;
            let mut routes = routes.as_array().cloned().unwrap_or_default();
            routes.sort_by_key(|route| route["metric"].as_u64());
            Ok(routes.first().cloned().unwrap_or_default())
        };
        match read() {
            Ok(best)
                if best["dev"] == interface
                    && best["gateway"].as_str() == gateway
                    && best["protocol"] == "136" =>
            {
                Ok(())
            }
            Ok(best) => Err(best.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}
