//! Metrics of the uplinks' own, and routes that are withdrawn.

use anyhow::{Result, ensure};
use failover_lab::{AgentConfig, AgentProcess, Lab, Scenario, TARGET_V4, wait_for};
use failover_policy::Family;

use super::fixtures::{
    SOON, default_routes, ensure_never_without_route, history, start, wait_active,
};

fn with_metrics(lab: &Lab) -> AgentConfig {
    let metrics = [("cable", 10), ("dsl", 20), ("lte", 30)];
    let config = lab.agent_config().quick();
    metrics.into_iter().fold(config, |config, (name, metric)| {
        config.uplink(name, |uplink| uplink.metric(metric))
    })
}

/// Waits until exactly these default routes stand in both families.
fn wait_routes(lab: &Lab, expected: &[(u32, &str)]) -> Result<()> {
    wait_for(&format!("the routes are {expected:?}"), SOON, || {
        for family in Family::ALL {
            let routes = default_routes(lab, family)?;
            let found: Vec<(u32, &str)> = routes
                .iter()
                .map(|route| (route.metric, route.interface.as_str()))
                .collect();
            ensure!(found == expected, "{family}: {found:?}");
        }
        Ok(())
    })
}

fn wait_health(agent: &AgentProcess, uplink: usize, health: &str) -> Result<()> {
    let what = format!("the uplink {uplink} as {health}");
    agent.wait_for_status(&what, SOON, |status| {
        status["uplinks"][uplink]["health"] == health
    })?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn uplinks_keep_their_own_metrics_and_the_next_one_takes_over() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    for (on_down, failed) in [
        ("demote", &[(20, "dsl"), (30, "lte"), (5000, "cable")][..]),
        ("withdraw", &[(20, "dsl"), (30, "lte")]),
    ] {
        let config = with_metrics(&lab).on_down(on_down);
        let agent = start(&lab, &config, "cable")?;
        let all = [(10, "cable"), (20, "dsl"), (30, "lte")];
        wait_routes(&lab, &all)?;
        let steady = lab.host().udp_stream(TARGET_V4).start()?;
        let monitor_v4 = lab.host().watch_default_routes_v4()?;
        let monitor_v6 = lab.host().watch_default_routes_v6()?;
        let fault = lab.uplink("cable").blackhole()?;
        wait_active(&lab, &agent, "dsl")?;
        wait_routes(&lab, failed)?;
        fault.repair()?;
        wait_active(&lab, &agent, "cable")?;
        wait_routes(&lab, &all)?;
        let expected = ["cable", "dsl", "cable"].map(|name| Some(name.to_owned()));
        assert_eq!(monitor_v4.finish()?, expected, "{on_down}");
        assert_eq!(monitor_v6.finish()?, expected, "{on_down}");
        ensure_never_without_route(steady)?;
        let expected = ["start-up cable", "failover dsl", "failback cable"];
        assert_eq!(history(&agent, Family::V4), expected);
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_standby_that_is_down_has_no_route_but_the_active_one_keeps_its_own() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = lab.agent_config().quick().on_down("withdraw");
    let agent = start(&lab, &config, "cable")?;
    let both = [(80, "cable"), (5001, "lte")];
    wait_routes(&lab, &both)?;
    let standby = lab.uplink("lte").blackhole()?;
    wait_routes(&lab, &both[..1])?;
    let active = lab.uplink("cable").blackhole()?;
    wait_health(&agent, 0, "Down")?;
    wait_routes(&lab, &both[..1])?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    // Back, and the only one that works.
    standby.repair()?;
    wait_active(&lab, &agent, "lte")?;
    wait_routes(&lab, &[(80, "lte")])?;
    active.repair()?;
    wait_active(&lab, &agent, "cable")?;
    wait_routes(&lab, &both)?;
    Ok(())
}
