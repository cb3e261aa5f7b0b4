//! The results of the probes.

use std::{collections::BTreeSet, net::IpAddr};

use failover_policy::Family;

use super::{
    Finding,
    facts::{End, Facts, Uplink},
};
use crate::{
    doctor::{Severity, obstacle::Obstacle},
    route::lookup::family_of,
};

/// A firewall of this host blocks all probes.
pub(super) fn refused(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for (config, uplink) in facts.uplinks() {
        for family in Family::ALL {
            if !of_family(uplink, family).any(|(_, end)| *end == End::Refused) {
                continue;
            }
            let problem = format!(
                "a firewall of this host refuses the probes by {} (EPERM)",
                config.interface
            );
            let finding = Finding::new(Severity::Error, problem, let_pass(facts, family));
            findings.push(finding.on(&config.name).family(family));
        }
    }
    Some(findings)
}

/// Rules in front of all others, in every chain that can refuse packets.
fn let_pass(facts: &Facts, family: Family) -> String {
    let mark = facts.config.route.mark;
    let chains = facts
        .firewall
        .iter()
        .flat_map(|firewall| firewall.output_chains(family));
    let commands: Vec<String> = chains
        .map(|chain| {
            let (family, table, name) = (&chain.family, &chain.table, &chain.name);
            format!("nft insert rule {family} {table} {name} meta mark {mark:#x} accept")
        })
        .collect();
    if commands.is_empty() {
        format!("let packets with the mark {mark:#x} pass the firewall, before all other rules")
    } else {
        commands.join(" && ")
    }
}

/// Targets that answer by no uplink, uplinks by which no target answers, and probes that cannot be sent yet.
pub(super) fn no_answer(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for family in Family::ALL {
        let ends = |wanted: End| -> BTreeSet<IpAddr> {
            let all = facts
                .uplinks()
                .flat_map(|(_, uplink)| of_family(uplink, family));
            all.filter(|(_, end)| **end == wanted)
                .map(|(target, _)| target)
                .collect()
        };
        let (answered, silent) = (ends(End::Answered), ends(End::Silent));
        for (config, uplink) in facts.uplinks() {
            let ends: Vec<&End> = of_family(uplink, family).map(|(_, end)| end).collect();
            let mut finding = None;
            if ends.contains(&&End::Silent) && !ends.contains(&&End::Answered) {
                let problem = format!("no target answers by {}", config.interface);
                let cure = "wait for the line or ask its provider; if it works, choose `targets` that answer ICMP echo";
                finding = Some(Finding::new(Severity::Warning, problem, cure));
            } else if !ends.is_empty() && ends.iter().all(|end| until_start(end)) {
                let problem = format!(
                    "{} could not be probed: its routes and rules are made when the agent starts",
                    config.interface
                );
                let cure = "start the agent, then run failover-agent doctor again";
                finding = Some(Finding::new(Severity::Hint, problem, cure));
            }
            findings.extend(finding.map(|finding| finding.on(&config.name).family(family)));
        }
        // If no target answers at all, the findings about the uplinks say it already.
        if !answered.is_empty() {
            for target in silent.difference(&answered) {
                let problem = format!("target {target} answers by no uplink");
                let cure = "choose another one, in `targets` or with --target";
                findings.push(Finding::new(Severity::Warning, problem, cure).family(family));
            }
        }
    }
    Some(findings)
}

fn until_start(end: &End) -> bool {
    matches!(
        end,
        End::Prevented(Obstacle::NoRoute | Obstacle::ReversePath { until_start: true })
    )
}

fn of_family(uplink: &Uplink, family: Family) -> impl Iterator<Item = (IpAddr, &End)> {
    let probes = uplink.probes.iter();
    probes
        .filter(move |probe| family_of(probe.target) == family)
        .map(|probe| (probe.target, &probe.end))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{found, healthy, only},
        *,
    };
    use crate::doctor::firewall::Chain;

    #[test]
    fn a_refused_probe_is_let_pass_where_it_can_be_refused() {
        let mut facts = healthy();
        facts.uplinks[1].probes[0].end = End::Refused;
        let finding = only("probe-refused", &facts);
        assert_eq!(finding.severity, Severity::Error);
        assert!(finding.cure.contains("mark 0xfa11"), "{finding:?}");
        facts.firewall.as_mut().unwrap().output = ["ip6", "inet", "ip"]
            .map(|family| Chain {
                family: family.to_owned(),
                table: "t".to_owned(),
                name: "out".to_owned(),
            })
            .into();
        let finding = only("probe-refused", &facts);
        let rule = "meta mark 0xfa11 accept";
        assert_eq!(
            finding.cure,
            format!("nft insert rule inet t out {rule} && nft insert rule ip t out {rule}")
        );
    }

    #[test]
    fn a_silent_uplink_and_a_silent_target_are_told_apart() {
        let mut facts = healthy();
        for probe in &mut facts.uplinks[1].probes {
            probe.end = End::Silent;
        }
        assert_eq!(only("no-answer", &facts).uplink.as_deref(), Some("lte"));

        let mut facts = healthy();
        for uplink in &mut facts.uplinks {
            uplink.probes[0].end = End::Silent;
        }
        let finding = only("no-answer", &facts);
        assert_eq!(finding.uplink, None);
        assert!(finding.problem.contains("192.0.2.1"), "{finding:?}");

        for uplink in &mut facts.uplinks {
            uplink.probes[1].end = End::Silent;
        }
        let findings = found("no-answer", &facts);
        assert_eq!(findings.len(), 2);
        assert!(findings.iter().all(|finding| finding.uplink.is_some()));
    }

    #[test]
    fn what_only_waits_for_the_agent_is_a_hint() {
        let mut facts = healthy();
        for probe in &mut facts.uplinks[1].probes {
            probe.end = End::Prevented(Obstacle::NoRoute);
        }
        assert_eq!(only("no-answer", &facts).severity, Severity::Hint);
        facts.uplinks[1].probes[0].end = End::Answered;
        assert_eq!(found("no-answer", &facts), []);
    }
}
