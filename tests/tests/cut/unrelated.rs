//! What has nothing to do with the uplink that is cut.

use std::time::{Duration, Instant};

use anyhow::Result;
use failover_lab::{LAN_HOST_V4, LAN_HOST_V6, Lab, Scenario, TARGET_V4, TARGET_V6, UplinkSpec};
use failover_tests::fixtures::SOON;

use super::{
    fixtures::{WHILE, fail_over, settled, start, wait_for_cut},
    sockets::Pair,
};

#[test]
#[ignore = "needs root"]
fn connections_that_use_other_links_survive() -> Scenario {
    survive(["cable", "lte"].map(UplinkSpec::veth))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn connections_that_use_other_links_than_an_l3_uplink_survive() -> Scenario {
    survive(["cable", "lte"].map(UplinkSpec::tun))?;
    Ok(())
}

fn survive(uplinks: [UplinkSpec; 2]) -> Result<()> {
    let lab = Lab::builder().uplinks(uplinks).lan().build()?;
    let agent = start(&lab)?;
    let (host, client) = (lab.host().namespace(), lab.client().namespace());
    let localhost = |text: &str| text.parse::<std::net::IpAddr>();
    let cable = lab.uplink("cable");
    let mut pairs = Vec::new();
    for (what, from, to) in [
        ("LAN to host", client, LAN_HOST_V4.into()),
        ("LAN to host, IPv6", client, LAN_HOST_V6.into()),
        ("loopback", host, localhost("127.0.0.1")?),
        ("loopback, IPv6", host, localhost("::1")?),
        // Never on the wire of the uplink either.
        ("LAN to the uplink's address", client, cable.host_v4()),
        ("LAN to the uplink's address, IPv6", client, cable.host_v6()),
        ("host to itself", host, cable.host_v4()),
        ("host to itself, IPv6", host, cable.host_v6()),
    ] {
        pairs.push((what, Pair::connect((from, None), (host, to))?));
    }
    let mut check = |when: &str| {
        let lost = pairs.iter_mut().filter_map(|(what, pair)| {
            let error = pair.exchange().err()?;
            Some(format!("{what} {when}: {error:#}"))
        });
        let lost: Vec<String> = lost.collect();
        assert!(lost.is_empty(), "{lost:#?}");
    };
    check("before");
    let fault = fail_over(&lab, &agent, "cable", "lte")?;
    check("after the failover");
    fault.repair()?;
    wait_for_cut(&agent, "cable")?;
    check("after the failback");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_active_uplinks_own_connections_survive_what_happens_to_others() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "lte", "sat"])
        .lan()
        .build()?;
    let agent = start(&lab)?;
    agent.verb(&["switch", "lte"])?;
    wait_for_cut(&agent, "lte")?;
    let mut connections = Vec::new();
    for target in [TARGET_V4, TARGET_V6] {
        for node in [lab.host(), lab.client()] {
            connections.push(node.tcp_stream(target, Duration::from_millis(20))?);
            connections.push(node.tcp_idle(target)?);
        }
    }
    // Health comes and goes on both sides of the active one in rank.
    for name in ["cable", "sat"] {
        let fault = lab.uplink(name).blackhole()?;
        std::thread::sleep(WHILE);
        fault.repair()?;
        settled(&agent)?;
    }
    let now = Instant::now();
    for connection in &connections {
        assert_eq!(connection.state().ended, None);
    }
    for sending in connections.iter().step_by(2) {
        sending.wait_received_after(now, SOON)?;
    }
    Ok(())
}
