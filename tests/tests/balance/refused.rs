//! A switch away from a group that the kernel refuses.

use std::time::{Duration, Instant};

use anyhow::ensure;
use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6, wait_for};
use failover_policy::Family;

use super::{
    fixtures::{
        SOON, check_active, ensure_alive, ensure_never_without_route, history, start, status, two,
        wait_active,
    },
    flows::connect_by,
};

/// Less than the second after which a switch is tried again.
const AT_ONCE: Duration = Duration::from_millis(500);

/// How often a busy machine may be too late: an uplink that has lost its address counts on for half a second.
const ATTEMPTS: usize = 5;

#[test]
#[ignore = "needs root"]
fn a_group_stands_as_before_when_the_kernel_refuses_its_successor() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let host = lab.host().namespace();
    let lte = *lab.uplink("lte").addresses();
    // What is found out about lte is a second old at most.
    let slow = two(&lab).interval(Duration::from_secs(1));
    let agent = start(&lab, &slow, "cable,dsl")?;
    wait_for("lte is Up", SOON, || {
        let status = status(&agent)?;
        let lte = status.uplinks.iter().find(|uplink| uplink.name == "lte");
        let health = lte.map(|lte| lte.health);
        ensure!(health == Some(failover_policy::Health::Up), "{health:?}");
        anyhow::Ok(())
    })?;
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    let connections = [
        connect_by(&lab, lab.host(), TARGET_V4, "cable")?,
        connect_by(&lab, lab.host(), TARGET_V4, "dsl")?,
        connect_by(&lab, lab.host(), TARGET_V6, "dsl")?,
    ];
    let objects = host.exec("ip", &["nexthop", "show"])?;
    let group = |text: &str| {
        let lines = text.lines().filter(|line| line.contains("metric 80"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = group(&host.exec("ip", &["route", "show", "default"])?);
    assert!(before.len() == 1, "{before:?}");

    let refused = || {
        let log = agent.log();
        let mut lines = log.iter();
        lines.any(|line| line.text.contains("no switch to lte"))
    };
    for _ in 0..ATTEMPTS {
        // The kernel refuses a route with a source that is not there.
        host.ip_batch(&format!("address del {}/24 dev lte", lte.host_v4))?;
        let ordered = Instant::now();
        agent.verb(&["switch", "lte"]).ok();
        let done = wait_for("the switch is refused", AT_ONCE, || {
            refused().then_some(()).ok_or("nothing is said")
        });
        if done.is_ok() {
            let left = (AT_ONCE * 2).saturating_sub(ordered.elapsed());
            wait_for("all is as before", left, || {
                check_active(&lab, &status(&agent)?, "cable,dsl")?;
                let now = group(&host.exec("ip", &["route", "show", "default"])?);
                ensure!(now == before, "{now:?}");
                let now = host.exec("ip", &["nexthop", "show"])?;
                ensure!(now == objects, "{now}, not {objects}");
                Ok(())
            })?;
        }
        host.ip_batch(&format!(
            "address add {}/24 dev lte\n\
             route replace 0.0.0.0/0 via {} dev lte proto dhcp metric 5000",
            lte.host_v4, lte.gateway_v4
        ))?;
        if done.is_ok() {
            break;
        }
        agent.verb(&["switch", "auto"])?;
        wait_active(&lab, &agent, "cable,dsl")?;
    }
    assert!(refused(), "the kernel has refused nothing");
    // Not for an instant either.
    let log = agent.log();
    let mut closed = log
        .iter()
        .filter(|line| line.text.contains("IPv4 gate closed"));
    let of_group = closed.find(|line| !line.text.contains("lte: "));
    assert!(of_group.is_none(), "{of_group:?}");
    ensure_alive(&connections)?;

    // What was refused for a while is done when it can be.
    wait_for("the choice is taken", SOON, || {
        let choice = agent.verb(&["switch", "lte"]);
        choice.map(drop).map_err(|error| format!("{error:#}"))
    })?;
    wait_active(&lab, &agent, "lte")?;
    agent.verb(&["switch", "auto"])?;
    wait_active(&lab, &agent, "cable,dsl")?;
    ensure_never_without_route(steady)?;
    let first = history(&agent, Family::V4).into_iter().next();
    assert_eq!(first.as_deref(), Some("start-up cable,dsl"));
    Ok(())
}
