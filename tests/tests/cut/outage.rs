//! No uplink works: nothing is cut, since there is nothing better.

use std::{
    thread,
    time::{Duration, Instant},
};

use failover_ebpf::Gate;
use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{SOON, counters, gate, status, uplink, wait_for_status};

use super::fixtures::{WHILE, start};

#[test]
#[ignore = "needs root"]
fn connections_outlive_an_outage_of_all_uplinks() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let agent = start(&lab)?;
    let mut sending = Vec::new();
    let mut idle = Vec::new();
    for node in [lab.host(), lab.client()] {
        for target in [TARGET_V4, TARGET_V6] {
            sending.push(node.tcp_stream(target, Duration::from_millis(20))?);
            idle.push(node.tcp_idle(target)?);
        }
    }
    let before = counters(&agent, "cable")?;
    // The standby first: at no time is there another uplink to go to.
    let mut faults = Vec::new();
    for name in ["lte", "cable"] {
        faults.push(lab.uplink(name).blackhole()?);
        wait_for_status(&agent, &format!("{name} Down"), |status| {
            uplink(status, name).health == Health::Down
        })?;
    }
    thread::sleep(WHILE);
    let status = status(&agent)?;
    for family in Family::ALL {
        assert_eq!(gate(&status, "cable", family), Some(Gate::Open));
    }
    assert_eq!(
        counters(&agent, "cable")?.cut_packets,
        before.cut_packets,
        "nothing was cut"
    );
    let Some(cable) = faults.pop() else {
        panic!("two faults")
    };
    let repaired = cable.repair()?;
    for connection in &sending {
        connection.wait_received_after(repaired, SOON)?;
    }
    let now = Instant::now();
    for connection in sending.iter().chain(&idle) {
        assert_eq!(connection.state().ended, None, "{:?}", now - repaired);
    }
    Ok(())
}
