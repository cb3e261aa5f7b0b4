//! Failover and failback as traffic sees them.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_lab::{Lab, Scenario, TARGET_V4, TcpClient, paced};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{SOON, wait_for_health, wait_for_history};

use super::fixtures::{Settings, check_active};

/// By which uplink the newest connection has come to the internet.
fn newest_connection(lab: &Lab) -> Option<String> {
    let connections = lab.servers().connections();
    Some(connections.last()?.uplink.as_deref()?.to_owned())
}

/// A new connection of the client behind the host, which comes by `uplink`.
fn connect(lab: &Lab, uplink: &str) -> Result<TcpClient> {
    let client = lab.client().tcp_stream(TARGET_V4, paced(10))?;
    client.wait_received_after(Instant::now(), SOON)?;
    assert_eq!(newest_connection(lab).as_deref(), Some(uplink));
    Ok(client)
}

/// The server does not know a connection from a new address, and says so; the client behind the NAT learns it at once.
fn ends_by_reset(client: &TcpClient) -> Result<()> {
    let ended = client.wait_ended(SOON)?;
    let kind = ended.error.map(|error| error.kind);
    assert_eq!(kind, Some(ErrorKind::ConnectionReset));
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn traffic_fails_over_and_back_and_there_is_always_a_default_route() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let monitor = lab.host().watch_default_routes_v4()?;
    let monitor_v6 = lab.host().watch_default_routes_v6()?;
    let agent = lab.start_agent(&Settings::default().config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_history(&agent, Family::V6, &["follow cable"])?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    check_active(&lab, &agent, Family::V4, "cable")?;

    let host = lab.host().udp_stream(TARGET_V4).start()?;
    let client = lab.client().udp_stream(TARGET_V4).start()?;
    for stream in [&host, &client] {
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    }
    let connection = connect(&lab, "cable")?;

    let fault = lab.uplink("cable").blackhole()?;
    for stream in [&host, &client] {
        stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    }
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    ends_by_reset(&connection)?;
    let connection = connect(&lab, "lte")?;
    check_active(&lab, &agent, Family::V4, "lte")?;

    let repaired = fault.repair()?;
    for stream in [&host, &client] {
        stream.wait_for_echo_by("cable", repaired, SOON)?;
    }
    wait_for_history(
        &agent,
        Family::V4,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    ends_by_reset(&connection)?;
    connect(&lab, "cable")?;
    check_active(&lab, &agent, Family::V4, "cable")?;
    check_active(&lab, &agent, Family::V6, "cable")?;

    let cable_lte_cable = ["cable", "lte", "cable"];
    for stream in [host, client] {
        let report = stream.stop()?;
        assert_eq!(report.path(), cable_lte_cable);
        // Both uplinks work at the failback. What may be lost: a packet that was routed before the switch and met the gate after
        // it, and the one by which NAT learns that the route has changed.
        let sent_after = report.records.iter().filter(|r| r.sent > repaired);
        let lost: Vec<u64> = sent_after
            .filter(|record| record.echo.is_none())
            .map(|record| record.sequence)
            .collect();
        assert!(lost.len() <= 3, "lost at the failback: {lost:?}");
    }
    let expected = cable_lte_cable.map(|uplink| Some(uplink.to_owned()));
    assert_eq!(monitor.finish()?, expected);
    assert_eq!(monitor_v6.finish()?, expected, "IPv6 follows");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_failback_waits_for_rise_good_rounds() -> Scenario {
    let settings = Settings {
        rise: 20,
        ..Settings::default()
    };
    failback_takes(&settings, settings.interval * (settings.rise - 1))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_failback_waits_until_the_uplink_has_been_good_for_the_hold_time() -> Scenario {
    let settings = Settings {
        hold: paced(1500),
        ..Settings::default()
    };
    failback_takes(&settings, settings.hold)?;
    Ok(())
}

/// A failover, a repair, and a failback that comes, but no earlier than `least` after the repair.
fn failback_takes(settings: &Settings, least: Duration) -> Result<()> {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&settings.config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    // It takes effect after this and before the call returns.
    let repairing = Instant::now();
    fault.repair()?;
    let back = wait_for_history(
        &agent,
        Family::V4,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    let took = back - repairing;
    assert!(took >= least, "{took:?} is less than {least:?}");
    check_active(&lab, &agent, Family::V4, "cable")
}
