//! An uplink that has neither address nor gateway when the agent starts: it is waited for, and a DHCP client brings both.

use anyhow::Result;
use failover_lab::{
    Lab, Scenario, UplinkSpec,
    daemon::{ClientKind, DhcpClient, DhcpServer, Lease, System},
};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{state, status, stop, wait_for_health, wait_for_history};

use super::fixtures::{start_agent, wait_for_answers, wait_for_next_hop_of, wait_for_routes};

#[test]
#[ignore = "needs root"]
fn dhclient_may_come_late() -> Scenario {
    a_client_may_come_late(ClientKind::Dhclient)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn udhcpc_may_come_late() -> Scenario {
    a_client_may_come_late(ClientKind::Udhcpc)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn dhcpcd_may_come_late() -> Scenario {
    a_client_may_come_late(ClientKind::Dhcpcd)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn systemd_networkd_may_come_late() -> Scenario {
    a_client_may_come_late(ClientKind::Networkd)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn network_manager_may_come_late() -> Scenario {
    a_client_may_come_late(ClientKind::NetworkManager)?;
    Ok(())
}

fn a_client_may_come_late(kind: ClientKind) -> Result<()> {
    let uplinks = [
        UplinkSpec::veth("cable").without_ipv4().without_ipv6(),
        UplinkSpec::veth("lte").without_ipv6(),
    ];
    let lab = Lab::builder().uplinks(uplinks).build()?;
    let agent = start_agent(&lab, &[Family::V4])?;
    wait_for_history(&agent, Family::V4, &["start-up lte"])?;
    let waiting = status(&agent)?;
    let cable = state(&waiting, "cable", Family::V4);
    assert!(
        cable.is_none_or(|cable| cable.health != Health::Up && cable.gateway.is_none()),
        "{waiting:#?}"
    );

    let lease = Lease::usual(lab.uplink("cable"));
    let _server = DhcpServer::start(lab.uplink("cable"), lease)?;
    let system = System::new(lab.host().namespace())?;
    // udhcpc's is 0 in any case.
    let _client = DhcpClient::start(kind, &system, &[("cable", 10)])?;
    wait_for_next_hop_of(&agent, "cable", lease.gateway.into(), lease.address.into())?;
    wait_for_health(&agent, "cable", Family::V4, Health::Up)?;
    wait_for_history(&agent, Family::V4, &["start-up lte", "failback cable"])?;
    wait_for_answers(&agent, Family::V4, &["cable", "lte"])?;
    let lte = lab.uplink("lte").addresses().gateway_v4;
    wait_for_routes(
        &lab,
        Family::V4,
        &[
            format!("cable {} 80", lease.gateway),
            format!("lte {lte} 5001"),
        ],
        &[],
    )?;
    stop(agent)?;
    let metric = if kind == ClientKind::Udhcpc { 0 } else { 10 };
    wait_for_routes(
        &lab,
        Family::V4,
        &[],
        &[
            format!("cable {} {metric}", lease.gateway),
            format!("lte {lte} 5001"),
        ],
    )
}
