//! Other programs' routes that bypass the choice of the active uplink.

use failover_policy::Family;
use ipnet::IpNet;

use super::{Finding, facts::Facts};
use crate::{
    doctor::Severity,
    route::others::{Kind, Route},
};

/// How many routes a finding names.
const NAMED: usize = 4;

/// Networks that are reached by one uplink, whichever is active: its closed gate cuts traffic to them.
pub(super) fn routes(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    if !facts.config.cutoff.cuts() {
        return Some(findings);
    }
    for family in Family::ALL {
        for (config, uplink, interface) in facts.present() {
            let exempt = |destination: &IpNet| {
                let prefixes = uplink.paths.values().flatten();
                let prefixes = prefixes.flat_map(|path| &path.prefixes);
                let mut exempt = prefixes.chain(&facts.config.cutoff.allow);
                exempt.any(|network| network.contains(destination))
            };
            let cut: Vec<&Route> = of_kind(facts, Kind::Specific)
                .filter(|route| route.family == family && leaves_by(route, interface.index))
                .filter(|route| !exempt(&route.destination))
                .collect();
            let Some(first) = cut.first() else {
                continue;
            };
            let more = match cut.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let problem = format!(
                "`{}`{more} by {}: while another uplink is active, its closed gate cuts traffic to it, and when it is Down, no other uplink takes over",
                first.text, config.name
            );
            let named = cut.iter().take(NAMED);
            let named: Vec<String> = named
                .map(|route| format!("\"{}\"", route.destination))
                .collect();
            let rest = if cut.len() > NAMED { ", …" } else { "" };
            let cure = format!(
                "to reach it by {} whatever is active: allow = [{}{rest}] in [cutoff]; to reach it by the active uplink: remove the route",
                config.name,
                named.join(", ")
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

/// A default route that rejects or drops packets, in front of the agent's.
pub(super) fn kill_switch(facts: &Facts) -> Option<Vec<Finding>> {
    let config = &facts.config;
    let own = config.uplinks.iter().filter_map(|uplink| uplink.metric);
    let worst = own.max().unwrap_or(0).max(config.route.active_metric);
    let refusing = of_kind(facts, Kind::Refusing).filter(|route| route.metric <= worst);
    Some(
        refusing
            .map(|route| {
                let problem = format!(
                    "`{}` stands in front of the agent's default route: whichever uplink is active, nothing leaves by it",
                    route.text
                );
                let cure = format!(
                    "ip {} route del {} # if the kill switch of a VPN is meant, leave it, or give it a metric above {worst}",
                    flag(route.family),
                    route.text
                );
                Finding::new(Severity::Warning, problem, cure).family(route.family)
            })
            .collect(),
    )
}

/// A default route for one source takes precedence over the agent's for packets of that source.
pub(super) fn for_source(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for route in of_kind(facts, Kind::ForSource) {
        let uplink = facts
            .present()
            .find(|(_, _, interface)| leaves_by(route, interface.index));
        let Some((config, _, interface)) = uplink else {
            continue;
        };
        let problem = format!(
            "`{}` leads packets of that source by {} although another uplink is active: hosts behind this one that have such an address take no part in a failover",
            route.text, config.name
        );
        let cure = format!(
            "leave it where such hosts have an address of each uplink; where this host translates IPv6, have {} make one route for all sources (OpenWrt: option sourcefilter '0')",
            interface.name
        );
        findings.push(
            Finding::new(Severity::Hint, problem, cure)
                .on(&config.name)
                .family(route.family),
        );
    }
    Some(findings)
}

/// A route that claims that a good part of the internet is on the link. The agent does not believe it, but the kernel does.
pub(super) fn internet_on_link(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for route in of_kind(facts, Kind::Wide) {
        let uplink = facts
            .present()
            .find(|(_, _, interface)| leaves_by(route, interface.index));
        let Some((config, _, interface)) = uplink else {
            continue;
        };
        let network = route.destination;
        let problem = format!(
            "`{}` says that all of {network} is on the link of {}: the kernel looks for those hosts there, whichever uplink is active",
            route.text, interface.name
        );
        let cure = match route.family {
            Family::V4 => format!(
                "ip -4 route del {network} dev {0} # for good: give the addresses of {0} their true prefix length",
                interface.name
            ),
            Family::V6 => format!(
                "ip -6 route del {network} dev {0} # for good: find the router that advertises it, or sysctl -w net.ipv6.conf.{0}.accept_ra_pinfo=0",
                interface.name
            ),
        };
        findings.push(
            Finding::new(Severity::Warning, problem, cure)
                .on(&config.name)
                .family(route.family),
        );
    }
    Some(findings)
}

fn of_kind(facts: &Facts, kind: Kind) -> impl Iterator<Item = &Route> {
    facts.routes.iter().filter(move |route| route.kind == kind)
}

fn leaves_by(route: &Route, index: u32) -> bool {
    route.hops.iter().any(|(ifindex, _)| *ifindex == index)
}

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{LAN, LTE, found, healthy, only},
        *,
    };

    fn with(kind: Kind, destination: &str, ifindex: u32, metric: u32) -> Facts {
        let mut facts = healthy();
        let destination: IpNet = destination.parse().unwrap();
        facts.routes = vec![Route {
            family: match destination {
                IpNet::V4(_) => Family::V4,
                IpNet::V6(_) => Family::V6,
            },
            kind,
            destination,
            hops: vec![(ifindex, None)],
            metric,
            text: "the route".to_owned(),
        }];
        facts
    }

    #[test]
    fn a_network_by_one_uplink_is_told_unless_it_is_allowed() {
        let net = "203.0.113.0/24";
        let mut facts = with(Kind::Specific, net, LTE, 0);
        let finding = only("specific-route", &facts);
        assert_eq!(finding.uplink.as_deref(), Some("lte"));
        assert!(
            finding.cure.contains("allow = [\"203.0.113.0/24\"]"),
            "{}",
            finding.cure
        );
        facts.config.cutoff.allow = vec!["203.0.112.0/23".parse().unwrap()];
        assert_eq!(found("specific-route", &facts), []);
        // The gateway of a lease of one address; other programs' networks; nothing is cut at all.
        assert_eq!(
            found(
                "specific-route",
                &with(Kind::Specific, "10.64.2.1/32", LTE, 0)
            ),
            []
        );
        assert_eq!(
            found("specific-route", &with(Kind::Specific, net, LAN, 0)),
            []
        );
        let mut off = with(Kind::Specific, net, LTE, 0);
        off.config.cutoff.mode = crate::config::CutoffMode::Off;
        assert_eq!(found("specific-route", &off), []);
    }

    #[test]
    fn many_networks_are_one_finding() {
        let mut facts = with(Kind::Specific, "203.0.113.0/24", LTE, 0);
        facts.routes = vec![facts.routes[0].clone(); 9];
        let finding = only("specific-route", &facts);
        assert!(
            finding.problem.contains("and 8 more"),
            "{}",
            finding.problem
        );
        assert_eq!(finding.cure.matches("/24").count(), NAMED);
    }

    #[test]
    fn a_kill_switch_behind_the_agents_routes_does_no_harm() {
        for (metric, count) in [(0, 1), (80, 1), (81, 0), (4_294_967_295, 0)] {
            let facts = with(Kind::Refusing, "::/0", 1, metric);
            assert_eq!(found("kill-switch", &facts).len(), count, "{metric}");
        }
    }

    #[test]
    fn only_an_uplinks_routes_for_a_source_and_networks_on_its_link_are_told() {
        for (check, kind, destination, severity) in [
            (
                "source-default-route",
                Kind::ForSource,
                "::/0",
                Severity::Hint,
            ),
            ("internet-on-link", Kind::Wide, "::/1", Severity::Warning),
        ] {
            let finding = only(check, &with(kind, destination, LTE, 512));
            assert_eq!(finding.severity, severity);
            assert_eq!(finding.uplink.as_deref(), Some("lte"));
            assert_eq!(found(check, &with(kind, destination, LAN, 512)), []);
        }
    }
}
