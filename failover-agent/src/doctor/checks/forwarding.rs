//! Whether hosts behind this one benefit from a failover.

use std::net::{IpAddr, Ipv4Addr};

use failover_policy::Family;
use ipnet::Ipv4Net;

use super::{Finding, facts::Facts};
use crate::{
    doctor::Severity,
    route::{inspect::Interface, lookup::family_of},
};

/// The table in which the cures put their rules.
const TABLE: &str = "inet failover";

/// There are other interfaces, but no forwarding between them and the uplinks.
pub(super) fn off(facts: &Facts) -> Option<Vec<Finding>> {
    let lan = facts.lans().find(|lan| has(lan, Family::V4, is_private));
    let finding = lan.filter(|_| !facts.forwarding.v4).map(|lan| {
        let problem = format!(
            "this host does not forward: hosts behind {} cannot use its uplinks",
            lan.name
        );
        Finding::new(Severity::Hint, problem, "sysctl -w net.ipv4.ip_forward=1").family(Family::V4)
    });
    Some(finding.into_iter().collect())
}

/// Packets with private addresses leave by an uplink untranslated: no answer can come back.
pub(super) fn no_masquerade(facts: &Facts) -> Option<Vec<Finding>> {
    let firewall = facts.firewall.as_ref()?;
    let mut findings = Vec::new();
    for family in Family::ALL {
        let Some(lan) = forwards_for(facts, family) else {
            continue;
        };
        for (config, uplink, interface) in facts.present() {
            if uplink.paths[family].is_none() || firewall.translates(family, &interface.name) {
                continue;
            }
            let protocol = match family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            };
            let problem = format!(
                "no rule gives what {} forwards from {} an address of its own: after a failover nothing comes back",
                interface.name, lan.name
            );
            let cure = format!(
                "nft 'add table {TABLE}; add chain {TABLE} nat {{ type nat hook postrouting priority srcnat; }}; add rule {TABLE} nat oifname \"{}\" meta nfproto {protocol} masquerade'",
                interface.name
            );
            findings.push(
                Finding::new(Severity::Warning, problem, cure)
                    .on(&config.name)
                    .family(family),
            );
        }
    }
    Some(findings)
}

/// Late segments of ended connections are not translated: they leave with private addresses.
pub(super) fn invalid(facts: &Facts) -> Option<Vec<Finding>> {
    let firewall = facts.firewall.as_ref()?;
    let translates = Family::ALL.into_iter().any(|family| {
        forwards_for(facts, family).is_some()
            && facts
                .present()
                .any(|(_, _, interface)| firewall.translates(family, &interface.name))
    });
    let finding = (translates && !firewall.drops_invalid).then(|| {
        Finding::new(
            Severity::Hint,
            "no rule drops forwarded packets that belong to no connection: after a switch some leave with private addresses",
            format!("nft '{}; add rule {TABLE} forward ct state invalid drop'", forward_chain()),
        )
    });
    Some(finding.into_iter().collect())
}

/// A connection whose segments fit one uplink's MTU does not fit another's.
pub(super) fn mtu(facts: &Facts) -> Option<Vec<Finding>> {
    let firewall = facts.firewall.as_ref()?;
    let forwards = Family::ALL
        .into_iter()
        .any(|family| forwards_for(facts, family).is_some());
    let widest = facts.present().map(|(_, _, interface)| interface.mtu).max();
    if !forwards || firewall.clamps_mss {
        return Some(Vec::new());
    }
    let narrow = facts
        .present()
        .filter(|(_, _, interface)| Some(interface.mtu) < widest);
    Some(
        narrow
            .map(|(config, _, interface)| {
                let problem = format!(
                    "{} has an MTU of {}, another uplink {}, and no rule fits forwarded connections to it: where ICMP is filtered on the way, they hang after a failover",
                    interface.name,
                    interface.mtu,
                    widest.unwrap_or_default()
                );
                let cure = format!(
                    "nft '{}; add rule {TABLE} forward oifname \"{}\" tcp flags syn tcp option maxseg size set rt mtu'",
                    forward_chain(),
                    interface.name
                );
                Finding::new(Severity::Warning, problem, cure).on(&config.name)
            })
            .collect(),
    )
}

fn forward_chain() -> String {
    format!(
        "add table {TABLE}; add chain {TABLE} forward {{ type filter hook forward priority filter; }}"
    )
}

/// An interface with private addresses for which this host forwards a family.
fn forwards_for(facts: &Facts, family: Family) -> Option<&Interface> {
    let mut lans = facts.lans();
    lans.find(|lan| facts.forwarding[family] && has(lan, family, is_private))
}

fn has(interface: &Interface, family: Family, test: impl Fn(IpAddr) -> bool) -> bool {
    let mut addresses = interface.addresses.iter();
    addresses.any(|address| family_of(address.ip) == family && test(address.ip))
}

/// What carriers translate from (RFC 6598).
const SHARED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// Whether the internet has no route to it: RFC 1918, RFC 6598, RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || SHARED.contains(&v4),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use failover_policy::PerFamily;

    use super::{
        super::testing::{found, healthy, only},
        *,
    };
    use crate::doctor::firewall::Firewall;

    #[test]
    fn a_host_with_a_lan_may_want_to_forward() {
        let mut facts = healthy();
        facts.forwarding = PerFamily::both(false);
        assert_eq!(only("forwarding-off", &facts).severity, Severity::Hint);
        // Then the rest does not matter.
        facts.firewall = Some(Firewall::default());
        assert_eq!(found("no-masquerade", &facts), []);
        assert_eq!(found("invalid-forwarded", &facts), []);
        facts.interfaces.truncate(2);
        assert_eq!(found("forwarding-off", &facts), []);
    }

    #[test]
    fn every_uplink_must_translate() {
        let mut facts = healthy();
        facts.firewall = Some(Firewall::default());
        let findings = found("no-masquerade", &facts);
        assert_eq!(findings.len(), 2);
        assert!(
            findings[1]
                .cure
                .contains("oifname \"lte\" meta nfproto ipv4 masquerade")
        );
        // Public addresses need no translation.
        facts.interfaces[2].addresses[0].ip = "203.0.113.1".parse().unwrap();
        assert_eq!(found("no-masquerade", &facts), []);
    }

    #[test]
    fn invalid_packets_matter_where_others_are_translated() {
        let mut facts = healthy();
        facts.firewall.as_mut().unwrap().drops_invalid = false;
        assert_eq!(only("invalid-forwarded", &facts).severity, Severity::Hint);
        facts.firewall = Some(Firewall::default());
        assert_eq!(found("invalid-forwarded", &facts), []);
    }

    #[test]
    fn the_narrower_uplink_is_told_unless_segments_are_clamped() {
        let mut facts = healthy();
        facts.uplinks[1].interface.as_mut().unwrap().mtu = 1400;
        assert_eq!(only("mtu-differs", &facts).uplink.as_deref(), Some("lte"));
        facts.firewall.as_mut().unwrap().clamps_mss = true;
        assert_eq!(found("mtu-differs", &facts), []);
    }

    #[test]
    fn private_addresses_are_those_without_a_route_in_the_internet() {
        for (ip, private) in [
            ("10.0.0.1", true),
            ("100.64.0.1", true),
            ("100.127.255.254", true),
            ("100.128.0.1", false),
            ("1.1.1.1", false),
            ("fd00::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(ip.parse().unwrap()), private, "{ip}");
        }
    }
}
