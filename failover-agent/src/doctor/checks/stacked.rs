//! Interfaces on top of another one.

use super::{Finding, facts::Facts};
use crate::doctor::Severity;

/// An uplink on top of another uplink's interface: its packets pass the gates of both.
pub(super) fn on_an_uplink(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for (config, _, interface) in facts.present() {
        let Some((kind, below)) = &interface.below else {
            continue;
        };
        let Some((lower, _)) = facts.uplink_on(*below) else {
            continue;
        };
        let problem = format!(
            "{} is a {kind} on top of {}, the interface of {}: while the gate of {} is closed, it cuts what leaves by {}, too",
            interface.name, lower.interface, lower.name, lower.name, config.name
        );
        let cure = format!(
            "give {} a {kind} of its own on {}, with its addresses, and name that as its interface: ip link add link {} name {}-0 type {kind}",
            lower.name, lower.interface, lower.interface, lower.interface
        );
        findings.push(Finding::new(Severity::Error, problem, cure).on(&config.name));
    }
    Some(findings)
}

/// An uplink in a VRF is routed by the VRF's table.
pub(super) fn in_vrf(facts: &Facts) -> Option<Vec<Finding>> {
    let members = facts.present().filter_map(|(config, _, interface)| {
        let vrf = facts.interface_name(interface.vrf?);
        let name = &interface.name;
        let problem = format!(
            "{name} belongs to the VRF {vrf}, whose traffic is routed by a table of its own: the agent switches the main table's default route"
        );
        let cure = format!("ip link set dev {name} nomaster # its IPv6 addresses go, add them again");
        Some(Finding::new(Severity::Error, problem, cure).on(&config.name))
    });
    Some(members.collect())
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{CABLE, LAN, found, healthy, only},
        *,
    };

    #[test]
    fn a_vlan_of_an_uplink_is_told_and_one_of_a_lan_is_not() {
        let mut facts = healthy();
        let lte = facts.uplinks[1].interface.as_mut().unwrap();
        lte.below = Some(("vlan".to_owned(), CABLE));
        let finding = only("stacked-uplink", &facts);
        assert_eq!(finding.uplink.as_deref(), Some("lte"));
        assert!(
            finding.problem.contains("a vlan on top of cable"),
            "{}",
            finding.problem
        );
        facts.uplinks[1].interface.as_mut().unwrap().below = Some(("vlan".to_owned(), LAN));
        assert_eq!(found("stacked-uplink", &facts), []);
    }

    #[test]
    fn the_vrf_is_named() {
        let mut facts = healthy();
        facts.uplinks[0].interface.as_mut().unwrap().vrf = Some(LAN);
        let finding = only("in-vrf", &facts);
        assert!(
            finding.problem.contains("cable belongs to the VRF lan"),
            "{}",
            finding.problem
        );
        assert_eq!(finding.severity, Severity::Error);
    }
}
