//! Temporary addresses (RFC 8981) that the host makes itself of a real router's advertisements.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use failover_lab::{
    LINK_LOCAL_GATEWAY, Lab, Scenario, TARGET_V6,
    daemon::{Advertisement, Router},
    wait_until,
};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    SOON, counters, history, rule_sources, stop, times, wait_for_health, wait_for_history,
};

use super::fixtures::{
    ipv6_by_advertisements, prefix, start_agent, wait_for_answers, wait_for_next_hop_of,
};

/// A new address every few seconds, which is deprecated after 6 and gone after 12 (Documentation/networking/ip-sysctl.rst).
const SHORT_LIVED: [(&str, &str); 4] = [
    ("temp_prefered_lft", "6"),
    ("temp_valid_lft", "12"),
    ("max_desync_factor", "0"),
    ("regen_min_advance", "0"),
];

/// A laboratory with real routers whose host has a temporary address on cable that it prefers for new connections.
fn lab(settings: &[(&str, &str)]) -> Result<(Lab, [Router; 2])> {
    let lab = ipv6_by_advertisements()?;
    let host = lab.host().namespace();
    for (key, value) in settings {
        host.set_sysctl(&format!("net/ipv6/conf/cable/{key}"), value)?;
    }
    host.set_sysctl("net/ipv6/conf/cable/use_tempaddr", "2")?;
    let start = |name| {
        let uplink = lab.uplink(name);
        let advertisement = Advertisement::of(LINK_LOCAL_GATEWAY, prefix(uplink, 0));
        Router::start(uplink, &advertisement)
    };
    let routers = [start("cable")?, start("lte")?];
    wait_until("cable has a temporary address", SOON, || {
        temporary(&lab).is_ok_and(|addresses| !addresses.is_empty())
    })?;
    wait_until("lte has an address", SOON, || {
        addresses(&lab, "lte", "-temporary").is_ok_and(|addresses| !addresses.is_empty())
    })?;
    Ok((lab, routers))
}

/// The global IPv6 addresses of an interface that `ip` selects by these words.
fn addresses(lab: &Lab, name: &str, words: &str) -> Result<Vec<Ipv6Addr>> {
    let show = [
        "-j", "-6", "address", "show", "dev", name, "scope", "global",
    ];
    let mut arguments = show.to_vec();
    arguments.extend(words.split(' '));
    let links = lab.host().namespace().exec_json("ip", &arguments)?;
    let links = links.as_array().context("no list of links")?;
    let addresses = links.iter().flat_map(|link| link["addr_info"].as_array());
    let addresses = addresses.flatten();
    Ok(addresses
        .filter_map(|address| address["local"].as_str()?.parse().ok())
        .collect())
}

/// Those that new connections by cable have.
fn temporary(lab: &Lab) -> Result<Vec<Ipv6Addr>> {
    addresses(lab, "cable", "temporary -deprecated")
}

/// The one that probes and rules are to outlive.
fn public(lab: &Lab) -> Result<IpAddr> {
    let public = addresses(lab, "cable", "-temporary")?;
    Ok((*public.first().context("no address of its own")?).into())
}

#[test]
#[ignore = "needs root"]
fn probes_leave_by_the_lasting_address_and_connections_of_the_temporary_one_are_cut() -> Result<()>
{
    let (lab, _routers) = lab(&[])?;
    let agent = start_agent(&lab, &[Family::V6])?;
    wait_for_history(&agent, Family::V6, &["start-up cable"])?;
    wait_for_health(&agent, "lte", Family::V6, Health::Up)?;
    let public = public(&lab)?;
    wait_for_next_hop_of(&agent, "cable", LINK_LOCAL_GATEWAY.into(), public)?;

    let connection = lab
        .host()
        .tcp_stream(TARGET_V6, Duration::from_millis(20))?;
    connection.wait_received_after(Instant::now(), SOON)?;
    let seen = lab.servers().connections();
    let source = seen.last().context("no connection")?.source.ip();
    let temporary = temporary(&lab)?;
    assert!(
        temporary.iter().any(|address| source == *address),
        "{source} of {temporary:?}"
    );
    let sources = rule_sources(&lab, Family::V6)?;
    for address in [public, source] {
        assert!(sources.contains(&address.to_string()), "{sources:?}");
    }

    agent.verb(&["switch", "lte"])?;
    wait_for_history(&agent, Family::V6, &["start-up cable", "manual lte"])?;
    connection.wait_ended(SOON)?;
    stop(agent)
}

#[test]
#[ignore = "needs root"]
fn temporary_addresses_come_and_go_without_a_word() -> Scenario {
    let (lab, _routers) = lab(&SHORT_LIVED)?;
    let agent = start_agent(&lab, &[Family::V6])?;
    wait_for_history(&agent, Family::V6, &["start-up cable"])?;
    wait_for_health(&agent, "lte", Family::V6, Health::Up)?;
    let public = public(&lab)?;
    let first = *temporary(&lab)?.first().context("no temporary address")?;
    let ruled = |address: Ipv6Addr| {
        rule_sources(&lab, Family::V6).is_ok_and(|sources| sources.contains(&address.to_string()))
    };
    wait_until("the first has a rule", SOON, || ruled(first))?;
    // A successor is there before the first is deprecated, and both are while it is.
    wait_until("another has a rule, too", SOON, || {
        let other = |address: &Ipv6Addr| *address != first && ruled(*address);
        ruled(first) && temporary(&lab).is_ok_and(|addresses| addresses.iter().any(other))
    })?;
    wait_until("the first is gone with its rule", SOON, || !ruled(first))?;
    assert!(!addresses(&lab, "cable", "temporary")?.contains(&first));

    wait_for_next_hop_of(&agent, "cable", LINK_LOCAL_GATEWAY.into(), public)?;
    wait_for_answers(&agent, Family::V6, &["cable", "lte"])?;
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, Family::V6), ["start-up cable"]);
    assert_eq!(counters(&agent, "cable")?.stale_cut, 0);
    stop(agent)?;
    Ok(())
}
