//! A DHCP client's leases: a new address or gateway is followed without a switch, an end is an end.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6};
use failover_policy::Family;
use failover_tests::fixtures::{
    history,
    json::{uplink, wait_health},
    rule_sources, times, wait_for_probes,
};

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn a_new_address_and_gateway_are_followed_without_a_switch() -> Scenario {
    let lab = Lab::builder().build()?;
    let cable = lab.uplink("cable");
    cable
        .provider()
        .ip_batch("address add 10.64.1.129/32 dev customer")?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;

    // As clients do: what was leased goes first, and for a moment there is nothing. The second moment is long enough to be noticed.
    let leases = [
        ("10.64.1.130", 25, "10.64.1.129"),
        ("10.64.1.2", 24, "10.64.1.1"),
    ];
    let mut old = "10.64.1.2/24".to_owned();
    for ((address, length, gateway), gap) in leases.into_iter().zip([20, 100]) {
        ip(&lab, &format!("address del {old} dev cable"))?;
        sleep(Duration::from_millis(gap));
        old = format!("{address}/{length}");
        ip(
            &lab,
            &format!(
                "address add {old} dev cable\n\
                 route add default via {gateway} dev cable proto dhcp metric 5000"
            ),
        )?;
        wait_way(&agent, "cable", "ipv4", Some(gateway), address)?;
        wait_best_route(&lab, Family::V4, "cable", Some(gateway))?;
        assert_eq!(rule_sources(&lab, Family::V4)?, [address, "10.64.2.2"]);
        assert!(is_stale(&lab, &agent, "lte", address.parse()?, TARGET_V4)?);
        wait_for_probes(&agent, &["cable"], 20)?;
        wait_ready(&agent, "cable", &["lte"])?;
    }
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_new_gateway_takes_the_old_ones_place_at_once() -> Scenario {
    let lab = with_two_gateways()?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    let monitor = lab.host().watch_default_routes_v4()?;
    for gateway in ["10.64.1.254", "10.64.1.1", "10.64.1.254"] {
        let route = format!("route replace default via {gateway} dev cable proto dhcp metric 900");
        ip(&lab, &route)?;
        wait_way(&agent, "cable", "ipv4", Some(gateway), "10.64.1.2")?;
        wait_best_route(&lab, Family::V4, "cable", Some(gateway))?;
    }
    // There was no instant without a default route.
    let seen = monitor.finish()?;
    assert!(seen.iter().all(Option::is_some), "{seen:?}");
    wait_ready(&agent, "cable", &["lte"])?;
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_lease_that_ends_and_a_route_that_is_withdrawn_are_the_end() -> Scenario {
    let lab = with_metric()?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    // The address stays: nobody but the route's owner says that there is no egress path.
    ip(&lab, "route del default dev cable proto dhcp metric 900")?;
    wait_ready(&agent, "lte", &[])?;
    wait_health(&agent, "cable", "Down")?;
    ip(
        &lab,
        "route add default via 10.64.1.1 dev cable proto dhcp metric 900",
    )?;
    wait_ready(&agent, "cable", &["lte"])?;
    // The address goes, and with it everything else.
    ip(&lab, "address del 10.64.1.2/24 dev cable")?;
    wait_ready(&agent, "lte", &[])?;
    ip(&lab, "address add 10.64.1.2/24 dev cable")?;
    wait_for_probes(&agent, &["lte"], 20)?;
    assert_eq!(uplink(&agent.status_json()?, "cable")["health"], "Down");
    ip(
        &lab,
        "route add default via 10.64.1.1 dev cable proto dhcp metric 900",
    )?;
    wait_ready(&agent, "cable", &["lte"])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_addresses_of_a_renamed_interface_are_stale_elsewhere() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    let lte = lab.uplink("lte");
    let ensure_stale = || -> Result<()> {
        for (source, target) in [(lte.host_v4(), TARGET_V4), (lte.host_v6(), TARGET_V6)] {
            assert!(is_stale(&lab, &agent, "cable", source, target)?, "{source}");
        }
        Ok(())
    };
    let renamed = lte.renamed()?;
    wait_words(&agent, &["lte: IPv6 egress path lost"])?;
    ensure_stale()?;
    // A look for whatever may have moved changes nothing.
    agent.verb(&["reload"])?;
    wait_for_probes(&agent, &["cable"], 10)?;
    ensure_stale()?;
    assert_eq!(lab.uplink("cable").foreign_packets()?, 0);
    renamed.repair()?;
    wait_ready(&agent, "cable", &["lte"])?;
    ensure_stale()?;

    // Another interface that has them is not the uplink's.
    ip(&lab, "address flush dev lte scope global")?;
    wait_words(&agent, &["lte: IPv4 egress path lost"])?;
    ip(
        &lab,
        &format!(
            "address add {}/32 dev lo\n\
             address add {}/128 dev lo nodad",
            lte.host_v4(),
            lte.host_v6()
        ),
    )?;
    agent.verb(&["reload"])?;
    wait_for_probes(&agent, &["cable"], 10)?;
    assert!(!is_stale(&lab, &agent, "cable", lte.host_v6(), TARGET_V6)?);
    Ok(())
}
