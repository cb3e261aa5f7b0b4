//! Networks that several uplinks share, and targets in them.

use failover_policy::Family;
use ipnet::IpNet;

use super::{
    Finding,
    facts::{Facts, Uplink},
};
use crate::{
    config::UplinkConfig,
    doctor::{Severity, sysctl::sysctl_key},
    route::inspect::Interface,
};

/// The least `arp_ignore` with which an interface answers for its own addresses only, and the least `arp_announce` with which it asks with
/// them only (Documentation/networking/ip-sysctl.rst).
const IGNORE: u8 = 1;
const ANNOUNCE: u8 = 2;

/// Two uplinks on one segment. By default, the kernel answers ARP requests for one uplink's address on the other, so that answers to probes
/// come in by the wrong one.
pub(super) fn arp_flux(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for (a, b, network) in shared(facts) {
        let careless: Vec<String> = [&a, &b]
            .into_iter()
            .filter(|(_, uplink, _)| {
                uplink.settings.arp_ignore < IGNORE || uplink.settings.arp_announce < ANNOUNCE
            })
            .map(|(_, _, interface)| {
                let key = |name| sysctl_key(Family::V4, &interface.name, name);
                format!(
                    "{}={IGNORE} {}={ANNOUNCE}",
                    key("arp_ignore"),
                    key("arp_announce")
                )
            })
            .collect();
        if !same_segment(a.1, b.1) || careless.is_empty() {
            continue;
        }
        let problem = format!(
            "{} and {} are on one segment ({network}): each answers ARP for the other's address, so that packets come in by the wrong one",
            a.2.name, b.2.name
        );
        let cure = format!("sysctl -w {}", careless.join(" "));
        findings.push(
            Finding::new(Severity::Warning, problem, cure)
                .on(&b.0.name)
                .family(Family::V4),
        );
    }
    Some(findings)
}

/// Two uplinks whose routers hand out the same range. Probes and answers stay apart; neighbours do not.
pub(super) fn same_network(facts: &Facts) -> Option<Vec<Finding>> {
    let shared = shared(facts).into_iter();
    Some(
        shared
            .filter(|(a, b, _)| !same_segment(a.1, b.1))
            .map(|(a, b, network)| {
                let problem = format!(
                    "{} and {} both have {network}: its hosts (a modem's own page, for example) are reached by one of them only",
                    a.2.name, b.2.name
                );
                let cure = "leave it, or give one router another range; failover itself works";
                Finding::new(Severity::Hint, problem, cure)
                    .on(&b.0.name)
                    .family(Family::V4)
            })
            .collect(),
    )
}

/// A target that answers even if nothing beyond the link works.
pub(super) fn target_on_link(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for (config, uplink) in facts.uplinks() {
        for target in &config.probe.targets {
            let paths = uplink.paths.values().flatten();
            let network = paths
                .flat_map(|path| &path.prefixes)
                .find(|prefix| prefix.contains(target));
            if let Some(network) = network {
                let problem = format!(
                    "target {target} is on the link of {} ({network}): its answers prove nothing about the internet",
                    config.interface
                );
                let cure = "choose a target beyond the gateway, in `targets` or with --target";
                findings.push(Finding::new(Severity::Error, problem, cure).on(&config.name));
            }
        }
    }
    Some(findings)
}

type Member<'a> = (&'a UplinkConfig, &'a Uplink, &'a Interface);

/// Pairs of uplinks whose IPv4 networks overlap, each with the smaller network.
fn shared(facts: &Facts) -> Vec<(Member<'_>, Member<'_>, IpNet)> {
    let members: Vec<Member<'_>> = facts.present().collect();
    let networks = |member: &Member<'_>| {
        let path = member.1.paths.v4.as_ref();
        path.map(|path| path.prefixes.clone()).unwrap_or_default()
    };
    let mut shared = Vec::new();
    for (place, a) in members.iter().enumerate() {
        for b in &members[place + 1..] {
            let overlap = networks(a).into_iter().find_map(|one| {
                networks(b).into_iter().find_map(|other| {
                    if one.contains(&other) {
                        Some(other)
                    } else {
                        other.contains(&one).then_some(one)
                    }
                })
            });
            shared.extend(overlap.map(|network| (*a, *b, network)));
        }
    }
    shared
}

/// Whether both have the same gateway: the same address, and the same interface behind it.
fn same_segment(a: &Uplink, b: &Uplink) -> bool {
    let gateway = |uplink: &Uplink| {
        let path = uplink.paths.v4.as_ref()?;
        Some((path.gateway?, uplink.gateways.v4.clone()?))
    };
    gateway(a).is_some_and(|known| gateway(b) == Some(known))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{found, healthy, only},
        *,
    };

    /// `lte` has the network and the gateway of `cable`.
    fn overlapping() -> Facts {
        let mut facts = healthy();
        facts.uplinks[1].paths = facts.uplinks[0].paths.clone();
        facts
    }

    #[test]
    fn the_same_range_behind_two_routers_is_only_worth_a_hint() {
        let facts = overlapping();
        assert_eq!(only("same-network", &facts).severity, Severity::Hint);
        assert_eq!(found("arp-flux", &facts), []);
    }

    #[test]
    fn one_segment_needs_arp_settings_on_both() {
        let mut facts = overlapping();
        facts.uplinks[1].gateways = facts.uplinks[0].gateways.clone();
        facts.uplinks[0].settings.arp_ignore = 1;
        let finding = only("arp-flux", &facts);
        assert!(
            finding.cure.contains("conf.cable.arp_announce=2"),
            "{finding:?}"
        );
        assert!(
            finding.cure.contains("conf.lte.arp_ignore=1"),
            "{finding:?}"
        );
        assert_eq!(found("same-network", &facts), []);
        for uplink in &mut facts.uplinks {
            (uplink.settings.arp_ignore, uplink.settings.arp_announce) = (1, 2);
        }
        assert_eq!(found("arp-flux", &facts), []);
    }

    #[test]
    fn networks_overlap_whatever_their_sizes() {
        let mut facts = healthy();
        let path = facts.uplinks[1].paths.v4.as_mut().unwrap();
        path.prefixes = vec!["10.64.0.0/16".parse().unwrap()];
        assert!(
            only("same-network", &facts)
                .problem
                .contains("10.64.1.0/24")
        );
    }

    #[test]
    fn a_target_on_the_link_proves_nothing() {
        let mut facts = healthy();
        facts.config.uplinks[1].probe.targets[0] = "10.64.2.1".parse().unwrap();
        let finding = only("target-on-link", &facts);
        assert_eq!(finding.uplink.as_deref(), Some("lte"));
        assert_eq!(finding.severity, Severity::Error);
    }
}
