//! A lease that moves the uplink to another address and gateway is no outage.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use failover_tests::lab::{Lab, require_root};

use super::scene::*;

#[test]
fn a_move_costs_no_round() -> Result<()> {
    if !require_root("a_move_costs_no_round") {
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    let provider = lab.uplink("cable").provider();
    // One lost round would be the end; ten are under way at any time.
    let probe =
        "targets = [\"192.0.2.1\"]\ninterval = \"100ms\"\ntimeout = \"1s\"\nfall = 1\nrise = 1";
    // It learns its gateways.
    let config = lab.config(probe);
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable", &[])?;
    let mut old = (2, 1);
    for new in [(130, 129), (131, 130), (2, 1)] {
        // The old gateway is gone with the old lease, and does not answer.
        let ((was, left), (address, gateway)) = (old, new);
        provider.ip_batch(&format!(
            "address del 10.64.1.{left}/24 dev customer\n\
             address add 10.64.1.{gateway}/24 dev customer"
        ))?;
        lab.host().namespace().ip_batch(&format!(
            "address del 10.64.1.{was}/24 dev cable\n\
             address add 10.64.1.{address}/24 dev cable\n\
             route replace default via 10.64.1.{gateway} dev cable proto dhcp src 10.64.1.{address} metric 100"
        ))?;
        agent.wait_for_status("the new way", SOON, |status| {
            let cable = &uplink(status, "cable")["families"]["ipv4"];
            cable["gateway"] == format!("10.64.1.{gateway}")
                && cable["source"] == format!("10.64.1.{address}")
        })?;
        // What was sent by the old way has ended.
        sleep(Duration::from_millis(1500));
        wait_active(&agent, "cable", &[])?;
        old = new;
    }
    let log = agent.log();
    let failed = log.iter().filter(|line| line.field("probed").is_some());
    let failed: Vec<_> = failed.map(|line| &line.text).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, "IPv4"), ["start-up cable"]);
    Ok(())
}
