//! IPv6 addresses that another host on the link has, found by the kernel's own duplicate address detection.

use std::time::{Duration, Instant};

use anyhow::Result;
use failover_lab::{AgentConfig, Lab, Scenario, wait_until};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    SOON, has_health, history, message, rule_sources, state, wait_for_health, wait_for_history,
    wait_for_status,
};

use super::fixtures::*;

/// What the host believes to have, and a neighbour on cable's link has.
const TAKEN: &str = "2001:db8:1::66";
/// What nobody else has.
const FREE: &str = "2001:db8:1::67";

/// Of [`slow`] probes.
const INTERVAL: Duration = Duration::from_secs(3);
/// What a busy machine may take for an answer: less than another interval.
const BUSY: Duration = Duration::from_secs(2);

/// Few probes, the first good one of which counts.
fn slow(lab: &Lab) -> AgentConfig {
    config_dual(lab)
        .interval(INTERVAL)
        .timeout(Duration::from_secs(2))
        .rise(1)
}

/// A laboratory in which the kernel checks addresses on cable, where a neighbour has [`TAKEN`].
fn lab() -> Result<Lab> {
    let lab = Lab::builder().build()?;
    // The neighbour is the provider's router, by another address.
    let neighbour = lab.uplink("cable").provider();
    neighbour.ip_batch(&format!("address add {TAKEN}/64 dev customer nodad"))?;
    let host = lab.host().namespace();
    host.set_sysctl("net/ipv6/conf/cable/accept_dad", "1")?;
    ip(&lab, "address del 2001:db8:1::2/64 dev cable")?;
    Ok(lab)
}

/// Waits until the host's addresses on cable in a state are there, or are not.
fn wait_for_addresses(lab: &Lab, state: &str, present: bool) -> Result<()> {
    let host = lab.host().namespace();
    let show = ["-6", "address", "show", "dev", "cable", state];
    wait_until(&format!("{state} addresses: {present}"), SOON, || {
        let list = host.exec("ip", &show);
        list.is_ok_and(|list| list.contains("inet6 2001:") == present)
    })
}

/// Gives the host the address that another host has, and lets the kernel find out.
fn take(lab: &Lab) -> Result<()> {
    ip(lab, &format!("address add {TAKEN}/64 dev cable"))?;
    wait_for_addresses(lab, "dadfailed", true)
}

#[test]
#[ignore = "needs root"]
fn an_uplink_is_not_probed_from_an_address_that_another_host_has() -> Scenario {
    let lab = lab()?;
    take(&lab)?;
    let dirs = lab.agent_dirs();
    let file = dirs.scratch.join("cable.pcap");
    let echo = "icmp6 and ip6[40] == 128";
    let capture = lab.uplink("cable").capture(echo, &file)?;
    let agent = lab.start_agent(&slow(&lab))?;
    wait_words(&agent, &["WARN", "cable", TAKEN, "another host"])?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_history(&agent, Family::V6, &["start-up lte"])?;
    let status = wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    assert!(has_health(&status, "cable", Family::V4, Health::Up));
    let unusable = state(&status, "cable", Family::V6);
    assert!(
        unusable.is_none_or(|state| state.health != Health::Up && state.source.is_none()),
        "{unusable:?}"
    );
    assert!(!rule_sources(&lab, Family::V6)?.contains(&TAKEN.to_owned()));

    // A good one takes over as soon as the kernel has checked it.
    ip(&lab, &format!("address add {FREE}/64 dev cable"))?;
    wait_for_status(&agent, "the good address in use", |status| {
        let source = state(status, "cable", Family::V6).and_then(|state| state.source);
        source.is_some_and(|source| source.to_string() == FREE)
    })?;
    let usable = Instant::now();
    wait_for_health(&agent, "cable", Family::V6, Health::Up)?;
    let waited = usable.elapsed();
    assert!(
        waited < INTERVAL + BUSY,
        "the first answer came after {waited:?}"
    );
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    let probes = capture.finish()?;
    assert!(probes.count(&format!("{echo} and src host {FREE}"))? > 0);
    assert_eq!(probes.count(&format!("{echo} and not src host {FREE}"))?, 0);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_address_that_another_host_takes_later_is_reported_once_and_given_up() -> Scenario {
    let lab = lab()?;
    ip(&lab, &format!("address add {FREE}/64 dev cable"))?;
    wait_for_addresses(&lab, "tentative", false)?;
    let quick = config_dual(&lab).interval(Duration::from_millis(100));
    let agent = lab.start_agent(&quick)?;
    for family in Family::ALL {
        wait_for_history(&agent, family, &["start-up cable"])?;
        wait_for_health(&agent, "lte", family, Health::Up)?;
    }
    take(&lab)?;
    let told = || {
        let log = agent.log();
        let lines = log.iter().filter(|line| message(line).contains(TAKEN));
        lines.count()
    };
    wait_words(&agent, &["WARN", "cable", TAKEN, "another host"])?;
    // The one that it has stays in use.
    assert_eq!(history(&agent, Family::V6), ["start-up cable"]);
    ip(&lab, &format!("address del {FREE}/64 dev cable"))?;
    wait_for_history(&agent, Family::V6, &["start-up cable", "failover lte"])?;
    ip(&lab, &format!("address add {FREE}/64 dev cable"))?;
    wait_for_history(
        &agent,
        Family::V6,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    assert_eq!(told(), 1, "it is told once");
    Ok(())
}
