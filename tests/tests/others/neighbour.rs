//! A gateway that no longer answers the kernel.

use std::time::Duration;

use failover_lab::{Lab, Scenario, TARGET_V4};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, message, wait_for_history};

use super::fixtures::start;

#[test]
#[ignore = "needs root"]
fn a_gateway_that_does_not_answer_is_probed_out_of_turn() -> Scenario {
    let lab = Lab::builder().build()?;
    // The next regular round comes long after the end of this test.
    let config = lab.agent_config().targets([TARGET_V4]).rise(1).fall(1);
    let config = config.interval(Duration::from_mins(5));
    let agent = start(&lab, &config.timeout(Duration::from_secs(1)))?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    let fault = lab.uplink("cable").gateway_gone()?;
    // The kernel would ask by itself half a minute after it was last sure. Three times, then it gives up.
    let gateway = lab.uplink("cable").addresses().gateway_v4;
    let ask = format!("neigh change {gateway} dev cable nud probe");
    lab.host().namespace().ip_batch(&ask)?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    let words = format!("gateway {gateway} does not answer");
    agent.wait_for_line("why it probed", SOON, |line| {
        message(line).contains(&words) && line.field("uplink").is_some()
    })?;
    stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    Ok(())
}
