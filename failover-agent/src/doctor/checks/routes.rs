//! Other programs' default routes that beat or tie with those of the agent.

use std::ops::Range;

use failover_policy::Family;

use super::{Finding, facts::Facts};
use crate::{
    config::{Config, RouteConfig},
    doctor::Severity,
    route::inspect::DefaultRoute,
};

/// How far behind ours the cure puts a route: behind 64 uplinks, with room to spare.
const BEHIND: u32 = 1000;

/// The agent displaces a default route on an uplink, and again when the next lease brings it back. It leaves alone one on another
/// interface, which takes the traffic; for a VPN that is the purpose.
pub(super) fn default_route(facts: &Facts) -> Option<Vec<Finding>> {
    let ours = Metrics::of(&facts.config);
    let mut findings = Vec::new();
    for other in &facts.defaults {
        let of_uplink = other
            .hops
            .iter()
            .any(|(ifindex, _)| facts.is_uplink(*ifindex));
        let (severity, what) = if of_uplink && other.metric <= ours.worst() {
            (
                Severity::Warning,
                "beats the agent's, which displaces it each time it comes back",
            )
        } else if !of_uplink && ours.has(other.metric) {
            (
                Severity::Warning,
                "has one of the agent's metrics, which has to put its own route beside it",
            )
        } else if !of_uplink && other.metric < ours.worst() && facts.is_tunnel(other) {
            (
                Severity::Hint,
                "stays in front of the agent's: all traffic but the tunnel's own leaves by it, as a VPN wants it, whichever uplink is active",
            )
        } else if !of_uplink && other.metric < ours.worst() {
            (
                Severity::Error,
                "beats the agent's: all traffic leaves by an interface that is no uplink",
            )
        } else {
            continue;
        };
        let problem = format!("`{}` {what}", other.text);
        let finding = Finding::new(severity, problem, cure(facts, other)).family(other.family);
        let uplink = facts.present().find(|(_, _, interface)| {
            other
                .hops
                .iter()
                .any(|(ifindex, _)| *ifindex == interface.index)
        });
        findings.push(match uplink {
            Some((config, _, _)) => finding.on(&config.name),
            None => finding,
        });
    }
    Some(findings)
}

impl Facts {
    /// Whether all nexthops of a route lead into tunnels, or other point-to-point links.
    fn is_tunnel(&self, route: &DefaultRoute) -> bool {
        route.hops.iter().all(|(ifindex, _)| {
            let mut interfaces = self.interfaces.iter();
            interfaces.any(|interface| interface.index == *ifindex && !interface.network)
        })
    }
}

/// The metrics of the agent's own default routes.
struct Metrics {
    /// Of each uplink while it is active.
    active: Vec<u32>,
    standby: Range<u32>,
}

impl Metrics {
    fn of(config: &Config) -> Metrics {
        let RouteConfig {
            active_metric,
            standby_metric,
            ..
        } = config.route;
        let count = u32::try_from(config.uplinks.len()).unwrap_or(u32::MAX);
        Metrics {
            active: config
                .uplinks
                .iter()
                .map(|uplink| uplink.metric.unwrap_or(active_metric))
                .collect(),
            standby: standby_metric..standby_metric.saturating_add(count),
        }
    }

    fn has(&self, metric: u32) -> bool {
        self.active.contains(&metric) || self.standby.contains(&metric)
    }

    /// The metric that a route must not beat, whichever uplink is active.
    fn worst(&self) -> u32 {
        self.active.iter().copied().max().unwrap_or_default()
    }
}

/// Puts the route behind ours now, and says how to make that permanent.
fn cure(facts: &Facts, route: &DefaultRoute) -> String {
    let metric = facts.config.route.standby_metric + BEHIND + route.metric;
    let [(ifindex, gateway)] = route.hops[..] else {
        return format!("for good: {}", manager(route, metric));
    };
    let family = match route.family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let via = gateway
        .map(|gateway| format!(" via {gateway}"))
        .unwrap_or_default();
    let interface = facts.interface_name(ifindex);
    let words = |metric| {
        format!(
            "default{via} dev {interface} proto {} metric {metric}",
            route.protocol
        )
    };
    format!(
        "ip {family} route add {} && ip {family} route del {} # for good: {}",
        words(metric),
        words(route.metric),
        manager(route, metric)
    )
}

/// The program that makes routes with this protocol number (/etc/iproute2/rt_protos), and how to set their metric.
fn manager(route: &DefaultRoute, metric: u32) -> String {
    let (file, network_manager) = match route.family {
        Family::V4 => ("[DHCPv4]", "ipv4"),
        Family::V6 => ("[IPv6AcceptRA]", "ipv6"),
    };
    let managers = format!(
        "NetworkManager: {network_manager}.route-metric {metric}; systemd-networkd: {file} RouteMetric={metric}"
    );
    match route.protocol {
        // boot: used by programs that set no protocol: ip, dhclient, udhcpc, ifupdown, pppd.
        3 => format!(
            "ifupdown: `metric {metric}`; pppd: `defaultroute-metric {metric}`; udhcpc: IF_METRIC={metric}"
        ),
        4 => format!(
            "NetworkManager: {network_manager}.route-metric {metric}; systemd-networkd: [Route] Metric={metric}"
        ),
        9 => format!("kernel: sysctl ra_defrtr_metric={metric} of the interface; {managers}"),
        16 => format!("{managers}; dhcpcd: `metric {metric}`"),
        11 | 12 | 42 | 186..=189 | 192 => {
            "filter the default route in the routing daemon (zebra, bird, babeld)".to_owned()
        }
        other => format!("find what makes routes of protocol {other} (/etc/iproute2/rt_protos)"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{LAN, LTE, found, healthy, only},
        *,
    };

    fn with_default(ifindex: u32, metric: u32, protocol: u8) -> Facts {
        let mut facts = healthy();
        facts.defaults = vec![DefaultRoute {
            family: Family::V4,
            metric,
            protocol,
            hops: vec![(ifindex, Some("10.64.2.1".parse().unwrap()))],
            text: "default via 10.64.2.1".to_owned(),
        }];
        facts
    }

    #[test]
    fn an_uplinks_better_route_is_moved_behind_ours() {
        let finding = only("default-route", &with_default(LTE, 0, 16));
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.uplink.as_deref(), Some("lte"));
        let command = "ip -4 route add default via 10.64.2.1 dev lte proto 16 metric 6000 && ip -4 route del default via 10.64.2.1 dev lte proto 16 metric 0 #";
        assert!(finding.cure.starts_with(command), "{}", finding.cure);
        assert!(
            finding.cure.contains("dhcpcd: `metric 6000`"),
            "{}",
            finding.cure
        );
        assert_eq!(
            only("default-route", &with_default(LTE, 50, 3)).severity,
            Severity::Warning
        );
        // Displaced at the start and restored at the end: no finding.
        assert_eq!(found("default-route", &with_default(LTE, 5000, 16)), []);
        assert_eq!(found("default-route", &with_default(LTE, 1024, 9)), []);
    }

    #[test]
    fn an_uplink_with_a_metric_of_its_own_is_beaten_by_more() {
        let mut facts = with_default(LTE, 90, 16);
        assert_eq!(found("default-route", &facts), []);
        facts.config.uplinks[1].metric = Some(95);
        assert_eq!(only("default-route", &facts).severity, Severity::Warning);
        facts.defaults[0].hops[0].0 = LAN;
        assert!(only("default-route", &facts).problem.contains("beats"));
        facts.defaults[0].metric = 95;
        assert!(only("default-route", &facts).problem.contains("metrics"));
    }

    #[test]
    fn a_route_of_another_interface_is_an_error_if_it_beats_and_a_warning_if_it_ties() {
        use Severity::{Error, Warning};
        for (metric, severity) in [(0, Error), (50, Error), (80, Warning), (5001, Warning)] {
            let finding = only("default-route", &with_default(LAN, metric, 4));
            assert_eq!(finding.severity, severity, "{metric}");
            assert_eq!(finding.uplink, None);
        }
        for metric in [81, 100, 1024, 5002] {
            assert_eq!(found("default-route", &with_default(LAN, metric, 4)), []);
        }
    }

    #[test]
    fn a_tunnels_route_may_stay_in_front() {
        use Severity::{Hint, Warning};
        for (metric, severity) in [(0, Hint), (50, Hint), (80, Warning), (5001, Warning)] {
            let mut facts = with_default(LAN, metric, 4);
            for interface in &mut facts.interfaces {
                interface.network &= interface.index != LAN;
            }
            let finding = only("default-route", &facts);
            assert_eq!(finding.severity, severity, "{metric}");
        }
    }
}
