//! A configuration file for an agent in the laboratory.

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use super::plan::TARGET_V4;

/// A configuration of some uplinks, in their order of preference. What is not set is as the agent has it by default.
///
/// [`Lab::agent_config`](super::Lab::agent_config) makes one of all uplinks of a laboratory; it is written by its [`Display`]. A file
/// whose very words are what a scenario is about is better given as text.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    tables: Vec<(&'static str, Table)>,
    uplinks: Vec<UplinkConfig>,
}

/// One uplink's table in a configuration.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    interface: String,
    keys: Table,
}

/// Keys with their values as the file has them, in the order in which they were set first.
#[derive(Clone, Debug, Default)]
struct Table(Vec<(&'static str, String)>);

impl Table {
    fn set(&mut self, key: &'static str, value: String) {
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }
}

impl AgentConfig {
    /// Of these uplinks alone, with nothing else said.
    pub fn of<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> AgentConfig {
        AgentConfig {
            tables: Vec::new(),
            uplinks: interfaces.into_iter().map(UplinkConfig::new).collect(),
        }
    }

    pub(super) fn with(uplinks: impl IntoIterator<Item = UplinkConfig>) -> AgentConfig {
        AgentConfig {
            tables: Vec::new(),
            uplinks: uplinks.into_iter().collect(),
        }
    }

    fn set(mut self, table: &'static str, key: &'static str, value: String) -> AgentConfig {
        let known = self.tables.iter().position(|(name, _)| *name == table);
        let index = known.unwrap_or_else(|| {
            self.tables.push((table, Table::default()));
            self.tables.len() - 1
        });
        self.tables[index].1.set(key, value);
        self
    }

    /// Probes by which an agent decides quickly, and still does not take a busy machine for a dead uplink. IPv6 has no targets and
    /// follows, unless [`targets`](Self::targets) are set after this.
    #[must_use]
    pub fn quick(self) -> AgentConfig {
        self.targets([TARGET_V4])
            .interval(Duration::from_millis(50))
            .timeout(Duration::from_millis(500))
            .fall(3)
            .rise(2)
    }

    /// `probe.targets`.
    #[must_use]
    pub fn targets(self, targets: impl IntoIterator<Item = impl Into<IpAddr>>) -> AgentConfig {
        self.set("probe", "targets", addresses(targets))
    }

    /// `probe.interval`.
    #[must_use]
    pub fn interval(self, interval: Duration) -> AgentConfig {
        self.set("probe", "interval", span(interval))
    }

    /// `probe.timeout`.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> AgentConfig {
        self.set("probe", "timeout", span(timeout))
    }

    /// `probe.fall`.
    #[must_use]
    pub fn fall(self, rounds: u32) -> AgentConfig {
        self.set("probe", "fall", rounds.to_string())
    }

    /// `probe.rise`.
    #[must_use]
    pub fn rise(self, rounds: u32) -> AgentConfig {
        self.set("probe", "rise", rounds.to_string())
    }

    /// `probe.quorum`.
    #[must_use]
    pub fn quorum(self, targets: u32) -> AgentConfig {
        self.set("probe", "quorum", targets.to_string())
    }

    /// `probe.hold`.
    #[must_use]
    pub fn hold(self, hold: Duration) -> AgentConfig {
        self.set("probe", "hold", span(hold))
    }

    /// `cutoff.mode`.
    #[must_use]
    pub fn mode(self, mode: &str) -> AgentConfig {
        self.set("cutoff", "mode", text(mode))
    }

    /// `cutoff.failover`.
    #[must_use]
    pub fn failover(self, mode: &str) -> AgentConfig {
        self.set("cutoff", "failover", text(mode))
    }

    /// `cutoff.failback`.
    #[must_use]
    pub fn failback(self, mode: &str) -> AgentConfig {
        self.set("cutoff", "failback", text(mode))
    }

    /// `cutoff.drain`.
    #[must_use]
    pub fn drain(self, drain: Duration) -> AgentConfig {
        self.set("cutoff", "drain", span(drain))
    }

    /// `cutoff.lease`.
    #[must_use]
    pub fn lease(self, lease: Duration) -> AgentConfig {
        self.set("cutoff", "lease", span(lease))
    }

    /// `cutoff.allow`.
    #[must_use]
    pub fn allow(self, networks: &[&str]) -> AgentConfig {
        self.set("cutoff", "allow", format!("{networks:?}"))
    }

    /// `route.active_metric` and `route.standby_metric`.
    #[must_use]
    pub fn metrics(self, active: u32, standby: u32) -> AgentConfig {
        self.set("route", "active_metric", active.to_string()).set(
            "route",
            "standby_metric",
            standby.to_string(),
        )
    }

    /// `route.table`.
    #[must_use]
    pub fn table(self, table: u32) -> AgentConfig {
        self.set("route", "table", table.to_string())
    }

    /// `route.on_down`.
    #[must_use]
    pub fn on_down(self, on_down: &str) -> AgentConfig {
        self.set("route", "on_down", text(on_down))
    }

    /// `datapath.attach`.
    #[must_use]
    pub fn attach(self, attach: &str) -> AgentConfig {
        self.set("datapath", "attach", text(attach))
    }

    /// `hooks.on_switch`: a program and its arguments.
    #[must_use]
    pub fn on_switch(self, command: &[&str]) -> AgentConfig {
        self.set("hooks", "on_switch", format!("{command:?}"))
    }

    /// `hooks.timeout`.
    #[must_use]
    pub fn hook_timeout(self, timeout: Duration) -> AgentConfig {
        self.set("hooks", "timeout", span(timeout))
    }

    /// `dirs.bpf`.
    #[must_use]
    pub fn bpf_dir(self, dir: &Path) -> AgentConfig {
        self.set("dirs", "bpf", text(&dir.display().to_string()))
    }

    /// With only these uplinks, preferred in this order.
    ///
    /// # Panics
    /// When there is no such uplink.
    #[must_use]
    pub fn only(mut self, interfaces: &[&str]) -> AgentConfig {
        let chosen = interfaces.iter().map(|name| self.find(name).clone());
        self.uplinks = chosen.collect();
        self
    }

    /// With keys of one uplink set.
    ///
    /// # Panics
    /// When there is no such uplink.
    #[must_use]
    pub fn uplink(
        mut self,
        interface: &str,
        set: impl FnOnce(UplinkConfig) -> UplinkConfig,
    ) -> AgentConfig {
        let changed = set(self.find(interface).clone());
        *self.find(interface) = changed;
        self
    }

    /// With the same keys of all uplinks set.
    #[must_use]
    pub fn each_uplink(mut self, set: impl Fn(UplinkConfig) -> UplinkConfig) -> AgentConfig {
        self.uplinks = self.uplinks.into_iter().map(set).collect();
        self
    }

    fn find(&mut self, interface: &str) -> &mut UplinkConfig {
        let mut uplinks = self.uplinks.iter_mut();
        let Some(uplink) = uplinks.find(|uplink| uplink.interface == interface) else {
            panic!("no uplink {interface} in this configuration")
        };
        uplink
    }
}

impl UplinkConfig {
    pub(super) fn new(interface: &str) -> UplinkConfig {
        UplinkConfig {
            interface: interface.to_owned(),
            keys: Table::default(),
        }
    }

    fn set(mut self, key: &'static str, value: String) -> UplinkConfig {
        self.keys.set(key, value);
        self
    }

    /// `gateway`: an address, or "none".
    #[must_use]
    pub fn gateway(self, gateway: &str) -> UplinkConfig {
        self.set("gateway", text(gateway))
    }

    /// `gateway6`: an address, or "none".
    #[must_use]
    pub fn gateway6(self, gateway: &str) -> UplinkConfig {
        self.set("gateway6", text(gateway))
    }

    /// `source`.
    #[must_use]
    pub fn source(self, address: &str) -> UplinkConfig {
        self.set("source", text(address))
    }

    /// `rank`.
    #[must_use]
    pub fn rank(self, rank: u32) -> UplinkConfig {
        self.set("rank", rank.to_string())
    }

    /// `weight`.
    #[must_use]
    pub fn weight(self, weight: u32) -> UplinkConfig {
        self.set("weight", weight.to_string())
    }

    /// `metric`.
    #[must_use]
    pub fn metric(self, metric: u32) -> UplinkConfig {
        self.set("metric", metric.to_string())
    }

    /// `metered`.
    #[must_use]
    pub fn metered(self, metered: bool) -> UplinkConfig {
        self.set("metered", metered.to_string())
    }

    /// `inbound`.
    #[must_use]
    pub fn inbound(self, inbound: &str) -> UplinkConfig {
        self.set("inbound", text(inbound))
    }

    /// `drain`.
    #[must_use]
    pub fn drain(self, drain: Duration) -> UplinkConfig {
        self.set("drain", span(drain))
    }

    /// `interval`.
    #[must_use]
    pub fn interval(self, interval: Duration) -> UplinkConfig {
        self.set("interval", span(interval))
    }

    /// `targets`.
    #[must_use]
    pub fn targets(self, targets: impl IntoIterator<Item = impl Into<IpAddr>>) -> UplinkConfig {
        self.set("targets", addresses(targets))
    }

    /// `recover`: a program and its arguments.
    #[must_use]
    pub fn recover(self, command: &[&str]) -> UplinkConfig {
        self.set("recover", format!("{command:?}"))
    }

    /// `recover_interval`.
    #[must_use]
    pub fn recover_interval(self, interval: Duration) -> UplinkConfig {
        self.set("recover_interval", span(interval))
    }
}

/// A text as TOML has it. What Rust escapes otherwise than TOML is in no configuration here.
fn text(value: &str) -> String {
    format!("{value:?}")
}

fn span(value: Duration) -> String {
    format!("\"{}ms\"", value.as_millis())
}

fn addresses(addresses: impl IntoIterator<Item = impl Into<IpAddr>>) -> String {
    let texts = addresses
        .into_iter()
        .map(|address| address.into().to_string());
    format!("{:?}", texts.collect::<Vec<_>>())
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(key, value)| writeln!(f, "{key} = {value}"))
    }
}

impl Display for UplinkConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[[uplink]]\ninterface = {:?}\n{}",
            self.interface, self.keys
        )
    }
}

impl Display for AgentConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, table) in &self.tables {
            write!(f, "[{name}]\n{table}")?;
        }
        self.uplinks.iter().try_for_each(|uplink| uplink.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_what_was_set_last_and_the_uplinks_in_their_order() {
        let config = AgentConfig::of(["cable", "dsl", "lte"]).quick().fall(4);
        let config = config.on_switch(&["/bin/hook", "say \"it\""]);
        let config = config.uplink("lte", |lte| lte.metered(true).gateway("none"));
        let expected = r#"[probe]
targets = ["192.0.2.1"]
interval = "50ms"
timeout = "500ms"
fall = 4
rise = 2
[hooks]
on_switch = ["/bin/hook", "say \"it\""]
[[uplink]]
interface = "lte"
metered = true
gateway = "none"
[[uplink]]
interface = "cable"
"#;
        assert_eq!(config.only(&["lte", "cable"]).to_string(), expected);
    }
}
