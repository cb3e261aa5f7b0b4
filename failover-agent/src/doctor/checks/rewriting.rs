//! Effects of firewall rules on packets that the agent must recognize.

use failover_policy::Family;

use super::{Finding, facts::Facts};
use crate::doctor::{Severity, firewall::Rewriting};

/// Rules that give this host's own packets another mark, including the probes.
pub(super) fn marks(facts: &Facts) -> Option<Vec<Finding>> {
    let firewall = facts.firewall.as_ref()?;
    let mark = facts.config.route.mark;
    let findings = firewall.marks.iter().map(|rule| {
        let chain = &rule.chain;
        let place = format!("{} {} {}", chain.family, chain.table, chain.name);
        let problem = match rule.rewriting {
            Rewriting::Every => format!(
                "a rule of chain {place} sets the mark of every packet of this host, also of the agent's probes, which bear {mark:#x}: the agent knows them by their sockets, but nothing else does"
            ),
            Rewriting::Perhaps => format!(
                "a rule of iptables in chain {place} sets marks of this host's packets; if it does not spare the agent's probes, they lose their mark {mark:#x}: the agent knows them by their sockets, but nothing else does"
            ),
        };
        let cure = match rule.rewriting {
            Rewriting::Every => format!(
                "nft insert rule {place} meta mark {mark:#x} accept # for good: at the top of the chain in the rule set"
            ),
            Rewriting::Perhaps => {
                let program = if chain.family == "ip6" { "ip6tables" } else { "iptables" };
                format!("{program} -t {} -I {} -m mark --mark {mark:#x} -j ACCEPT # for good: in the rule set", chain.table, chain.name)
            }
        };
        Finding::new(Severity::Hint, problem, cure)
    });
    Some(findings.collect())
}

/// Translation to an address that this host does not have: the agent cannot know which uplink it belongs to.
pub(super) fn nat_address(facts: &Facts) -> Option<Vec<Finding>> {
    let firewall = facts.firewall.as_ref()?;
    let mut findings = Vec::new();
    for address in firewall.translated_to() {
        let has = facts.interfaces.iter().any(|interface| {
            let mut addresses = interface.addresses.iter();
            addresses.any(|own| own.ip == address.ip)
        });
        if has {
            continue;
        }
        let by = facts
            .present()
            .find(|(_, _, interface)| address.out_by(&interface.name));
        let name = by.map_or("INTERFACE", |(_, _, interface)| interface.name.as_str());
        let length = if address.ip.is_ipv4() { 32 } else { 128 };
        let problem = format!(
            "a rule translates to {}, which is on no interface: after a failover, its flows continue to leave, by an uplink whose provider does not know it, and their senders get no error",
            address.ip
        );
        let cure = format!(
            "ip address add {}/{length} dev {name} # for good: in the configuration of {name}",
            address.ip
        );
        let family = if address.ip.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let finding = Finding::new(Severity::Warning, problem, cure).family(family);
        findings.push(match by {
            Some((config, _, _)) => finding.on(&config.name),
            None => finding,
        });
    }
    Some(findings)
}

/// Forwarded connections that bypass the routing table.
pub(super) fn flow_offload(facts: &Facts) -> Option<Vec<Finding>> {
    let firewall = facts.firewall.as_ref()?;
    let mut findings = Vec::new();
    for table in &firewall.flowtables {
        let names: Vec<&str> = facts
            .present()
            .map(|(_, _, interface)| interface.name.as_str())
            .filter(|name| table.devices.iter().any(|device| device == name))
            .collect();
        if names.is_empty() {
            continue;
        }
        let place = format!("{} {} {}", table.family, table.table, table.name);
        let problem = format!(
            "flowtable {place} forwards connections of {} past the routing table, and with `flags offload` past the agent's gate, too: after a failover they may stay on the uplink that was left",
            names.join(", ")
        );
        let cure = format!(
            "leave the uplinks out of its devices, or remove it: delete the rules with `flow add @{0}` (nft -a list ruleset), then nft delete flowtable {place}",
            table.name
        );
        findings.push(Finding::new(Severity::Warning, problem, cure));
    }
    Some(findings)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{found, healthy, only},
        *,
    };
    use crate::doctor::firewall::{Chain, Flowtable, MarkRule};

    #[test]
    fn a_rule_that_rewrites_marks_is_only_worth_a_hint() {
        let mut facts = healthy();
        for (rewriting, start) in [
            (
                Rewriting::Every,
                "nft insert rule ip6 mangle OUTPUT meta mark 0xfa11 accept",
            ),
            (
                Rewriting::Perhaps,
                "ip6tables -t mangle -I OUTPUT -m mark --mark 0xfa11 -j ACCEPT",
            ),
        ] {
            facts.firewall.as_mut().unwrap().marks = vec![MarkRule {
                chain: Chain {
                    family: "ip6".to_owned(),
                    table: "mangle".to_owned(),
                    name: "OUTPUT".to_owned(),
                },
                rewriting,
            }];
            let finding = only("mark-rewritten", &facts);
            assert_eq!(finding.severity, Severity::Hint);
            assert!(finding.cure.starts_with(start), "{}", finding.cure);
        }
    }

    #[test]
    fn only_flowtables_with_an_uplink_matter() {
        let mut facts = healthy();
        for (devices, count) in [
            (["lan", "cable"], 1),
            (["lte", "cable"], 1),
            (["lan", "dmz"], 0),
        ] {
            facts.firewall.as_mut().unwrap().flowtables = vec![Flowtable {
                family: "inet".to_owned(),
                table: "t".to_owned(),
                name: "f".to_owned(),
                devices: devices.into_iter().map(ToOwned::to_owned).collect(),
            }];
            assert_eq!(found("flow-offload", &facts).len(), count, "{devices:?}");
        }
    }
}
