//! What nftables (and iptables on top of it) do to forwarded traffic and to probes, read with `nft` as JSON (libnftables-json(5)).
//!
//! A rule that cannot be understood counts in its author's favour: no finding is better than a wrong one.

mod parse;

use std::{fs, net::IpAddr, process::Command};

use failover_policy::{Family, PerFamily};

use self::parse::{families, parse};

/// Tables of the legacy iptables, which `nft` does not show.
const LEGACY_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// The effect of the rules in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Firewall {
    pub(super) nat: Vec<Nat>,
    /// Whether forwarded packets that belong to no tracked connection are dropped.
    pub(super) drops_invalid: bool,
    /// Whether the segment size of forwarded TCP connections is clamped to the path.
    pub(super) clamps_mss: bool,
    /// Chains that this host's own packets pass.
    pub(super) output: Vec<Chain>,
    /// Rules that change the marks of this host's own packets.
    pub(super) marks: Vec<MarkRule>,
    pub(super) flowtables: Vec<Flowtable>,
}

/// A rule that changes marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MarkRule {
    pub(super) chain: Chain,
    pub(super) rewriting: Rewriting,
}

/// Which packets' mark a rule changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rewriting {
    /// Every packet's.
    Every,
    /// A rule of iptables, whose conditions and mask `nft` does not show.
    Perhaps,
}

/// A table of connections that are forwarded without the routing table (nft(8), "FLOWTABLES").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flowtable {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) devices: Vec<String>,
}

/// A source address that packets get when they leave by certain interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NatAddress {
    pub(super) ip: IpAddr,
    out: Out,
}

impl NatAddress {
    /// Whether `interface` is named as one of those.
    pub(super) fn out_by(&self, interface: &str) -> bool {
        match &self.out {
            Out::Only(names) => names.iter().any(|name| matches(name, interface)),
            Out::Any | Out::Except(_) => false,
        }
    }
}

/// A rule that gives forwarded packets a source address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nat {
    families: PerFamily<bool>,
    out: Out,
    /// The address, if the rule names one.
    to: Option<IpAddr>,
}

/// The interfaces by which packets must leave for a rule to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Out {
    Any,
    Only(Vec<String>),
    Except(Vec<String>),
}

/// A chain, as `nft` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
}

/// Reads the rules. `None` if `nft` is not installed, cannot do it (no JSON, a kernel without nftables), or does not see all rules.
pub(super) fn read() -> Option<Firewall> {
    let legacy = |path| fs::read_to_string(path).is_ok_and(|names| !names.is_empty());
    if LEGACY_TABLES.into_iter().any(legacy) {
        return None;
    }
    let list = Command::new("nft").args(["-j", "list", "ruleset"]).output();
    let output = list.ok().filter(|output| output.status.success())?;
    Some(parse(&serde_json::from_slice(&output.stdout).ok()?))
}

impl Firewall {
    /// Whether packets that are forwarded by `interface` get an address of this host.
    pub(super) fn translates(&self, family: Family, interface: &str) -> bool {
        self.nat.iter().any(|nat| {
            nat.families[family]
                && match &nat.out {
                    Out::Any => true,
                    Out::Only(names) => names.iter().any(|name| matches(name, interface)),
                    Out::Except(names) => !names.iter().any(|name| matches(name, interface)),
                }
        })
    }

    /// The addresses that rules translate to, each once.
    pub(super) fn translated_to(&self) -> Vec<NatAddress> {
        let mut addresses: Vec<NatAddress> = Vec::new();
        for nat in &self.nat {
            if let Some(ip) = nat.to
                && !addresses.iter().any(|known| known.ip == ip)
            {
                let out = nat.out.clone();
                addresses.push(NatAddress { ip, out });
            }
        }
        addresses
    }

    /// The chains of this host's own packets of one family.
    pub(super) fn output_chains(&self, family: Family) -> impl Iterator<Item = &Chain> {
        self.output
            .iter()
            .filter(move |chain| families(&chain.family)[family])
    }
}

/// Whether an interface name in a rule, which may end with an asterisk, matches an interface.
fn matches(pattern: &str, interface: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => interface.starts_with(prefix),
        None => pattern == interface,
    }
}

/// A rule that translates everything, for tests of others.
#[cfg(test)]
pub(super) fn masquerade_everywhere() -> Nat {
    Nat {
        families: PerFamily::both(true),
        out: Out::Any,
        to: None,
    }
}
