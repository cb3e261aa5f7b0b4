//! A changed configuration file, taken over while the agent runs.

use std::time::Duration;

use anyhow::{Context, Result};
use failover_lab::{AgentConfig, AgentProcess, Lab, Scenario, TARGET_V4, UplinkSpec, wait_until};
use failover_policy::Family;
use failover_tests::fixtures::{
    OURS, SOON, default_routes,
    json::{counter, uplink, wait_active},
    stop, wait_sent,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::fixtures::run;

/// A configuration with these uplinks, in this order.
fn config(uplinks: &[&str]) -> AgentConfig {
    AgentConfig::of(uplinks.iter().copied()).quick()
}

/// The kernel's rules and own tables of an uplink, as `ip` prints them.
fn own_routing(lab: &Lab, name: &str) -> Result<Vec<String>> {
    let address = lab.uplink(name).host_v4().to_string();
    let host = lab.host().namespace();
    let rules = host.exec("ip", &["rule", "list"])?;
    let routes = host.exec("ip", &["route", "show", "table", "all", "dev", name])?;
    let rules = rules.lines().filter(|line| {
        line.contains(&format!("from {address} ")) || line.contains(&format!("oif {name} "))
    });
    let routes = routes.lines().filter(|line| line.contains("table 136"));
    Ok(rules.chain(routes).map(str::to_owned).collect())
}

/// The protocols of the default routes by an uplink that are not the agent's.
fn foreign_routes(lab: &Lab, name: &str) -> Result<Vec<String>> {
    let mut protocols = Vec::new();
    for family in Family::ALL {
        let routes = default_routes(lab, family)?.into_iter();
        let foreign = routes.filter(|route| route.interface == name && route.protocol != OURS);
        protocols.extend(foreign.map(|route| route.protocol));
    }
    Ok(protocols)
}

fn gate_lines(agent: &AgentProcess) -> Vec<String> {
    let log = agent.log();
    let lines = log.iter().filter(|line| line.field("gate").is_some());
    lines.map(|line| line.text.clone()).collect()
}

#[test]
#[ignore = "needs root"]
fn an_added_uplink_disturbs_nobody_and_can_be_removed_again() -> Scenario {
    let lab = Lab::builder()
        .uplinks([
            "cable".into(),
            UplinkSpec::veth("dsl").metric(500),
            "lte".into(),
        ])
        .build()?;
    let agent = lab.start_agent(&config(&["cable", "lte"]))?;
    let before = wait_active(&agent, "cable")?;
    let routing = [own_routing(&lab, "cable")?, own_routing(&lab, "lte")?];
    assert!(routing.iter().all(|lines| lines.len() >= 4), "{routing:?}");
    let gates = gate_lines(&agent);
    let health = agent.log().len();
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    wait_sent(&steady, 20)?;

    lab.write_config(&config(&["cable", "dsl", "lte"]))?;
    assert_eq!(agent.verb(&["reload"])?.trim(), "reloaded: added dsl");
    let status = agent.wait_for_status("dsl Up behind its gate", SOON, |status| {
        let dsl = status["uplinks"].as_array().into_iter().flatten();
        dsl.into_iter().any(|uplink| {
            uplink["name"] == "dsl" && uplink["health"] == "Up" && uplink["gate"] == "closed"
        })
    })?;
    let names: Vec<_> = uplinks(&status).map(|uplink| &uplink["name"]).collect();
    assert_eq!(names, ["cable", "dsl", "lte"]);
    assert_eq!(status["active"], "cable");
    for name in ["cable", "lte"] {
        for key in ["tx_packets", "rx_packets", "probes_passed"] {
            let (before, after) = (counter(&before, name, key), counter(&status, name, key));
            assert!(after >= before, "{key} of {name}: {before}, then {after}");
        }
        let since = |status: &Value| uplink(status, name)["health_since"].clone();
        assert_eq!(
            since(&before),
            since(&status),
            "health of {name} was disturbed"
        );
    }
    let now = [own_routing(&lab, "cable")?, own_routing(&lab, "lte")?];
    assert_eq!(routing, now, "tables and rules of the others");
    let touched = gate_lines(&agent);
    let touched = touched.iter().skip(gates.len());
    let touched: Vec<_> = touched.filter(|line| !line.contains("dsl")).collect();
    assert!(touched.is_empty(), "{touched:?}");
    for line in agent.log().iter().skip(health) {
        let probed = line.field("probed").is_some();
        assert!(!probed, "a probe was lost by the reload: {}", line.text);
    }

    lab.write_config(&config(&["cable", "lte"]))?;
    assert_eq!(agent.verb(&["reload"])?.trim(), "reloaded: removed dsl");
    let status = wait_active(&agent, "cable")?;
    assert_eq!(uplinks(&status).count(), 2);
    assert_eq!(own_routing(&lab, "dsl")?, [""; 0]);
    let programs = lab.host().snapshot()?.lines_with("tcx ").len();
    assert_eq!(programs, 4, "two for each uplink that is left");
    wait_sent(&steady, 20)?;
    let steady = steady.stop()?;
    assert_eq!(steady.path(), ["cable"]);
    assert_eq!(steady.lost(), 0, "longest gap {:?}", steady.longest_gap());
    Ok(())
}

fn uplinks(status: &Value) -> impl Iterator<Item = &Value> {
    status["uplinks"].as_array().into_iter().flatten()
}

#[test]
#[ignore = "needs root"]
fn a_bad_file_is_refused_whole_and_the_old_one_goes_on() -> Scenario {
    let lab = Lab::builder().build()?;
    let good = config(&["cable", "lte"]);
    let agent = lab.start_agent(&good)?;
    wait_active(&agent, "cable")?;
    let kernel = lab.host().snapshot()?;
    let bad = [
        // Half of it could have been taken over.
        (
            format!("{}fall = 0\n", config(&["lte", "cable"])),
            "agent.toml:",
        ),
        (
            config(&["lte", "cable"]).table(900).to_string(),
            "route.table",
        ),
        (config(&["lte"]).to_string(), "at least 2 uplinks"),
    ];
    for (text, told) in bad {
        lab.write_config(&text)?;
        let outcome = run(&lab, &["reload"])?;
        assert_eq!(outcome.code, Some(27), "{outcome:?}");
        assert!(outcome.stderr.contains(told), "{outcome:?}");
        assert!(
            outcome.stderr.contains("the old configuration goes on"),
            "{outcome:?}"
        );
        agent.signal(Signal::SIGHUP)?;
        agent.wait_for_line("the refusal of SIGHUP", SOON, |line| {
            line.text.contains("configuration not reloaded") && line.text.contains(told)
        })?;
        let status = agent.status_json()?;
        assert_eq!(status["active"], "cable");
        assert_eq!(uplink(&status, "cable")["rank"], 0);
    }
    kernel.ensure_same(&lab.host().snapshot()?)?;

    lab.write_config(&good)?;
    assert_eq!(
        agent.verb(&["reload"])?.trim(),
        "reloaded: nothing has changed"
    );
    kernel.ensure_same(&lab.host().snapshot()?)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_agent_without_a_file_has_nothing_to_reload() -> Scenario {
    let lab = Lab::builder().build()?;
    let arguments = "run --uplink cable --uplink lte --target 192.0.2.1 --interval 50ms";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let agent = lab.spawn_agent(&arguments)?;
    wait_active(&agent, "cable")?;
    let outcome = run(&lab, &["reload"])?;
    assert_eq!(outcome.code, Some(27), "{outcome:?}");
    assert!(outcome.stderr.contains("--uplink"), "{outcome:?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn new_thresholds_preferences_and_modes_take_effect() -> Scenario {
    let lab = Lab::builder().build()?;
    let both = config(&["cable", "lte"]);
    let agent = lab.start_agent(&both.clone().hold(Duration::from_hours(1)))?;
    wait_active(&agent, "cable")?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    fault.repair()?;
    agent.wait_for_line("the hold time", SOON, |line| line.field("hold_s").is_some())?;
    lab.write_config(&both.hold(Duration::ZERO))?;
    agent.signal(Signal::SIGHUP)?;
    wait_active(&agent, "cable")?;

    // The other way round, and nothing is cut any more.
    lab.write_config(&config(&["lte", "cable"]).mode("off"))?;
    let said = agent.verb(&["reload"])?;
    assert_eq!(
        said.trim(),
        "reloaded: changed the order of preference, [cutoff]"
    );
    let status =
        agent.wait_for_status("lte as the active one, all gates open", SOON, |status| {
            status["active"] == "lte" && uplinks(status).all(|uplink| uplink["gate"] == "open")
        })?;
    assert_eq!(uplink(&status, "lte")["rank"], 0);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_removed_uplink_gets_its_routes_back() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let agent = lab.start_agent(&config(&["cable", "dsl", "lte"]))?;
    wait_active(&agent, "cable")?;
    assert_eq!(foreign_routes(&lab, "lte")?, [""; 0], "displaced");
    lab.write_config(&config(&["cable", "dsl"]))?;
    agent.verb(&["reload"])?;
    assert_eq!(foreign_routes(&lab, "lte")?, ["dhcp", "ra"]);
    assert_eq!(foreign_routes(&lab, "cable")?, [""; 0], "still displaced");
    wait_active(&agent, "cable")?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_active_uplink_can_be_removed() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let agent = lab.start_agent(&config(&["cable", "dsl", "lte"]))?;
    wait_active(&agent, "cable")?;
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    wait_sent(&steady, 20)?;
    lab.write_config(&config(&["dsl", "lte"]))?;
    agent.verb(&["reload"])?;
    wait_active(&agent, "dsl")?;
    assert_eq!(
        foreign_routes(&lab, "cable")?,
        [""; 0],
        "its metric is one of ours"
    );
    let echo = steady.wait_for_echo_by("dsl", std::time::Instant::now(), SOON);
    echo.context("the traffic has not followed")?;
    wait_until(
        "the removed uplink has no route of ours any more",
        SOON,
        || own_routing(&lab, "cable").is_ok_and(|lines| lines.is_empty()),
    )?;
    let gap = steady.stop()?.longest_gap();
    stop(agent)?;
    assert_eq!(foreign_routes(&lab, "cable")?, ["dhcp", "ra"]);
    let gap = gap.context("no gap")?;
    assert!(gap.duration() < Duration::from_secs(5), "{gap:?}");
    Ok(())
}
