//! Routes of others that had to make way: what their owners say later, and how long they are good for.

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result};
use failover_lab::{Lab, Scenario, UplinkSpec, wait_for};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, default_routes};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::fixtures::*;

/// Waits until no default route of a family has this metric.
fn wait_displaced(lab: &Lab, family: Family, metric: u32) -> Result<()> {
    wait_for("the route is displaced", SOON, || {
        match default_routes(lab, family) {
            Ok(routes) if routes.iter().all(|route| route.metric != metric) => Ok(()),
            Ok(routes) => Err(format!("{routes:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}

/// The default routes by cable, as `ip` tells them.
fn by_cable(lab: &Lab, family: &str) -> Result<Vec<Value>> {
    let arguments = [family, "-j", "route", "show", "default", "dev", "cable"];
    let routes = lab.host().namespace().exec_json("ip", &arguments)?;
    routes.as_array().cloned().context("no list of routes")
}

#[test]
#[ignore = "needs root"]
fn a_newer_word_of_the_owner_ends_what_was_displaced() -> Scenario {
    let lab = with_two_gateways()?;
    ip(
        &lab,
        "route del default dev cable\n\
         route add default via 10.64.1.1 dev cable proto dhcp src 10.64.1.2 metric 20",
    )?;
    let mut agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_displaced(&lab, Family::V4, 20)?;
    // The client has a lease from another server, and takes another metric.
    ip(
        &lab,
        "route add default via 10.64.1.254 dev cable proto dhcp src 10.64.1.2 metric 900",
    )?;
    wait_way(&agent, "cable", "ipv4", Some("10.64.1.254"), "10.64.1.2")?;
    wait_ready(&agent, "cable", &["lte"])?;
    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait_exit(SOON)?.code(), Some(0));
    let routes = by_cable(&lab, "-4")?;
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert_eq!(routes[0]["gateway"], "10.64.1.254");

    // Without a lease, and then with one.
    ip(
        &lab,
        "route del default dev cable\n\
         address del 10.64.1.2/24 dev cable\n\
         address add 169.254.7.7/16 dev cable\n\
         route add default dev cable scope link src 169.254.7.7 metric 20",
    )?;
    let mut agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "lte", &[])?;
    wait_displaced(&lab, Family::V4, 20)?;
    ip(
        &lab,
        "address add 10.64.1.2/24 dev cable\n\
         route add default via 10.64.1.1 dev cable proto dhcp src 10.64.1.2 metric 900",
    )?;
    wait_way(&agent, "cable", "ipv4", Some("10.64.1.1"), "10.64.1.2")?;
    wait_ready(&agent, "cable", &["lte"])?;
    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait_exit(SOON)?.code(), Some(0));
    let routes = by_cable(&lab, "-4")?;
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert_eq!(routes[0]["gateway"], "10.64.1.1");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_advertised_route_comes_back_with_what_is_left_of_its_lifetime_or_not_at_all() -> Scenario {
    let uplinks = ["cable", "lte"].map(|name| UplinkSpec::veth(name).metric(9000));
    let lab = Lab::builder().uplinks(uplinks).build()?;
    ip(
        &lab,
        "route add default via 2001:db8:1::1 dev cable proto ra metric 40 expires 3000\n\
         route add default via 2001:db8:1::3 dev cable proto ra metric 41 expires 1",
    )?;
    let over = || -> Result<bool> {
        let routes = by_cable(&lab, "-6")?;
        let mut of_metric = routes.iter().filter(|route| route["metric"] == 41);
        Ok(of_metric.all(|route| route["expires"].as_i64().is_some_and(|left| left < 0)))
    };
    failover_lab::wait_until("one is over", SOON, || over().unwrap_or(false))?;
    let mut agent = lab.start_agent(&config_v6(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_displaced(&lab, Family::V6, 40)?;
    wait_displaced(&lab, Family::V6, 41)?;
    sleep(Duration::from_secs(3));
    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait_exit(SOON)?.code(), Some(0));
    let routes = by_cable(&lab, "-6")?;
    let left = |metric: i64| -> Option<i64> {
        let route = routes.iter().find(|route| route["metric"] == metric)?;
        route["expires"].as_i64()
    };
    // It stood for a while before, and was away for three seconds.
    assert!(
        left(40).is_some_and(|left| (1..2997).contains(&left)),
        "{routes:?}"
    );
    assert_eq!(left(41), None, "{routes:?}");
    Ok(())
}
