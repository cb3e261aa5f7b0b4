//! One family is broken: the other one stays where it is.

use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6, TARGETS_V4, TARGETS_V6};
use serde_json::Value;

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn each_family_fails_over_alone() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = lab.agent_config().quick();
    let agent = lab.start_agent(&config.targets([TARGET_V4, TARGET_V6]))?;
    let cable = lab.uplink("cable");
    let state = |status: &Value, name: &str, family: &str| {
        let state = &uplink(status, name)["families"][family];
        format!("{} {}", state["health"], state["active"]).replace('"', "")
    };
    let wait = |broken: Option<&str>| {
        agent.wait_for_status(&format!("{broken:?} alone broken"), SOON, |status| {
            ["ipv4", "ipv6"].into_iter().all(|family| {
                let expected = match broken == Some(family) {
                    true => ["Down false", "Up true"],
                    false => ["Up true", "Up false"],
                };
                ["cable", "lte"].map(|name| state(status, name, family)) == expected
            })
        })
    };
    wait(None)?;
    let faults = blackhole(cable, &TARGETS_V6)?;
    // `active` is the primary family's.
    assert_eq!(wait(Some("ipv6"))?["active"], "cable");
    drop(faults);
    wait(None)?;
    let faults = blackhole(cable, &TARGETS_V4)?;
    let status = wait(Some("ipv4"))?;
    assert_eq!(status["active"], "lte");
    assert_eq!(uplink(&status, "cable")["health"], "Down");
    drop(faults);
    wait(None)?;
    for family in Family::ALL {
        let expected = ["start-up cable", "failover lte", "failback cable"];
        assert_eq!(history(&agent, family), expected, "{family}");
    }
    Ok(())
}
