//! Managers that put back a route of theirs that beats ours: the agent wins, without a fight that costs either of them much.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use failover_lab::{
    Lab, Scenario, TARGET_V4, UplinkSpec,
    daemon::{ClientKind, DhcpClient, DhcpServer, Lease, System},
};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{SOON, history, stop, wait_for_health, wait_for_history};

use super::fixtures::{start_agent, wait_for_routes};

/// How long the conflict lasts: longer than several of the pauses that the agent makes between two looks at contested routes.
const CONFLICT: Duration = Duration::from_secs(6);

/// At most so many changes a second: the other's route comes and goes, ours are confirmed or put back.
const CHANGES_PER_SECOND: usize = 6;

#[test]
#[ignore = "needs root"]
fn dhcpcd_that_puts_its_route_back_at_each_renewal_does_not_win() -> Scenario {
    // It renews every 3 s by itself.
    conflict(ClientKind::Dhcpcd, |_| Ok(()))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn network_manager_that_is_told_to_reapply_does_not_win() -> Scenario {
    conflict(ClientKind::NetworkManager, |client| {
        client.network_manager().reapply("lte")
    })?;
    Ok(())
}

/// `insist` has the client put its routes back, again and again.
fn conflict(kind: ClientKind, insist: impl Fn(&DhcpClient) -> Result<()>) -> Result<()> {
    let uplinks = [
        UplinkSpec::veth("cable"),
        // An interface with an address NetworkManager leaves to whoever gave it that.
        UplinkSpec::veth("lte").without_ipv4().without_ipv6(),
    ];
    let lab = Lab::builder().uplinks(uplinks).build()?;
    let lease = Lease::usual(lab.uplink("lte"));
    let _server = DhcpServer::start(lab.uplink("lte"), lease)?;
    let system = System::new(lab.host().namespace())?;
    // The standby's route would take all traffic.
    let client = DhcpClient::start(kind, &system, &[("lte", 10)])?;
    let cable = lab.uplink("cable").addresses().gateway_v4;
    let theirs = [
        format!("cable {cable} 5000"),
        format!("lte {} 10", lease.gateway),
    ];
    wait_for_routes(&lab, Family::V4, &[], &theirs)?;
    let agent = start_agent(&lab, &[Family::V4])?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    let ours = [
        format!("cable {cable} 80"),
        format!("lte {} 5001", lease.gateway),
    ];
    wait_for_routes(&lab, Family::V4, &ours, &[])?;

    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    let monitor = lab.host().watch_default_routes_v4()?;
    let begun = Instant::now();
    while begun.elapsed() < CONFLICT {
        insist(&client)?;
        thread::sleep(Duration::from_millis(200));
    }
    let seconds = usize::try_from(begun.elapsed().as_secs())? + 1;
    let changes = monitor.changes();
    ensure!(changes > 0, "it did not put its route back");
    ensure!(
        changes <= CHANGES_PER_SECOND * seconds,
        "{changes} changes of default routes in {seconds} s"
    );
    // When it has no more to say, or between two of its renewals.
    wait_for_routes(&lab, Family::V4, &ours, &[])?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    // The gate holds while the other's route leads to the standby.
    assert_eq!(stream.stop()?.path(), ["cable"]);
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    stop(agent)
}
