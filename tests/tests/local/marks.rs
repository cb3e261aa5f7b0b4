//! Packet filters that change what the agent's own probes are known by.

use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6};
use nix::sys::signal::Signal;

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn rewritten_marks_keep_no_failover_away() -> Scenario {
    for rewritten in ["ct mark", "0x1"] {
        let lab = Lab::builder().build()?;
        let host = lab.host().namespace();
        // As `CONNMARK --restore-mark` without a mask, or a mark for a VPN whose table has nothing for the uplinks.
        host.nft(&format!(
            "table inet marks {{\n\
             chain out {{\n\
             type route hook output priority mangle\n\
             meta mark set {rewritten}\n\
             }}\n\
             }}"
        ))?;
        host.ip_batch("rule add fwmark 0x1 lookup 77 priority 100")?;
        let config = lab.agent_config().quick();
        let mut agent = lab.start_agent(&config.targets([TARGET_V4, TARGET_V6]))?;
        wait_active(&agent, "cable", &[])?;
        let lte = |status: &serde_json::Value| uplink(status, "lte").clone();
        agent.wait_for_status("probes by the closed gate", SOON, |status| {
            let counters = &lte(status)["counters"];
            counters["probes_passed"].as_u64() > Some(20) && counters["probes_cut"] == 0
        })?;
        let fault = lab.uplink("cable").blackhole()?;
        wait_active(&agent, "lte", &["cable"])?;
        fault.repair()?;
        wait_active(&agent, "cable", &[])?;
        for unwanted in ["Down", "Blind"] {
            assert_eq!(times(&agent, "lte", unwanted), 0, "{rewritten}");
        }
        agent.signal(Signal::SIGTERM)?;
        assert!(agent.wait_exit(SOON)?.success());
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn probes_without_their_socket_make_an_uplink_blind() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    let agent = lab.start_agent(&lab.agent_config().quick())?;
    wait_active(&agent, "cable", &[])?;
    // What goes on is a copy, which has no socket; the original gets no further than the gateway.
    host.nft(
        "table ip copy {\n\
         chain out {\n\
         type filter hook output priority filter\n\
         oifname lte icmp type echo-request dup to 10.64.2.1 device lte ip ttl set 1\n\
         }\n\
         }",
    )?;
    let lte = wait_health(&agent, "lte", "Blind")?;
    let reason = lte["families"]["ipv4"]["reason"].as_str();
    let reason = reason.unwrap_or_default();
    assert!(
        reason.contains("the gate of lte cuts the agent's own probes"),
        "{reason}"
    );
    assert!(lte["counters"]["probes_cut"].as_u64() > Some(0), "{lte:#}");
    assert_eq!(lte["gate"], "closed");
    // It is none of the line's fault, over a restart, too.
    agent.verb(&["restart"])?;
    wait_health(&agent, "lte", "Blind")?;
    host.nft("delete table ip copy")?;
    wait_active(&agent, "cable", &[])?;
    assert_eq!(times(&agent, "lte", "Down"), 0);
    assert_eq!(history(&agent, Family::V4)[0], "start-up cable");
    Ok(())
}
