//! Links without a gateway: everything is on the link, and the address may be another interface's.

use std::net::Ipv6Addr;

use anyhow::Result;
use failover_policy::Family;
use failover_tests::fixtures::{
    SOON, ensure_cut,
    json::{uplink, wait_health},
    rule_sources, target,
};

use failover_lab::{Lab, Scenario, TARGET_V6, UplinkSpec};
use serde_json::Value;

use super::fixtures::*;

/// Up, failover by it, failback to it, and its gate.
fn works(lab: &Lab, family: Family) -> Result<()> {
    let agent = lab.start_agent(&config(lab).targets([target(family)]))?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_best_route(lab, family, "cable", None)?;
    assert!(uplink(&agent.status_json()?, "cable")["gateway"].is_null());
    let stream = lab.host().udp_stream(target(family)).start()?;
    stream.wait_for_echo_by("cable", std::time::Instant::now(), SOON)?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_ready(&agent, "lte", &[])?;
    stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    fault.repair()?;
    wait_health(&agent, "cable", "Up")?;
    wait_ready(&agent, "cable", &["lte"])?;
    stream.wait_for_echo_by("cable", std::time::Instant::now(), SOON)?;
    agent.verb(&["switch", "lte"])?;
    wait_ready(&agent, "lte", &["cable"])?;
    ensure_cut(lab, &agent, "cable", target(family))?;
    Ok(())
}

fn lab(cable: UplinkSpec) -> Result<Lab> {
    Lab::builder()
        .uplinks([cable, UplinkSpec::veth("lte")])
        .build()
}

/// `cable` has no IPv6 address but a link-local one, which leads nowhere beyond the link, and a default route that says this.
fn unnumbered_in_ipv6(said: &str) -> Result<Lab> {
    let lab = lab(UplinkSpec::tun("cable").without_default_routes())?;
    ip(
        &lab,
        &format!(
            "address flush dev cable scope global\n\
             address add fe80::64/64 dev cable nodad\n\
             address add 2001:db8:1::2/128 dev lo nodad\n\
             route add ::/0 dev cable {said} metric 5000"
        ),
    )?;
    Ok(lab)
}

#[test]
#[ignore = "needs root"]
fn a_default_route_of_link_scope_on_ethernet() -> Scenario {
    let lab = lab(UplinkSpec::veth("cable"))?;
    // The provider answers ARP for everything.
    let provider = lab.uplink("cable").provider();
    provider.set_sysctl("net/ipv4/conf/customer/proxy_arp", "1")?;
    ip(
        &lab,
        "route del default dev cable\n\
         route add default dev cable scope link metric 5000",
    )?;
    works(&lab, Family::V4)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_point_to_point_link_with_and_without_a_default_route() -> Scenario {
    for route in [None, Some("link"), Some("host")] {
        let lab = lab(UplinkSpec::tun("cable").without_default_routes())?;
        if let Some(scope) = route {
            ip(
                &lab,
                &format!("route add default dev cable scope {scope} metric 5000"),
            )?;
        }
        works(&lab, Family::V4)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_unnumbered_link_borrows_its_source() -> Scenario {
    for said in ["src 10.64.1.2", ""] {
        let lab = lab(UplinkSpec::tun("cable").without_default_routes())?;
        ip(
            &lab,
            &format!(
                "address flush dev cable scope global\n\
                 address add 10.64.1.2/32 dev lo\n\
                 route add default dev cable {said} metric 5000"
            ),
        )?;
        works(&lab, Family::V4)?;
        // It is not the uplink's address: nothing is cut because of it.
        assert_eq!(rule_sources(&lab, Family::V4)?, ["10.64.2.2"]);
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_unnumbered_link_has_one_source_for_every_destination() -> Scenario {
    /// More alike to the other uplink's address than to the borrowed one (RFC 6724, 5, rule 8).
    const ALIKE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1);

    let lab = unnumbered_in_ipv6("")?;
    let internet = lab.internet().namespace();
    internet.ip_batch(&format!("address add {ALIKE}/128 dev lo nodad"))?;
    let agent = lab.start_agent(&config_v6(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_best_route(&lab, Family::V6, "cable", None)?;
    for target in [TARGET_V6, ALIKE.into()] {
        let answer = lab.host().ping(target, SOON)?;
        assert!(answer.is_some(), "{target} does not answer");
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_unnumbered_link_borrows_its_source_in_ipv6_too() -> Scenario {
    for said in ["src 2001:db8:1::2", ""] {
        let lab = unnumbered_in_ipv6(said)?;
        works(&lab, Family::V6)?;
        assert_eq!(rule_sources(&lab, Family::V6)?, ["2001:db8:2::2"]);
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_uplink_that_was_renamed_lends_no_address() -> Scenario {
    let lab = lab(UplinkSpec::tun("cable").without_default_routes())?;
    let agent = lab.start_agent(&config_dual(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    let renamed = lab.uplink("lte").renamed()?;
    ip(
        &lab,
        "address flush dev cable scope global\n\
         route add default dev cable metric 5000\n\
         route add ::/0 dev cable metric 5000",
    )?;
    let lost = |status: &Value, family: &str| {
        let state = &uplink(status, "cable")["families"][family];
        state.is_null() || state["source"].is_null()
    };
    let wait_lost = || {
        agent.wait_for_status("cable without a source", SOON, |status| {
            ["ipv4", "ipv6"].iter().all(|family| lost(status, family))
        })
    };
    let before = wait_lost()?["agent"]["started"].clone();
    agent.verb(&["restart"])?;
    agent.wait_for_status("a new start", SOON, |status| {
        status["agent"]["started"] != before
    })?;
    wait_lost()?;
    assert_eq!(lab.uplink("cable").foreign_packets()?, 0);

    // What is no uplink's is lent.
    ip(
        &lab,
        "address add 10.64.1.2/32 dev lo\n\
         address add 2001:db8:1::2/128 dev lo nodad",
    )?;
    agent.verb(&["reload"])?;
    wait_way(&agent, "cable", "ipv4", None, "10.64.1.2")?;
    wait_health(&agent, "cable", "Up")?;
    renamed.repair()?;
    wait_health(&agent, "lte", "Up")?;
    assert_eq!(lab.uplink("cable").foreign_packets()?, 0);
    Ok(())
}
