//! Balance groups: whether their members share connections, and whether connections stay where they are.

use failover_policy::Family;

use super::{
    Finding,
    facts::{Facts, Uplink},
};
use crate::{config::UplinkConfig, doctor::Severity};

/// Values of `fib_multipath_hash_policy` that use addresses, but not ports (Documentation/networking/ip-sysctl.rst).
const ADDRESSES_ONLY: [u32; 2] = [0, 2];

/// The setting that the agent makes for a group was changed back, or the agent will not be able to make it.
pub(super) fn hash_policy(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for family in Family::ALL {
        let Some(hash) = facts.sharing.hash[family] else {
            continue;
        };
        let stays = facts.sharing.stands[family] || !hash.settable;
        if !stays || !ADDRESSES_ONLY.contains(&hash.value) || sharers(facts, family).is_empty() {
            continue;
        }
        let protocol = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        let key = format!("net.{protocol}.fib_multipath_hash_policy");
        let problem = format!(
            "{key} is {}: all {family} connections to one server leave by the same member of the balance group",
            hash.value
        );
        let mut cure = format!("sysctl -w {key}=1");
        if !hash.settable {
            cure += "  # it is read-only here: on the host, in the agent's network namespace";
        }
        findings.push(Finding::new(Severity::Warning, problem, cure).family(family));
    }
    Some(findings)
}

/// Only a plain multipath route is possible, which redistributes connections whenever a member leaves or joins; or a member gets no share.
pub(super) fn not_resilient(facts: &Facts) -> Option<Vec<Finding>> {
    const PLAIN: &str = "forwarded IPv4 connections of a balance group may move and end when another member leaves or joins";

    if sharers(facts, Family::V4).is_empty() {
        return Some(Vec::new());
    }
    let finding =
        |problem, cure: &str| Finding::new(Severity::Warning, problem, cure).family(Family::V4);
    if !facts.sharing.resilient {
        let problem = format!("this kernel has no resilient nexthop groups: {PLAIN}");
        return Some(vec![finding(problem, "use Linux 5.13 or newer")]);
    }
    let taken = facts.sharing.taken.iter();
    Some(
        taken
            .map(|object| {
                let problem = format!(
                    "{object} has a number that the agent needs: a member gets no IPv4, or {PLAIN}"
                );
                let cure =
                    "choose another `route.table`, from which the agent's numbers count, and stop and start the agent";
                finding(problem, cure)
            })
            .collect(),
    )
}

/// The kernel refuses an IPv6 multipath route with such a member (`ip6_route_multipath_add` in net/ipv6/route.c).
pub(super) fn without_gateway(facts: &Facts) -> Option<Vec<Finding>> {
    let sharers = sharers(facts, Family::V6).into_iter();
    Some(
        sharers
            .filter(|(_, uplink)| {
                let path = uplink.paths.v6.as_ref();
                path.is_some_and(|path| path.gateway.is_none())
            })
            .map(|(config, _)| {
                let problem = format!(
                    "{} has no IPv6 gateway, without which it gets no share of its balance group's IPv6",
                    config.interface
                );
                let cure = "write the router at its other end as its gateway6 = \"ADDRESS\", or give it a rank of its own";
                Finding::new(Severity::Warning, problem, cure)
                    .on(&config.name)
                    .family(Family::V6)
            })
            .collect(),
    )
}

/// The uplinks that have a family and share it with another uplink of their rank.
fn sharers(facts: &Facts, family: Family) -> Vec<(&UplinkConfig, &Uplink)> {
    let carriers = || {
        let uplinks = facts.uplinks();
        uplinks.filter(|(_, uplink)| uplink.paths[family].is_some())
    };
    let alike = |rank| carriers().filter(|(other, _)| other.rank == rank).count();
    carriers()
        .filter(|(config, _)| alike(config.rank) > 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use failover_policy::PerFamily;

    use super::{
        super::testing::{found, healthy, only},
        *,
    };
    use crate::doctor::diagnose;

    /// Both uplinks share both families.
    fn balanced() -> Facts {
        let mut facts = healthy();
        facts.config.uplinks[1].rank = facts.config.uplinks[0].rank;
        for uplink in &mut facts.uplinks {
            let mut path = uplink.paths.v4.clone().unwrap();
            path.gateway = Some("fe80::1".parse().unwrap());
            uplink.paths.v6 = Some(path);
        }
        facts
    }

    #[test]
    fn what_the_agent_will_set_itself_is_no_finding() {
        let mut facts = balanced();
        assert_eq!(diagnose(&facts).findings, []);
        // The agent has set it.
        facts.sharing.stands = PerFamily::both(true);
        for hash in facts.sharing.hash.values_mut().flatten() {
            hash.value = 1;
        }
        assert_eq!(diagnose(&facts).findings, []);
    }

    #[test]
    fn a_hash_policy_that_was_set_back_is_found_per_family() {
        let mut facts = balanced();
        facts.sharing.stands = PerFamily::new(false, true);
        let finding = only("group-hash-policy", &facts);
        assert_eq!(finding.family, Some(Family::V6));
        assert_eq!(
            finding.cure,
            "sysctl -w net.ipv6.fib_multipath_hash_policy=1"
        );
        // What an administrator has chosen may use ports as well.
        facts.sharing.hash.v6.as_mut().unwrap().value = 3;
        assert_eq!(found("group-hash-policy", &facts), []);
    }

    #[test]
    fn a_hash_policy_that_cannot_be_set_is_found_before_there_is_a_group() {
        let mut facts = balanced();
        facts.sharing.hash.v4.as_mut().unwrap().settable = false;
        let finding = only("group-hash-policy", &facts);
        assert_eq!(finding.family, Some(Family::V4));
        assert!(finding.cure.contains("on the host"), "{finding:?}");
        facts.uplinks[1].paths.v4 = None;
        assert_eq!(found("group-hash-policy", &facts), []);
    }

    #[test]
    fn a_plain_route_is_told_with_its_cause() {
        let mut facts = balanced();
        facts.sharing.taken = vec!["nexthop 13728 proto 3".to_owned()];
        let finding = only("group-not-resilient", &facts);
        assert!(finding.problem.contains("nexthop 13728"), "{finding:?}");
        facts.sharing.resilient = false;
        let finding = only("group-not-resilient", &facts);
        assert!(finding.cure.contains("5.13"), "{finding:?}");
    }

    #[test]
    fn an_ipv6_member_without_a_gateway_gets_no_share() {
        let mut facts = balanced();
        facts.uplinks[1].paths.v6.as_mut().unwrap().gateway = None;
        let finding = only("group-member-without-gateway", &facts);
        assert_eq!(finding.uplink.as_deref(), Some("lte"));
        // Alone it has nothing to share.
        facts.uplinks[0].paths.v6 = None;
        assert_eq!(found("group-member-without-gateway", &facts), []);
    }

    #[test]
    fn without_a_group_none_of_it_matters() {
        let mut facts = balanced();
        facts.config.uplinks[1].rank += 1;
        facts.sharing.stands = PerFamily::both(true);
        facts.sharing.resilient = false;
        facts.uplinks[1].paths.v6.as_mut().unwrap().gateway = None;
        assert_eq!(diagnose(&facts).findings, []);
    }
}
