//! A gateway that no longer answers the kernel.

use anyhow::Result;
use failover_tests::lab::{Lab, TARGET_V4, require_root, wait_for};

use super::scene::{SOON, history, message, start};

#[test]
fn a_gateway_that_does_not_answer_is_probed_out_of_turn() -> Result<()> {
    if !require_root("a_gateway_that_does_not_answer_is_probed_out_of_turn") {
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    // The kernel asks again a second after it was last sure, instead of half a minute.
    let host = lab.host().namespace();
    for (key, value) in [
        ("base_reachable_time_ms", "1000"),
        ("delay_first_probe_time", "1"),
    ] {
        host.set_sysctl(&format!("net/ipv4/neigh/cable/{key}"), value)?;
    }
    // The next regular round comes long after the end of this test.
    let slow =
        "targets = [\"192.0.2.1\"]\ninterval = \"300s\"\ntimeout = \"1s\"\nrise = 1\nfall = 1";
    let agent = start(&lab, slow)?;
    // Without traffic the kernel does not need the gateway.
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    let fault = lab.uplink("cable").gateway_gone()?;
    wait_for("the failover", 2 * SOON, || {
        let history = history(&agent);
        if history == ["start-up cable", "failover lte"] {
            Ok(())
        } else {
            Err(format!("{history:?}"))
        }
    })?;
    let gateway = lab.uplink("cable").addresses().gateway_v4;
    let words = format!("gateway {gateway} does not answer");
    agent.wait_for_line("why it probed", SOON, |line| {
        message(line).contains(&words) && line.field("uplink").is_some()
    })?;
    stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    Ok(())
}
