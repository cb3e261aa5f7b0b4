//! As many uplinks as an agent takes.

use std::time::Duration;

use anyhow::Result;
use failover_ebpf::MAX_UPLINKS;
use failover_lab::{Scenario, TARGET_V4, WideLab, agent_path, pace};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Long enough for all of them on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Patient, so that a busy machine makes nobody Down.
fn probe() -> String {
    format!(
        "targets = [\"{TARGET_V4}\"]\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nfall = 2\nrise = 1",
        250 * pace(),
        2000 * pace()
    )
}

fn uplinks(status: &Value) -> impl Iterator<Item = &Value> {
    status["uplinks"].as_array().into_iter().flatten()
}

#[test]
#[ignore = "needs root"]
fn sixty_four_uplinks_start_fail_over_and_leave_nothing() -> Scenario {
    let lab = WideLab::build(MAX_UPLINKS)?;
    let before = lab.default_routes()?;
    let mut agent = lab.spawn_agent(&agent_path()?, &probe(), "info")?;
    agent.wait_for_status("all uplinks Up", SOON, |status| {
        status["active"] == "up01" && uplinks(status).all(|uplink| uplink["health"] == "Up")
    })?;
    assert_eq!(own_routes(&lab)?, expected_routes(0));

    lab.cut(&lab.uplinks()[..1])?;
    let status = agent.wait_for_status("up02 active", SOON, |status| status["active"] == "up02")?;
    for uplink in uplinks(&status) {
        let cut = uplink["name"] == "up01";
        assert_eq!(
            uplink["health"],
            if cut { "Down" } else { "Up" },
            "{uplink}"
        );
    }
    assert_eq!(own_routes(&lab)?, expected_routes(1));
    let switch = &status["switches"][0];
    assert_eq!(
        [&switch["from"], &switch["to"], &switch["cause"]],
        ["up01", "up02", "failover"],
        "{switch}"
    );

    lab.mend(&lab.uplinks()[..1])?;
    agent.wait_for_status("up01 active again", SOON, |status| {
        status["active"] == "up01"
    })?;
    assert_eq!(own_routes(&lab)?, expected_routes(0));
    agent.signal(Signal::SIGTERM)?;
    assert!(agent.wait_exit(SOON)?.success());
    assert_eq!(lab.default_routes()?, before);
    Ok(())
}

/// Interfaces and metrics of the agent's routes, best first.
fn own_routes(lab: &WideLab) -> Result<Vec<(String, u32)>> {
    let routes = lab.default_routes()?.into_iter();
    let own = routes.filter(|route| route.protocol == "136");
    Ok(own.map(|route| (route.interface, route.metric)).collect())
}

/// One by the active uplink at 80, one by each of the others from 5000 on in their order.
fn expected_routes(active: u32) -> Vec<(String, u32)> {
    let uplinks = (0..).take(MAX_UPLINKS);
    let mut routes: Vec<_> = uplinks
        .map(|rank| {
            let metric = if rank == active { 80 } else { 5000 + rank };
            (format!("up{:02}", rank + 1), metric)
        })
        .collect();
    routes.sort_by_key(|(_, metric)| *metric);
    routes
}
