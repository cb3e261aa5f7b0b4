//! Interfaces, addresses and gateways: whether each uplink can carry each family for which it has targets.

use std::net::IpAddr;

use failover_policy::Family;

use super::{
    Finding,
    facts::{Facts, Uplink, targets},
};
use crate::{
    config::{Gateway, UplinkConfig},
    doctor::{Severity, sysctl::sysctl_key},
    route::{inspect::AddressState, lookup::family_of},
};

/// The interface does not exist.
pub(super) fn interface_missing(facts: &Facts) -> Option<Vec<Finding>> {
    let missing = facts
        .uplinks()
        .filter(|(_, uplink)| uplink.interface.is_none());
    let names: Vec<&str> = facts
        .interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .filter(|name| *name != "lo")
        .collect();
    Some(
        missing
            .map(|(config, _)| {
                let problem = format!("there is no interface {}", config.interface);
                let meant = facts
                    .interfaces
                    .iter()
                    .find(|interface| interface.altnames.contains(&config.interface));
                let cure = match meant {
                    Some(meant) => format!(
                        "it is an altname of {0}: write interface = \"{0}\"",
                        meant.name
                    ),
                    None => format!("plug it in, or configure one of: {}", names.join(", ")),
                };
                Finding::new(Severity::Error, problem, cure).on(&config.name)
            })
            .collect(),
    )
}

/// An administrator has set the interface down.
pub(super) fn interface_down(facts: &Facts) -> Option<Vec<Finding>> {
    let down = facts.present().filter(|(_, _, interface)| !interface.up);
    Some(
        down.map(|(config, _, interface)| {
            let problem = format!("{} is set down", interface.name);
            let cure = format!("ip link set dev {} up", interface.name);
            Finding::new(Severity::Error, problem, cure).on(&config.name)
        })
        .collect(),
    )
}

/// The interface is up, but there is no link.
pub(super) fn no_carrier(facts: &Facts) -> Option<Vec<Finding>> {
    let dark = facts
        .present()
        .filter(|(_, _, interface)| interface.up && !interface.carrier);
    Some(
        dark.map(|(config, _, interface)| {
            let problem = format!("{} has no carrier", interface.name);
            let cure = "look at the cable, the modem, or the other end";
            Finding::new(Severity::Warning, problem, cure).on(&config.name)
        })
        .collect(),
    )
}

/// IPv6 is configured, but switched off.
pub(super) fn ipv6_disabled(facts: &Facts) -> Option<Vec<Finding>> {
    let disabled = facts.present().filter(|(config, uplink, _)| {
        uplink.settings.disable_ipv6 != 0 && has_targets(config, Family::V6)
    });
    Some(
        disabled
            .map(|(config, _, interface)| {
                let key = sysctl_key(Family::V6, &interface.name, "disable_ipv6");
                let problem = format!("IPv6 is switched off on {}", interface.name);
                Finding::new(Severity::Error, problem, format!("sysctl -w {key}=0"))
                    .on(&config.name)
                    .family(Family::V6)
            })
            .collect(),
    )
}

/// By default, a router ignores other routers (Documentation/networking/ip-sysctl.rst, `accept_ra`).
pub(super) fn advertisements_ignored(facts: &Facts) -> Option<Vec<Finding>> {
    let ignored = facts.present().filter(|(config, uplink, _)| {
        config.gateway6 == Gateway::Auto
            && has_targets(config, Family::V6)
            && uplink.settings.accept_ra == 1
            && uplink.settings.forwarding_v6 != 0
    });
    Some(
        ignored
            .map(|(config, _, interface)| {
                let key = sysctl_key(Family::V6, &interface.name, "accept_ra");
                let problem = format!(
                    "{} forwards IPv6 and therefore ignores router advertisements: its gateway and addresses will expire",
                    interface.name
                );
                Finding::new(Severity::Warning, problem, format!("sysctl -w {key}=2"))
                    .on(&config.name)
                    .family(Family::V6)
            })
            .collect(),
    )
}

/// Another host has the address (RFC 4862, 5.4).
pub(super) fn duplicate_address(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for (config, _, interface) in facts.present() {
        let duplicates = interface.addresses.iter();
        findings.extend(
            duplicates
                .filter(|address| address.state == AddressState::Duplicate)
                .map(|address| {
                    let problem = format!(
                        "another host on the link of {} has {}, too: the kernel does not use it",
                        interface.name, address.ip
                    );
                    let cure = format!(
                        "ip address del {}/{} dev {}",
                        address.ip, address.length, interface.name
                    );
                    Finding::new(Severity::Warning, problem, cure)
                        .on(&config.name)
                        .family(family_of(address.ip))
                }),
        );
    }
    Some(findings)
}

/// The uplink has no address to probe from.
pub(super) fn no_address(facts: &Facts) -> Option<Vec<Finding>> {
    Some(without_path(facts, |config, uplink, family| {
        let interface = uplink.interface.as_ref()?;
        if let Some((key, source)) = missing_source(config, uplink, family) {
            return Some((
                format!(
                    "{} does not have {source}, which is its {key}",
                    interface.name
                ),
                format!("configure the address, or correct {key}"),
            ));
        }
        if has_address(uplink, family) || !interface.up {
            return None;
        }
        let checking = interface.addresses.iter().any(|address| {
            family_of(address.ip) == family && address.state == AddressState::Tentative
        });
        let (problem, cure) = if checking {
            (
                format!(
                    "{} has no {family} address for which the kernel has finished duplicate address detection",
                    interface.name
                ),
                "wait two seconds".to_owned(),
            )
        } else {
            (
                format!("{} has no {family} address", interface.name),
                format!(
                    "start its DHCP client, configure an address, or remove the {family} targets of {}",
                    config.name
                ),
            )
        };
        Some((problem, cure))
    }))
}

/// An address, but no way beyond the link.
pub(super) fn no_gateway(facts: &Facts) -> Option<Vec<Finding>> {
    Some(without_path(facts, |config, uplink, family| {
        let interface = uplink.interface.as_ref()?;
        let sourceless =
            !has_address(uplink, family) || missing_source(config, uplink, family).is_some();
        if sourceless || !interface.up {
            return None;
        }
        let (key, setting) = match family {
            Family::V4 => ("gateway", config.gateway),
            Family::V6 => ("gateway6", config.gateway6),
        };
        let problem = match setting {
            Gateway::Address(gateway) => {
                format!(
                    "gateway {gateway} is not on a network of {}",
                    interface.name
                )
            }
            _ => format!("no {family} gateway is known for {}", interface.name),
        };
        let cure = format!(
            "write the right {key} = \"ADDRESS\", or {key} = \"auto\" and start the DHCP client of {}",
            interface.name
        );
        Some((problem, cure))
    }))
}

/// Problem and cure for each uplink and family that has targets and no path. An error if no other family of the uplink has a path.
fn without_path(
    facts: &Facts,
    explain: impl Fn(&UplinkConfig, &Uplink, Family) -> Option<(String, String)>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (config, uplink) in facts.uplinks() {
        let severity = if uplink.paths.values().all(Option::is_none) {
            Severity::Error
        } else {
            Severity::Warning
        };
        for family in Family::ALL {
            let off = family == Family::V6 && uplink.settings.disable_ipv6 != 0;
            // Another check reports that, whatever else the interface lacks.
            let off = off
                || uplink
                    .interface
                    .as_ref()
                    .is_some_and(|known| known.vrf.is_some());
            if uplink.paths[family].is_some() || !has_targets(config, family) || off {
                continue;
            }
            if let Some((problem, cure)) = explain(config, uplink, family) {
                let finding = Finding::new(severity, problem, cure);
                findings.push(finding.on(&config.name).family(family));
            }
        }
    }
    findings
}

/// The address that is configured as the source of a family, and its key, if the interface does not have it.
fn missing_source(
    config: &UplinkConfig,
    uplink: &Uplink,
    family: Family,
) -> Option<(&'static str, IpAddr)> {
    let (key, source) = match family {
        Family::V4 => ("source", config.source?),
        Family::V6 => ("source6", config.source6?),
    };
    let interface = uplink.interface.as_ref()?;
    let mut addresses = interface.addresses.iter();
    let there = addresses.any(|address| address.ip == source);
    (!there).then_some((key, source))
}

fn has_targets(config: &UplinkConfig, family: Family) -> bool {
    targets(config, family).next().is_some()
}

fn has_address(uplink: &Uplink, family: Family) -> bool {
    uplink.interface.iter().any(|interface| {
        interface
            .addresses
            .iter()
            .any(|address| family_of(address.ip) == family && address.state == AddressState::Usable)
    })
}

#[cfg(test)]
mod tests {
    use failover_policy::PerFamily;

    use super::{
        super::testing::{found, healthy, only},
        *,
    };

    fn with_v6_targets() -> Facts {
        let mut facts = healthy();
        for uplink in &mut facts.config.uplinks {
            uplink.probe.targets.push("2001:db8:f::1".parse().unwrap());
        }
        facts
    }

    #[test]
    fn an_altname_and_a_source_that_is_elsewhere_are_named() {
        let mut facts = healthy();
        facts.config.uplinks[1].interface = "enp3s0".to_owned();
        facts.uplinks[1].interface = None;
        facts.interfaces[1].altnames = vec!["enp3s0".to_owned()];
        assert_eq!(
            only("interface-missing", &facts).cure,
            "it is an altname of lte: write interface = \"lte\""
        );
        let mut facts = healthy();
        facts.config.uplinks[1].source = Some("10.64.1.2".parse().unwrap());
        facts.uplinks[1].paths = PerFamily::default();
        let finding = only("no-address", &facts);
        assert_eq!(
            finding.problem,
            "lte does not have 10.64.1.2, which is its source"
        );
        assert_eq!(found("no-gateway", &facts), []);
    }

    #[test]
    fn a_missing_interface_is_told_with_those_that_exist() {
        let mut facts = healthy();
        facts.uplinks[1].interface = None;
        facts.uplinks[1].paths = PerFamily::default();
        let finding = only("interface-missing", &facts);
        assert_eq!(finding.uplink.as_deref(), Some("lte"));
        assert!(finding.cure.contains("cable, lte, lan"), "{finding:?}");
        assert_eq!(found("no-address", &facts), []);
    }

    #[test]
    fn down_and_dark_are_told_apart() {
        let mut facts = healthy();
        let interface = facts.uplinks[0].interface.as_mut().unwrap();
        interface.carrier = false;
        assert_eq!(only("no-carrier", &facts).severity, Severity::Warning);
        assert_eq!(found("interface-down", &facts), []);
        facts.uplinks[0].interface.as_mut().unwrap().up = false;
        assert_eq!(
            only("interface-down", &facts).cure,
            "ip link set dev cable up"
        );
        assert_eq!(found("no-carrier", &facts), []);
    }

    #[test]
    fn one_family_missing_of_two_is_a_warning() {
        let mut facts = with_v6_targets();
        let findings = found("no-address", &facts);
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[0].severity, Severity::Warning);
        assert_eq!(findings[0].family, Some(Family::V6));
        facts.uplinks[0].paths = PerFamily::default();
        assert_eq!(found("no-address", &facts)[0].severity, Severity::Error);
        // The IPv4 address is there; it is the gateway that is not.
        let finding = only("no-gateway", &facts);
        assert_eq!(finding.family, Some(Family::V4));
        assert!(finding.problem.contains("no IPv4 gateway"), "{finding:?}");
    }

    #[test]
    fn ipv6_that_is_switched_off_is_the_cause_of_its_missing_address() {
        let mut facts = with_v6_targets();
        facts.uplinks[1].settings.disable_ipv6 = 1;
        let finding = only("ipv6-disabled", &facts);
        assert_eq!(finding.cure, "sysctl -w net.ipv6.conf.lte.disable_ipv6=0");
        assert_eq!(only("no-address", &facts).uplink.as_deref(), Some("cable"));
    }

    #[test]
    fn a_router_ignores_router_advertisements_unless_told_not_to() {
        let mut facts = with_v6_targets();
        let settings = &mut facts.uplinks[0].settings;
        (settings.accept_ra, settings.forwarding_v6) = (1, 1);
        let finding = only("router-advertisements-ignored", &facts);
        assert_eq!(finding.cure, "sysctl -w net.ipv6.conf.cable.accept_ra=2");
        facts.uplinks[0].settings.accept_ra = 2;
        assert_eq!(found("router-advertisements-ignored", &facts), []);
    }

    #[test]
    fn a_duplicate_address_is_no_usable_one() {
        let mut facts = with_v6_targets();
        let interface = facts.uplinks[0].interface.as_mut().unwrap();
        interface.addresses.push(crate::route::inspect::Address {
            ip: "2001:db8::2".parse().unwrap(),
            length: 64,
            state: AddressState::Duplicate,
        });
        let finding = only("duplicate-address", &facts);
        assert_eq!(finding.cure, "ip address del 2001:db8::2/64 dev cable");
        assert_eq!(found("no-address", &facts).len(), 2);
    }
}
