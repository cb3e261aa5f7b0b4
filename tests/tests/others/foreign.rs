//! Default routes of interfaces that are no uplinks, and kill switches: none keeps a failover from happening, whatever its metric.

use std::time::Instant;

use anyhow::Result;
use failover_lab::{AgentProcess, DefaultRoute, Lab, Scenario, TARGET_V4, UplinkSpec, wait_for};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    OURS, SOON, default_routes, history, message, status, stop, uplink, wait_for_active,
    wait_for_health,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::fixtures::start;

/// An interface that is no uplink, with a gateway of which nobody knows whether it is there.
const VPN: &str = "link add name vpn type veth peer name far\n\
                   link set dev far up\n\
                   link set dev vpn up\n\
                   address add 10.99.0.2/24 dev vpn\n\
                   address add fd99::2/64 dev vpn nodad\n\
                   neighbour replace 10.99.0.1 lladdr 02:00:00:00:00:99 dev vpn\n\
                   neighbour replace fd99::1 lladdr 02:00:00:00:00:99 dev vpn";

fn lab_with_vpn() -> Result<Lab> {
    let lab = Lab::builder()
        .uplinks(["cable", "lte"].map(UplinkSpec::veth))
        .build()?;
    lab.host().namespace().ip_batch(VPN)?;
    Ok(lab)
}

/// Default routes by the VPN with these metrics, behind what is there.
fn vpn_routes(lab: &Lab, metrics: &[u32]) -> Result<()> {
    let routes = metrics.iter().map(|metric| {
        format!(
            "route append default via 10.99.0.1 dev vpn proto static metric {metric}\n\
             route append ::/0 via fd99::1 dev vpn proto static metric {metric}\n"
        )
    });
    lab.host().namespace().ip_batch(&routes.collect::<String>())
}

/// Interface and metric of the agent's own routes, best first.
fn own(lab: &Lab, family: Family) -> Result<Vec<(String, u32)>> {
    let routes = default_routes(lab, family)?.into_iter();
    let own = routes.filter(|route| route.protocol == OURS);
    Ok(own.map(|route| (route.interface, route.metric)).collect())
}

fn wait_own(lab: &Lab, family: Family, expected: &[(&str, u32)]) -> Result<()> {
    wait_for("the agent's routes", SOON, || {
        let found = own(lab, family).map_err(|error| format!("{error:#}"))?;
        let shape = found.iter().map(|(name, metric)| (&**name, *metric));
        let shape: Vec<_> = shape.collect();
        (shape == expected)
            .then_some(())
            .ok_or_else(|| format!("{family}: {found:?}, not {expected:?}"))
    })
}

/// Effect, uplink, wanted and actual metric of each foreign route in the status.
fn concerns(status: &Value, family: &str) -> Vec<String> {
    let routes = status["foreign_defaults"].as_array().into_iter().flatten();
    routes
        .filter(|route| route["family"] == family)
        .map(|route| {
            let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
            let number = |key: &str| route[key].as_u64().unwrap_or_default();
            let (wanted, metric) = (number("wanted_metric"), number("metric"));
            format!("{} {} {wanted} {metric}", text("effect"), text("uplink"))
        })
        .collect()
}

fn fail_over_and_back(lab: &Lab, agent: &AgentProcess) -> Result<()> {
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    let fault = lab.uplink("cable").blackhole()?;
    stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    wait_for_active(agent, "lte")?;
    let repaired = fault.repair()?;
    stream.wait_for_echo_by("cable", repaired, SOON)?;
    wait_for_active(agent, "cable").map(drop)
}

#[test]
#[ignore = "needs root"]
fn default_routes_of_a_vpn_with_metrics_of_ours_are_no_obstacle() -> Scenario {
    let lab = lab_with_vpn()?;
    // Some before the start, the others while the agent runs.
    vpn_routes(&lab, &[5001])?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    wait_own(&lab, Family::V4, &[("cable", 80), ("lte", 5002)])?;
    vpn_routes(&lab, &[80, 5000])?;
    wait_own(&lab, Family::V4, &[("cable", 80), ("lte", 5002)])?;
    wait_own(&lab, Family::V6, &[("cable", 79), ("lte", 5002)])?;
    let names_them = |status: &Value| {
        concerns(status, "ipv4") == ["same-metric cable 80 80", "same-metric lte 5001 5002"]
            && concerns(status, "ipv6") == ["same-metric cable 80 79", "same-metric lte 5001 5002"]
    };
    agent.wait_for_status("the routes in the status", SOON, names_them)?;
    fail_over_and_back(&lab, &agent)?;

    // A new start finds it so, and takes over what stands.
    agent.verb(&["restart"])?;
    agent.wait_for_status("the routes in the status", SOON, names_them)?;
    let last = history(&agent, Family::V4).pop();
    assert_eq!(last.as_deref(), Some("start-up cable"));
    fail_over_and_back(&lab, &agent)?;
    let text = agent.verb(&["status"])?;
    assert!(
        text.contains("Foreign default route: IPv4: `default via 10.99.0.1 dev vpn"),
        "{text}"
    );

    // Said once, although it was looked at often.
    let warned = |log: Vec<failover_lab::LogLine>| {
        let lines = log.into_iter().filter(|line| {
            message(line).contains("has the metric that lte's default route should have (5001)")
                && message(line).starts_with("IPv4")
        });
        lines.count()
    };
    assert_eq!(warned(agent.log()), 2, "once a run");
    let foreign = |routes: Vec<DefaultRoute>| {
        let routes = routes.into_iter();
        routes.filter(|route| route.interface == "vpn").count()
    };
    stop(agent)?;
    for family in Family::ALL {
        assert_eq!(own(&lab, family)?, []);
    }
    assert_eq!(foreign(default_routes(&lab, Family::V4)?), 3);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_reload_to_metrics_that_are_taken_changes_places() -> Scenario {
    let lab = lab_with_vpn()?;
    vpn_routes(&lab, &[60, 301])?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    wait_own(&lab, Family::V4, &[("cable", 80), ("lte", 5001)])?;
    let config = lab.agent_config().quick();
    lab.write_config(&config.clone().metrics(60, 300))?;
    agent.verb(&["reload"])?;
    wait_own(&lab, Family::V4, &[("cable", 60), ("lte", 302)])?;
    wait_own(&lab, Family::V6, &[("cable", 59), ("lte", 302)])?;
    // And back, by a signal; a VPN with a lower metric is in front then.
    lab.write_config(&config)?;
    agent.signal(Signal::SIGHUP)?;
    wait_own(&lab, Family::V4, &[("cable", 80), ("lte", 5001)])?;
    agent.wait_for_status("the VPN in front", SOON, |status| {
        concerns(status, "ipv4") == ["in-front cable 0 80"]
    })?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_for_active(&agent, "lte")?;
    wait_own(&lab, Family::V4, &[("lte", 80), ("cable", 5000)])?;
    assert_eq!(default_routes(&lab, Family::V4)?[0].interface, "vpn");
    drop(fault);
    stop(agent)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn kill_switches_keep_nothing_but_what_they_are_meant_to() -> Scenario {
    let lab = lab_with_vpn()?;
    let host = lab.host().namespace();
    let kill_switch = |verb: &str, kind: &str, metric: u32| {
        host.ip_batch(&format!(
            "route {verb} {kind} 0.0.0.0/0 metric {metric}\nroute {verb} {kind} ::/0 metric {metric}"
        ))
    };
    // In front of everything, from the start: there is an active uplink all the same.
    kill_switch("add", "unreachable", 5)?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    agent.wait_for_status("the kill switch in front", SOON, |status| {
        concerns(status, "ipv4") == ["in-front cable 0 80"]
            && concerns(status, "ipv6") == ["in-front cable 0 80"]
    })?;
    assert_eq!(status(&agent)?.active.as_deref(), Some("cable"));
    kill_switch("del", "unreachable", 5)?;

    // Between the active uplink's route and the standby's, and with their metrics.
    for (kind, metric) in [("unreachable", 1000), ("blackhole", 5001), ("prohibit", 80)] {
        kill_switch("append", kind, metric)?;
        let fault = lab.uplink("cable").blackhole()?;
        wait_for_active(&agent, "lte")?;
        let found = uplink(&status(&agent)?, "cable").health;
        assert_eq!(found, Health::Down, "{kind} {metric}");
        assert!(lab.host().ping(TARGET_V4, SOON)?.is_some());
        fault.repair()?;
        // Probes by the uplink that is down are not affected either.
        wait_for_health(&agent, "cable", Family::V4, Health::Up)?;
        wait_for_active(&agent, "cable")?;
        kill_switch("del", kind, metric)?;
    }

    // Two halves of everything by a VPN.
    host.ip_batch(
        "route add 0.0.0.0/1 via 10.99.0.1 dev vpn\n\
         route add 128.0.0.0/1 via 10.99.0.1 dev vpn\n\
         route add ::/1 via fd99::1 dev vpn\n\
         route add 8000::/1 via fd99::1 dev vpn",
    )?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_for_active(&agent, "lte")?;
    fault.repair()?;
    wait_for_active(&agent, "cable")?;
    stop(agent)?;
    Ok(())
}
