//! A lease that moves the uplink to another address and gateway is no outage.

use std::{thread::sleep, time::Duration};

use failover_lab::{Lab, Scenario, TARGET_V4};

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn a_move_costs_no_round() -> Scenario {
    let lab = Lab::builder().build()?;
    // One lost round would be the end.
    let config = lab.agent_config().targets([TARGET_V4]).fall(1).rise(1);
    let config = config.interval(Duration::from_millis(100));
    let agent = lab.start_agent(&config.timeout(Duration::from_secs(3)))?;
    wait_active(&agent, "cable", &[])?;
    // The old address is of no use any more, and the old gateway is gone. Some rounds are under way to nowhere when the new lease comes.
    let provider = lab.uplink("cable").provider();
    provider.nft(
        "table inet moved {\n\
         chain in {\n\
         type filter hook prerouting priority -400\n\
         iifname customer ip saddr 10.64.1.2 drop\n\
         }\n\
         }",
    )?;
    provider.ip_batch(
        "address del 10.64.1.1/24 dev customer\n\
         address add 10.64.1.129/24 dev customer",
    )?;
    sleep(Duration::from_millis(300));
    lab.host().namespace().ip_batch(
        "address del 10.64.1.2/24 dev cable\n\
         address add 10.64.1.130/24 dev cable\n\
         route replace default via 10.64.1.129 dev cable proto dhcp src 10.64.1.130 metric 5000",
    )?;
    agent.wait_for_status("the new way", SOON, |status| {
        let cable = &uplink(status, "cable")["families"]["ipv4"];
        cable["gateway"] == "10.64.1.129" && cable["source"] == "10.64.1.130"
    })?;
    // What was sent by the old way has ended.
    sleep(Duration::from_millis(3500));
    wait_active(&agent, "cable", &[])?;
    let log = agent.log();
    let failed = log.iter().filter(|line| line.field("probed").is_some());
    let failed: Vec<_> = failed.map(|line| &line.text).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}
