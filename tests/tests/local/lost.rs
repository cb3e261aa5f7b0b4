//! A link that is lost needs no probes to be known as Down.

use std::time::Duration;

use failover_lab::{Fault, Lab, Scenario, TARGET_V4};

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn the_active_link_is_left_at_once() -> Scenario {
    let names = ["cable", "dsl", "fibre", "lte"];
    let lab = Lab::builder().uplinks(names).build()?;
    // By its probes it would notice after twenty seconds at best.
    let slow = lab.agent_config().targets([TARGET_V4]).fall(3);
    let slow = slow.interval(Duration::from_secs(10));
    let agent = lab.start_agent(&slow.timeout(Duration::from_secs(2)))?;
    wait_active(&agent, "cable", &[])?;
    let mut lost: Vec<(&str, Fault)> = Vec::new();
    for (number, next) in names.iter().enumerate().skip(1) {
        let name = names[number - 1];
        let uplink = lab.uplink(name);
        let fault = match name {
            "cable" => uplink.carrier_down()?,
            "dsl" => uplink.admin_down()?,
            _ => uplink.unplug()?,
        };
        let what = format!("the failover to {next}");
        let line = agent.wait_for_line(&what, SOON, |line| {
            is_switch(line, "IPv4") && text(line, "to") == *next
        })?;
        let took = line.at.saturating_duration_since(fault.since());
        assert!(took < Duration::from_secs(5), "{next} after {took:?}");
        lost.push((name, fault));
        let lost: Vec<&str> = lost.iter().map(|(name, _)| *name).collect();
        wait_active(&agent, next, &lost)?;
    }
    let expected = [
        "start-up cable",
        "failover dsl",
        "failover fibre",
        "failover lte",
    ];
    assert_eq!(history(&agent, Family::V4), expected);
    // That the kernel refuses routes by links that are gone is no news.
    for line in agent.log() {
        let warning = line.field("level").is_some_and(|level| level == "WARN");
        let refused = line.text.contains("not added");
        assert!(!(warning && refused), "{}", line.text);
    }
    Ok(())
}
