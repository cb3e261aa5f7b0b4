//! DHCP clients and network managers that configure both uplinks, and whose leases change.

use std::time::Instant;

use anyhow::{Result, ensure};
use failover_lab::{
    Lab, Scenario, TARGET_V4, UplinkSpec,
    daemon::{ClientKind, DhcpClient, DhcpServer, Lease, System},
    wait_for,
};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    SOON, history, rule_sources, stop, wait_for_health, wait_for_history,
};

use super::fixtures::{
    ifindex, owner_in_datapath, routes, start_agent, wait_for_answers, wait_for_next_hop_of,
    wait_for_routes,
};

/// A metric that beats ours, and one that does not.
const BETTER: u32 = 10;
const WORSE: u32 = 2000;

#[test]
#[ignore = "needs root"]
fn dhclient_is_followed() -> Scenario {
    leases_are_followed(ClientKind::Dhclient)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn udhcpc_is_followed() -> Scenario {
    leases_are_followed(ClientKind::Udhcpc)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn dhcpcd_is_followed() -> Scenario {
    leases_are_followed(ClientKind::Dhcpcd)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn systemd_networkd_is_followed() -> Scenario {
    leases_are_followed(ClientKind::Networkd)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn network_manager_is_followed() -> Scenario {
    leases_are_followed(ClientKind::NetworkManager)?;
    Ok(())
}

/// The client's routes are learned; those that beat ours make way and come back in the end; new leases are followed.
fn leases_are_followed(kind: ClientKind) -> Result<()> {
    let bare = |name| UplinkSpec::veth(name).without_ipv4().without_ipv6();
    let lab = Lab::builder().uplinks(["cable", "lte"].map(bare)).build()?;
    let [cable, lte] = ["cable", "lte"].map(|name| lab.uplink(name).clone());
    let at_cable = DhcpServer::start(&cable, Lease::usual(&cable))?;
    let at_lte = DhcpServer::start(&lte, Lease::usual(&lte))?;
    let system = System::new(lab.host().namespace())?;
    let (better, clients) = match kind {
        // Its script knows no metrics: all its routes would have 0, and the second one would be refused.
        ClientKind::Udhcpc => {
            let other = DhcpClient::start(ClientKind::Dhclient, &system, &[("lte", WORSE)])?;
            let udhcpc = DhcpClient::start(kind, &system, &[("cable", 0)])?;
            (0, vec![udhcpc, other])
        }
        _ => {
            let interfaces = [("cable", BETTER), ("lte", WORSE)];
            let client = DhcpClient::start(kind, &system, &interfaces)?;
            (BETTER, vec![client])
        }
    };
    let hurry = || clients.iter().try_for_each(DhcpClient::hurry);
    let theirs = |cable: Lease, lte: Lease| {
        [
            format!("cable {} {better}", cable.gateway),
            format!("lte {} {WORSE}", lte.gateway),
        ]
    };
    let ours = |cable: Lease, lte: Lease| {
        [
            format!("cable {} 80", cable.gateway),
            format!("lte {} 5001", lte.gateway),
        ]
    };
    let leases = (Lease::usual(&cable), Lease::usual(&lte));
    let before = theirs(leases.0, leases.1);
    wait_for_routes(&lab, Family::V4, &[], &before)?;

    let agent = start_agent(&lab, &[Family::V4])?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    for (name, lease) in [("cable", leases.0), ("lte", leases.1)] {
        wait_for_next_hop_of(&agent, name, lease.gateway.into(), lease.address.into())?;
    }
    wait_for_routes(&lab, Family::V4, &ours(leases.0, leases.1), &before[1..])?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;

    // The active uplink keeps its address and gets another gateway, the standby gets another of both. ISC's script ignores a gateway that
    // comes with the same address.
    let leases = match kind {
        ClientKind::Dhclient => (leases.0, Lease::other(&lte)),
        _ => (Lease::with_other_gateway(&cable), Lease::other(&lte)),
    };
    at_cable.offer(leases.0)?;
    at_lte.offer(leases.1)?;
    hurry()?;
    follow(&lab, &agent, "cable", leases.0)?;
    follow(&lab, &agent, "lte", leases.1)?;
    wait_for_answers(&agent, Family::V4, &["cable", "lte"])?;
    wait_for_routes(
        &lab,
        Family::V4,
        &ours(leases.0, leases.1),
        &theirs(leases.0, leases.1)[1..],
    )?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);

    // Now the active one gets another address. The client takes the old one away first: whether the uplink counts as Down in between, and is
    // left for that time, is a question of milliseconds.
    let leases = (Lease::other(&cable), leases.1);
    at_cable.offer(leases.0)?;
    hurry()?;
    follow(&lab, &agent, "cable", leases.0)?;
    wait_for_answers(&agent, Family::V4, &["cable", "lte"])?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    let switches = history(&agent, Family::V4);
    ensure!(
        switches.len() <= 3 && switches.last().is_some_and(|last| last.ends_with(" cable")),
        "{switches:?}"
    );
    wait_for_routes(
        &lab,
        Family::V4,
        &ours(leases.0, leases.1),
        &theirs(leases.0, leases.1)[1..],
    )?;

    stop(agent)?;
    let restored = (Vec::new(), theirs(leases.0, leases.1).to_vec());
    assert_eq!(routes(&lab, Family::V4)?, restored);
    Ok(())
}

/// Waits until the agent, its rules and its programs know an uplink by its new lease.
fn follow(lab: &Lab, agent: &failover_lab::AgentProcess, name: &str, lease: Lease) -> Result<()> {
    wait_for_next_hop_of(agent, name, lease.gateway.into(), lease.address.into())?;
    let usual = Lease::usual(lab.uplink(name)).address;
    let ifindex = ifindex(lab, name)?;
    let what = format!("rules and programs know {name} by {}", lease.address);
    wait_for(&what, SOON, || {
        let sources = rule_sources(lab, Family::V4)?;
        let known = |address: &std::net::Ipv4Addr| sources.contains(&address.to_string());
        let owners = (
            owner_in_datapath(lab, lease.address)?,
            owner_in_datapath(lab, usual)?,
        );
        let stale = usual != lease.address && (known(&usual) || owners.1 == Some(ifindex));
        ensure!(
            known(&lease.address) && owners.0 == Some(ifindex) && !stale,
            "rules from {sources:?}; owners {owners:?}, {name} is {ifindex}"
        );
        Ok::<_, anyhow::Error>(())
    })
}
