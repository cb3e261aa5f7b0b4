//! Another program removes what a group is made of.

use failover_lab::{Lab, Scenario, wait_for};
use failover_policy::Family;
use serde_json::Value;

use super::fixtures::{SOON, default_routes, history, start, two};

#[test]
#[ignore = "needs root"]
fn nexthop_objects_that_are_flushed_are_put_back_and_told() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let agent = start(&lab, &two(&lab), "cable,dsl")?;
    let before = lab.host().snapshot()?;
    // Twice: the second time comes right after a repair.
    for command in ["nexthop flush", "nexthop del id 13728"] {
        let told = agent.log().len();
        let words: Vec<&str> = command.split(' ').collect();
        lab.host().namespace().exec("ip", &words)?;
        wait_for(&format!("{command} is undone"), SOON, || {
            before.ensure_same(&lab.host().snapshot()?)
        })?;
        wait_for(&format!("{command} is told"), SOON, || {
            let log = agent.log().split_off(told);
            let repairs = log.iter().filter(|line| line.field("repairs").is_some());
            let mut messages = repairs.filter_map(|line| line.field("message")?.as_str());
            let repair =
                |told: &str| told.contains("removed nexthop") && told.ends_with("put back");
            messages.find(|told| repair(told)).map(drop).ok_or_else(|| {
                let lines: Vec<_> = log.iter().map(|line| line.text.as_str()).collect();
                lines.join("\n")
            })
        })?;
    }
    assert_eq!(history(&agent, Family::V4), ["start-up cable,dsl"]);
    assert_eq!(default_routes(&lab, Family::V4)?[0].interface, "cable,dsl");
    let status: Value = agent.status_json()?;
    assert_eq!(status["active"], "cable,dsl");
    Ok(())
}
