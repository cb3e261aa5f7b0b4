//! A full routing table.

use std::{fmt::Write as _, sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result};
use failover_lab::{LINK_LOCAL_GATEWAY, Lab, Scenario, wait_for};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, history, message};
use serde_json::Value;

use super::fixtures::{BATCH, flooded, foreign_routes, start, wait_restored};

/// Of each family.
const ROUTES: u32 = 50_000;

#[test]
#[ignore = "needs root"]
fn a_look_at_a_full_routing_table_is_quick_and_takes_little_memory() -> Scenario {
    /// For the debug build on a busy machine; the goal is 1 s.
    const LONGEST: Duration = Duration::from_secs(15);
    const MEMORY: u64 = 20 << 20;

    let lab = Lab::builder().build()?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    let gateway = lab.uplink("lte").addresses().gateway_v4;
    let mut lines = String::new();
    for n in 0..ROUTES {
        let [_, a, b, c] = n.to_be_bytes();
        writeln!(
            lines,
            "route add 11.{a}.{b}.{c}/32 via {gateway} proto bird"
        )?;
        writeln!(
            lines,
            "route add 2001:db8:9::{a:x}:{b:x}:{c:x}/128 via {LINK_LOCAL_GATEWAY} dev lte proto bird"
        )?;
    }
    let before = agent.rss_bytes()?;
    lab.host().namespace().ip_batch(&lines)?;
    let all = lab.host().snapshot()?;
    let look = || -> Result<Duration> {
        let looked = agent.log().len();
        let host = lab.host().namespace();
        host.ip_batch("route del default dev cable metric 80")?;
        let took = wait_for("a look at everything", 3 * LONGEST, || {
            let log = agent.log().split_off(looked);
            let took = log.iter().find_map(|line| line.field("took_us")?.as_u64());
            took.context("no such line")
        })?;
        Ok(Duration::from_micros(took))
    };
    let took = look()?;
    wait_restored(&lab, &all, "the removal of our route")?;
    // The kernel's list changes while it is read.
    let (_, took_in_flood) = flooded(lab.host().namespace(), &foreign_routes(&lab), |changes| {
        wait_for("the flood", SOON, || {
            let changes = changes.load(Ordering::Relaxed);
            if changes > BATCH {
                Ok(())
            } else {
                Err(changes)
            }
        })?;
        let took = look()?;
        let routes = lab.host().default_routes_v4()?;
        assert_eq!(routes[0].metric, 80, "{routes:?}");
        Ok(took)
    })?;
    let grown = agent.rss_bytes()?.saturating_sub(before);
    eprintln!(
        "a look at 2 * {ROUTES} routes: {took:?}, in a flood {took_in_flood:?}, {grown} bytes more"
    );
    assert!(
        took.max(took_in_flood) < LONGEST,
        "{took:?}, in a flood {took_in_flood:?}"
    );
    assert!(grown < MEMORY, "{grown} bytes");
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    let put_back = |line: &failover_lab::LogLine| {
        message(line).ends_with("put back") && line.field("repairs").is_some_and(Value::is_u64)
    };
    agent.wait_for_line("the repair", SOON, put_back)?;
    Ok(())
}
