//! `ip` as an independent reader of the network namespace that each test has.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, process::Command, time::Duration};

use failover_agent::config::{
    AttachMode, Config, CutoffConfig, DatapathConfig, Dirs, Gateway, HooksConfig, Inbound, OnDown,
    ProbeConfig, RouteConfig, UplinkConfig,
};
use failover_lab::{pace, wait_until};
use serde_json::Value;

pub(crate) use crate::namespaces::isolated;

/// `ip ARGUMENTS`, which must succeed.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// `ip -j ARGUMENTS`.
pub(crate) fn ip_json(arguments: &str) -> Vec<Value> {
    let text = ip(&format!("-d -j {arguments}"));
    let Value::Array(entries) =
        serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).unwrap()
    else {
        panic!("ip {arguments}: {text}");
    };
    entries
}

/// Every route and rule of both families as `ip` tells them, in an order that does not matter.
pub(crate) fn snapshot() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for family in ["-4", "-6"] {
        for list in ["route show table all", "rule show"] {
            for entry in ip_json(&format!("{family} {list}")) {
                assert!(lines.insert(format!("{family} {entry}")), "twice: {entry}");
            }
        }
    }
    lines
}

/// The default routes in the main table, best first: interface, gateway, metric, protocol.
pub(crate) fn defaults(family: &str) -> Vec<(String, Option<String>, u64, String)> {
    let mut routes: Vec<_> = ip_json(&format!("{family} route show default"))
        .into_iter()
        .map(|route| {
            let text = |key: &str| route[key].as_str().map(ToOwned::to_owned);
            (
                text("dev").unwrap_or_else(|| route.to_string()),
                text("gateway"),
                route["metric"].as_u64().unwrap_or(0),
                text("protocol").unwrap(),
            )
        })
        .collect();
    routes.sort_by_key(|route| route.2);
    routes
}

/// Ethernet uplinks up0, up1, ... with 10.0.N.2/24 and 2001:db8:N::2/64, without default routes.
pub(crate) fn ethernet_uplinks(count: usize) {
    for n in 0..count {
        ip(&format!("link add up{n} type veth peer name far{n}"));
        ip(&format!("addr add 10.0.{n}.2/24 dev up{n}"));
        ip(&format!("link set far{n} up"));
        ip(&format!("link set up{n} up"));
        ip(&format!("addr add 2001:db8:{n}::2/64 dev up{n} nodad"));
    }
    wait_for("no tentative address", || {
        !ip("-6 addr show tentative").contains("inet6")
    });
}

/// Gateways 10.0.N.1 and 2001:db8:N::1 as a DHCP client and an administrator would configure them.
pub(crate) fn default_routes(count: usize, metric: u32) {
    for n in 0..count {
        let metric = metric + u32::try_from(n).unwrap();
        ip(&format!(
            "route add default via 10.0.{n}.1 dev up{n} proto dhcp metric {metric}"
        ));
        ip(&format!(
            "-6 route add default via 2001:db8:{n}::1 dev up{n} proto static metric {metric}"
        ));
    }
}

/// A bounded wait.
pub(crate) fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, Duration::from_secs(10), condition).unwrap();
}

/// How often to do what has to hold each time. Fewer times on a machine that is said to be so many times slower than usual: the test takes
/// about as long there, and the instant that is looked for is longer.
pub(crate) fn rounds(usual: u32) -> u32 {
    usual / pace()
}

/// A configuration with these interfaces, targets in both families.
pub(crate) fn config(interfaces: &[&str]) -> Config {
    let uplink = |(rank, interface): (u32, &&str)| UplinkConfig {
        interface: (*interface).to_owned(),
        name: format!("name-of-{interface}"),
        gateway: Gateway::Auto,
        gateway6: Gateway::Auto,
        source: None,
        source6: None,
        metered: false,
        drain: Duration::ZERO,
        inbound: Inbound::Keep,
        rank,
        weight: 1,
        metric: None,
        recover: Vec::new(),
        recover_interval: Duration::from_secs(300),
        probe: ProbeConfig {
            targets: targets(&["192.0.2.1", "2001:db8:ffff::1"]),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 4,
            quorum: 1,
            hold: Duration::ZERO,
        },
        place: "test".to_owned(),
    };
    Config {
        uplinks: (0..).zip(interfaces).map(uplink).collect(),
        route: RouteConfig {
            active_metric: 50,
            standby_metric: 100,
            protocol: 136,
            table: 13600,
            rule_priority: 13600,
            mark: 0x88,
            on_down: OnDown::Demote,
        },
        cutoff: CutoffConfig::default(),
        datapath: DatapathConfig {
            attach: AttachMode::Auto,
        },
        hooks: HooksConfig::default(),
        dirs: Dirs {
            run: PathBuf::new(),
            bpf: PathBuf::new(),
            state: PathBuf::new(),
        },
    }
}

/// The IPv6 ones of an uplink's addresses.
pub(crate) fn v6_addresses(link: &failover_agent::route::Link) -> Vec<IpAddr> {
    let addresses = link.addresses.iter().copied();
    addresses.filter(IpAddr::is_ipv6).collect()
}

/// Targets from text.
pub(crate) fn targets(addresses: &[&str]) -> Vec<IpAddr> {
    addresses
        .iter()
        .map(|address| address.parse().unwrap())
        .collect()
}
