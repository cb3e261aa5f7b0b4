//! Kernel state, read back: to be looked at, or to be compared with what it was.

use std::{collections::BTreeSet, fmt};

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use serde::Deserialize;
use serde_json::Value;

use super::namespace::Namespace;

/// What is read: a title, and the command whose JSON output is a list.
const PARTS: &[(&str, &[&str])] = &[
    (
        "route",
        &["ip", "-j", "-4", "route", "show", "table", "all"],
    ),
    (
        "route6",
        &["ip", "-j", "-6", "route", "show", "table", "all"],
    ),
    ("rule", &["ip", "-j", "-4", "rule"]),
    ("rule6", &["ip", "-j", "-6", "rule"]),
    ("nexthop", &["ip", "-j", "nexthop"]),
    ("address", &["ip", "-j", "address"]),
    ("qdisc", &["tc", "-j", "qdisc", "show"]),
];

/// Keys whose values change by themselves: lifetimes, and what follows the carrier with a delay (the flag LOWER_UP does at once).
const VOLATILE: &[&str] = &[
    "expires",
    "valid_life_time",
    "preferred_life_time",
    "operstate",
    "unbalanced_time",
];

/// Routes of all tables, rules, nexthop objects, addresses, queueing disciplines, filters, TCX programs and nftables of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// One line an entry, `<part> <JSON>`. In a set: the kernel does not promise an order.
    entries: BTreeSet<String>,
}

impl Snapshot {
    pub(super) fn of(namespace: &Namespace) -> Result<Snapshot> {
        let mut entries = BTreeSet::new();
        for (part, command) in PARTS {
            let mut list = namespace.exec_json(command[0], &command[1..])?;
            let list = list
                .as_array_mut()
                .with_context(|| format!("{command:?} gives no list"))?;
            for entry in list {
                remove_volatile(entry);
                entries.insert(format!("{part} {entry}"));
            }
        }
        for interface in interfaces(namespace)? {
            entries.extend(programs(namespace, &interface)?);
        }
        for line in namespace.exec("nft", &["list", "ruleset"])?.lines() {
            entries.insert(format!("nft {line}"));
        }
        Ok(Snapshot { entries })
    }

    /// The entries, one line each, that contain `part`. TCX programs read `tcx INTERFACE DIRECTION PLACE NAME ID`, filters
    /// `filter INTERFACE DIRECTION` and `tc`'s words, all others a word for their kind and JSON.
    pub fn lines_with(&self, part: &str) -> Vec<&str> {
        let lines = self.entries.iter().map(String::as_str);
        lines.filter(|line| line.contains(part)).collect()
    }

    /// What `later` has lost (`-`) and gained (`+`); prints as nothing when both are the same.
    pub fn diff(&self, later: &Snapshot) -> SnapshotDiff {
        let lost = self.entries.difference(&later.entries);
        let gained = later.entries.difference(&self.entries);
        let lost = lost.map(|entry| format!("- {entry}"));
        SnapshotDiff(
            lost.chain(gained.map(|entry| format!("+ {entry}")))
                .collect(),
        )
    }

    /// Checks that `later` is exactly the same.
    ///
    /// # Errors
    /// When it is not; the error lists the differences.
    pub fn ensure_same(&self, later: &Snapshot) -> Result<()> {
        let diff = self.diff(later);
        ensure!(diff.is_empty(), "the kernel's state has changed:\n{diff}");
        Ok(())
    }
}

fn interfaces(namespace: &Namespace) -> Result<Vec<String>> {
    let links = namespace.exec_json("ip", &["-j", "link"])?;
    let names = links.as_array().into_iter().flatten();
    Ok(names
        .filter_map(|link| Some(link["ifname"].as_str()?.to_owned()))
        .collect())
}

/// What runs on an interface's packets: filters, and TCX programs in their order. `tc` and `bpftool net` do not list the latter.
fn programs(namespace: &Namespace, interface: &str) -> Result<Vec<String>> {
    let mut entries = Vec::new();
    for (direction, hook) in [
        ("ingress", TcAttachType::Ingress),
        ("egress", TcAttachType::Egress),
    ] {
        let command = ["filter", "show", "dev", interface, direction];
        for line in namespace.exec("tc", &command)?.lines() {
            entries.push(format!("filter {interface} {direction} {line}"));
        }
        let programs = namespace.run(|| match SchedClassifier::query_tcx(interface, hook) {
            Ok((_, programs)) => Ok(programs),
            // Linux before 6.6 has no TCX.
            Err(_) => Ok(Vec::new()),
        })?;
        for (place, program) in programs.iter().enumerate() {
            let name = program.name_as_str().unwrap_or_default();
            let id = program.id();
            entries.push(format!("tcx {interface} {direction} {place} {name} {id}"));
        }
    }
    Ok(entries)
}

/// The differences of two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDiff(Vec<String>);

impl SnapshotDiff {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line each.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for SnapshotDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

fn remove_volatile(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !VOLATILE.contains(&key.as_str()));
            fields.values_mut().for_each(remove_volatile);
        }
        Value::Array(values) => values.iter_mut().for_each(remove_volatile),
        _ => {}
    }
}

/// A default route of the main table, in `ip route`'s words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Printed")]
pub struct DefaultRoute {
    /// Outgoing interface; of a multipath route all of them that are alive, sorted, each once: `cable,dsl`.
    pub interface: String,
    /// Next hop; none on a point-to-point link, and of a multipath route.
    pub gateway: Option<String>,
    /// Metric; the kernel shows no 0 for IPv4.
    pub metric: u32,
    /// Route protocol: a name of /etc/iproute2/rt_protos, or a number.
    pub protocol: String,
    /// Preferred source.
    pub source: Option<String>,
}

/// A route as `ip -j` prints it.
#[derive(Deserialize)]
struct Printed {
    dev: Option<String>,
    gateway: Option<String>,
    #[serde(default)]
    metric: u32,
    #[serde(default)]
    protocol: String,
    prefsrc: Option<String>,
    #[serde(default)]
    nexthops: Vec<Hop>,
}

/// One of a multipath route's.
#[derive(Deserialize)]
struct Hop {
    dev: String,
    #[serde(default)]
    flags: Vec<String>,
}

impl From<Printed> for DefaultRoute {
    fn from(route: Printed) -> DefaultRoute {
        let alive = |hop: &Hop| !hop.flags.iter().any(|flag| flag == "dead");
        let hops = route.nexthops.into_iter().filter(alive);
        let interfaces: BTreeSet<String> = hops.map(|hop| hop.dev).chain(route.dev).collect();
        DefaultRoute {
            interface: Vec::from_iter(interfaces).join(","),
            gateway: route.gateway,
            metric: route.metric,
            protocol: route.protocol,
            source: route.prefsrc,
        }
    }
}

impl DefaultRoute {
    pub(super) fn read(namespace: &Namespace, family: &str) -> Result<Vec<DefaultRoute>> {
        let list = namespace.exec_json("ip", &["-j", family, "route", "show", "default"])?;
        let mut routes: Vec<DefaultRoute> =
            serde_json::from_value(list.clone()).with_context(|| format!("{list}"))?;
        routes.sort_by_key(|route| route.metric);
        Ok(routes)
    }
}

/// What the kernel has counted on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, link-layer header included.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent, link-layer header included.
    pub tx_bytes: u64,
}

impl InterfaceCounters {
    pub(super) fn read(namespace: &Namespace, interface: &str) -> Result<InterfaceCounters> {
        // /proc/net is the main thread's.
        let table = namespace.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        parse_dev(&table, interface).with_context(|| format!("no interface {interface} here"))
    }
}

/// Columns of /proc/net/dev (net/core/net-procfs.c): 8 of reception, then 8 of transmission.
fn parse_dev(table: &str, interface: &str) -> Option<InterfaceCounters> {
    let columns = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == interface)?
        .1;
    let columns: Vec<u64> = columns
        .split_whitespace()
        .map_while(|column| column.parse().ok())
        .collect();
    Some(InterfaceCounters {
        rx_bytes: *columns.first()?,
        rx_packets: *columns.get(1)?,
        tx_bytes: *columns.get(8)?,
        tx_packets: *columns.get(9)?,
    })
}
