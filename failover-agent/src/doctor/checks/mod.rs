//! The checks. Each is a pure function from facts to findings.

mod addresses;
mod forwarding;
mod groups;
mod kernel;
mod networks;
mod probes;
mod programs;
mod reverse_path;
mod rewriting;
mod routes;
mod specific;
mod stacked;
#[cfg(test)]
mod testing;

use super::{
    Finding,
    facts::{self, Facts},
};

/// One check.
pub(super) struct Check {
    /// Its id: stable, in kebab-case.
    pub(super) id: &'static str,
    /// Its findings; `None` if the facts do not allow the check.
    pub(super) find: fn(&Facts) -> Option<Vec<Finding>>,
}

const fn check(id: &'static str, find: fn(&Facts) -> Option<Vec<Finding>>) -> Check {
    Check { id, find }
}

/// All checks, from causes to consequences.
pub(super) const ALL: [Check; 36] = [
    check("requirements", kernel::requirements),
    check("no-tcx", kernel::no_tcx),
    check("cannot-end", kernel::cannot_end),
    check("interface-missing", addresses::interface_missing),
    check("in-vrf", stacked::in_vrf),
    check("stacked-uplink", stacked::on_an_uplink),
    check("interface-down", addresses::interface_down),
    check("no-carrier", addresses::no_carrier),
    check("ipv6-disabled", addresses::ipv6_disabled),
    check(
        "router-advertisements-ignored",
        addresses::advertisements_ignored,
    ),
    check("duplicate-address", addresses::duplicate_address),
    check("no-address", addresses::no_address),
    check("no-gateway", addresses::no_gateway),
    check("arp-flux", networks::arp_flux),
    check("same-network", networks::same_network),
    check("target-on-link", networks::target_on_link),
    check("default-route", routes::default_route),
    check("kill-switch", specific::kill_switch),
    check("specific-route", specific::routes),
    check("source-default-route", specific::for_source),
    check("internet-on-link", specific::internet_on_link),
    check("group-hash-policy", groups::hash_policy),
    check("group-not-resilient", groups::not_resilient),
    check("group-member-without-gateway", groups::without_gateway),
    check("other-programs", programs::others),
    check("reverse-path", reverse_path::probes),
    check("reverse-path-forwarded", reverse_path::forwarded),
    check("forwarding-off", forwarding::off),
    check("no-masquerade", forwarding::no_masquerade),
    check("invalid-forwarded", forwarding::invalid),
    check("mtu-differs", forwarding::mtu),
    check("nat-address", rewriting::nat_address),
    check("flow-offload", rewriting::flow_offload),
    check("mark-rewritten", rewriting::marks),
    check("probe-refused", probes::refused),
    check("no-answer", probes::no_answer),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{testing::healthy, *};
    use crate::doctor::diagnose;

    #[test]
    fn a_healthy_host_passes_every_check() {
        let report = diagnose(&healthy());
        assert_eq!(report.findings, []);
        assert_eq!(report.checks_run.len(), ALL.len());
        let ids: HashSet<_> = report.checks_run.iter().collect();
        assert_eq!(ids.len(), ALL.len());
        assert_eq!(report.failure().map(|failure| failure.exit_code()), None);
    }

    #[test]
    fn every_check_is_documented() {
        const DOCUMENT: &str = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/configuration.md"
        ));
        for check in ALL {
            let row = format!("\n| `{}` | ", check.id);
            assert!(DOCUMENT.contains(&row), "{row}");
        }
    }

    #[test]
    fn what_cannot_be_known_is_not_checked() {
        let mut facts = healthy();
        facts.firewall = None;
        facts.uplinks[0].programs = None;
        let report = diagnose(&facts);
        assert_eq!(report.findings, []);
        assert!(!report.checks_run.contains(&"no-masquerade"));
        assert!(!report.checks_run.contains(&"other-programs"));
        assert!(report.checks_run.contains(&"forwarding-off"));
    }
}
