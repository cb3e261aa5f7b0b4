//! What others do to the host meanwhile: sysctls, hotplug, DHCP clients.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_lab::{DefaultRoute, Lab, Scenario, TARGET_V4, paced, wait_until};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    SOON, default_routes, history, status, uplink, wait_for_health, wait_for_history,
    wait_for_probes,
};

use super::fixtures::{MANY, Settings, check_active};

#[test]
#[ignore = "needs root"]
fn strict_reverse_path_filtering_does_not_break_probes_on_a_standby() -> Scenario {
    let lab = Lab::builder().build()?;
    for interface in ["all", "default", "cable", "lte"] {
        let key = format!("net/ipv4/conf/{interface}/rp_filter");
        lab.host().namespace().set_sysctl(&key, "1")?;
    }
    let agent = lab.start_agent(&Settings::default().config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_probes(&agent, &["cable", "lte"], MANY)?;
    let steady = status(&agent)?;
    for name in ["cable", "lte"] {
        let uplink = uplink(&steady, name);
        assert_eq!((uplink.health, uplink.loss_pct), (Health::Up, Some(0.0)));
    }
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    let fault = lab.uplink("cable").blackhole()?;
    stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    let repaired = fault.repair()?;
    stream.wait_for_echo_by("cable", repaired, SOON)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_is_unplugged_and_comes_back_is_taken_up_again() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&Settings::default().config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;

    let lte = lab.uplink("lte").unplug()?;
    wait_for_health(&agent, "lte", Family::V4, Health::Down)?;
    lte.repair()?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    // Its gate too: it is another interface, which began with open gates, or with no programs at all.
    soon_active(&lab, &agent, "cable")?;

    let cable = lab.uplink("cable").unplug()?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    assert!(lab.host().ping(TARGET_V4, SOON)?.is_some());
    cable.repair()?;
    wait_for_history(
        &agent,
        Family::V4,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    soon_active(&lab, &agent, "cable")?;
    Ok(())
}

/// After an interface has come back its routes may follow a moment later.
fn soon_active(lab: &Lab, agent: &failover_lab::AgentProcess, active: &str) -> Result<()> {
    wait_until(&format!("{active} is active"), SOON, || {
        check_active(lab, agent, Family::V4, active).is_ok()
    })
    .or_else(|_| check_active(lab, agent, Family::V4, active))
}

#[test]
#[ignore = "needs root"]
fn a_dhcp_client_that_insists_is_displaced_again_without_a_fight() -> Scenario {
    /// The agent's, between two looks at contested routes.
    const PAUSE: Duration = Duration::from_secs(1);

    // Several of them.
    let conflict = paced(3500);
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&Settings::default().config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_history(&agent, Family::V6, &["follow cable"])?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    let ours = default_routes(&lab, Family::V4)?;
    let host = lab.host().namespace();
    // As the laboratory's own.
    let lease = |name, metric| {
        let addresses = lab.uplink(name).addresses();
        host.ip_batch(&format!(
            "route append default via {} dev {name} proto dhcp src {} metric {metric}",
            addresses.gateway_v4, addresses.host_v4
        ))
    };
    let displaced = || {
        wait_until("the foreign route is displaced", SOON, || {
            lab.host()
                .default_routes_v4()
                .is_ok_and(|routes| routes == ours)
        })
    };

    // As on a renewal: the same that was there before, which now ties with a standby's metric.
    for name in ["cable", "lte"] {
        lease(name, 5000)?;
        displaced()?;
    }

    // One that would take all traffic to the standby, and comes back as soon as it is gone.
    let is_dhcp = |route: &DefaultRoute| route.protocol == "dhcp";
    let begun = Instant::now();
    let mut added = 0;
    while begun.elapsed() < conflict {
        if !lab.host().default_routes_v4()?.iter().any(is_dhcp) {
            lease("lte", 10)?;
            added += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let most = 2 + begun.elapsed().as_millis() / PAUSE.as_millis();
    assert!((2..=most).contains(&added), "{added} times, at most {most}");
    displaced()?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    check_active(&lab, &agent, Family::V4, "cable")?;
    Ok(())
}
