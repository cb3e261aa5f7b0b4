//! Strict reverse path filtering (RFC 3704, 2.2) on hosts with several uplinks.

use failover_policy::Family;

use super::{
    Finding,
    facts::{End, Facts},
};
use crate::{
    config::Inbound,
    doctor::{
        Severity,
        obstacle::{Obstacle, loosen},
    },
    route::lookup::family_of,
};

/// The answers to probes are discarded even with the agent's own rules.
pub(super) fn probes(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for (config, uplink, interface) in facts.present() {
        let targets: Vec<String> = uplink
            .probes
            .iter()
            .filter(|probe| {
                probe.end == End::Prevented(Obstacle::ReversePath { until_start: false })
            })
            .map(|probe| probe.target.to_string())
            .collect();
        if !targets.is_empty() {
            let problem = format!(
                "strict reverse path filtering on {} discards the answers of {}: another interface has a route of its own to them",
                interface.name,
                targets.join(", ")
            );
            findings.push(
                Finding::new(Severity::Error, problem, loosen(&interface.name))
                    .on(&config.name)
                    .family(Family::V4),
            );
        }
    }
    Some(findings)
}

/// Packets that come back for hosts behind this one are checked by their addresses, for which the main table decides: by a standby uplink,
/// none get in.
pub(super) fn forwarded(facts: &Facts) -> Option<Vec<Finding>> {
    let forwards = facts.forwarding.v4
        && facts.lans().any(|lan| {
            let mut addresses = lan.addresses.iter();
            addresses.any(|address| family_of(address.ip) == Family::V4)
        });
    if !forwards {
        return Some(Vec::new());
    }
    let strict = facts.present().filter(|(config, uplink, _)| {
        uplink.settings.rp_filter == 1
            && (config.inbound == Inbound::Keep || !config.drain.is_zero())
    });
    Some(
        strict
            .map(|(config, _, interface)| {
                let problem = format!(
                    "strict reverse path filtering on {}: while it is a standby, packets for hosts behind this one are discarded (port forwarding, connections that drain)",
                    interface.name
                );
                Finding::new(Severity::Warning, problem, loosen(&interface.name))
                    .on(&config.name)
                    .family(Family::V4)
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use failover_policy::PerFamily;

    use std::time::Duration;

    use super::{
        super::testing::{found, healthy, only},
        *,
    };

    #[test]
    fn answers_that_the_agents_own_rules_will_let_in_are_no_finding() {
        let mut facts = healthy();
        let end = |until_start| End::Prevented(Obstacle::ReversePath { until_start });
        facts.uplinks[1].probes[0].end = end(true);
        assert_eq!(found("reverse-path", &facts), []);
        facts.uplinks[1].probes[0].end = end(false);
        let finding = only("reverse-path", &facts);
        assert_eq!(finding.cure, "sysctl -w net.ipv4.conf.lte.rp_filter=2");
        assert_eq!(finding.severity, Severity::Error);
    }

    #[test]
    fn strict_filtering_hurts_a_router_that_keeps_connections_on_standbys() {
        let mut facts = healthy();
        facts.uplinks[0].settings.rp_filter = 1;
        assert_eq!(
            only("reverse-path-forwarded", &facts).uplink.as_deref(),
            Some("cable")
        );
        facts.config.uplinks[0].inbound = Inbound::Cut;
        assert_eq!(found("reverse-path-forwarded", &facts), []);
        facts.config.uplinks[0].drain = Duration::from_secs(1);
        assert_eq!(found("reverse-path-forwarded", &facts).len(), 1);
        facts.forwarding = PerFamily::new(false, true);
        assert_eq!(found("reverse-path-forwarded", &facts), []);
    }
}
