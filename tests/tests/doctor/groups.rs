//! Balance groups: what keeps connections from being shared, and from staying where they are.

use failover_lab::{AgentConfig, Lab, Scenario, UplinkSpec};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, default_routes};

use super::diagnosis::{Diagnosis, apply, probed_both, problem};

/// A configuration in which all uplinks share connections.
fn balanced(lab: &Lab) -> AgentConfig {
    probed_both(lab).each_uplink(|uplink| uplink.rank(0))
}

#[test]
#[ignore = "needs root"]
fn a_hash_policy_that_was_set_back_and_a_number_that_was_taken_are_cured() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    let config = balanced(&lab);
    // The agent will set what is not set yet.
    Diagnosis::make(&lab, &config)?.assert_healthy();
    host.ip_batch("nexthop add id 13728 blackhole proto static")?;
    let diagnosis = Diagnosis::make(&lab, &config)?;
    let finding = diagnosis.only("group-not-resilient", "warning");
    assert!(problem(finding).contains("nexthop 13728"), "{finding}");
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");
    let moved = config.clone().table(14000);
    Diagnosis::make(&lab, &moved)?.assert_healthy();
    // Without a group nobody needs the number.
    Diagnosis::make(&lab, &probed_both(&lab))?.assert_healthy();
    host.ip_batch("nexthop del id 13728")?;

    let agent = lab.start_agent(&config)?;
    agent.wait_for_status("both are active", SOON, |status| {
        let uplinks = status["uplinks"].as_array().into_iter().flatten();
        let families =
            uplinks.flat_map(|uplink| ["ipv4", "ipv6"].map(|of| &uplink["families"][of]));
        let mut shares =
            families.map(|family| family["active"] == true && family["health"] == "Up");
        shares.all(|shares| shares)
    })?;
    Diagnosis::with(&lab, &[])?.assert_healthy();
    for (family, key) in [("ipv4", "net/ipv4"), ("ipv6", "net/ipv6")] {
        let key = format!("{key}/fib_multipath_hash_policy");
        assert_eq!(host.sysctl(&key)?, "1");
        host.set_sysctl(&key, "0")?;
        let diagnosis = Diagnosis::with(&lab, &[])?;
        let finding = diagnosis.only("group-hash-policy", "warning");
        assert_eq!(finding["family"], family);
        apply(&lab, finding)?;
        assert_eq!(host.sysctl(&key)?, "1");
        Diagnosis::with(&lab, &[])?.assert_healthy();
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_member_without_an_ipv6_gateway_gets_its_share_with_one() -> Scenario {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    let config = balanced(&lab);
    let diagnosis = Diagnosis::make(&lab, &config)?;
    let finding = diagnosis.only("group-member-without-gateway", "warning");
    assert_eq!(finding["uplink"], "lte");
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");

    let config = config.uplink("lte", |lte| lte.gateway6("fe80::1"));
    Diagnosis::make(&lab, &config)?.assert_healthy();
    // The cure works.
    let _agent = lab.start_agent(&config)?;
    failover_lab::wait_until("both share IPv6", SOON, || {
        let routes = default_routes(&lab, Family::V6);
        routes.is_ok_and(|routes| routes.iter().any(|route| route.interface == "cable,lte"))
    })?;
    Ok(())
}
