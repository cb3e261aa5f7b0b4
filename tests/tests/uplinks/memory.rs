//! What the kernel drops with an interface is remembered, over a restart too.

use failover_lab::{Lab, Scenario, UplinkSpec};
use failover_tests::fixtures::{SOON, json::wait_health};

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn a_gateway_survives_its_interface_and_the_agent() -> Scenario {
    // Routes that nobody displaces, and nobody puts back.
    let lab = Lab::builder()
        .uplinks([
            UplinkSpec::veth("cable").metric(900),
            UplinkSpec::veth("lte").metric(901),
        ])
        .build()?;
    let mut agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    ip(&lab, "link set cable down\nlink set cable up")?;
    wait_health(&agent, "cable", "Down")?;
    wait_ready(&agent, "cable", &["lte"])?;

    // While it is down it is looked at, and then the agent dies.
    ip(&lab, "link set cable down")?;
    wait_ready(&agent, "lte", &[])?;
    agent.kill9()?;
    drop(agent);
    ip(&lab, "link set cable up")?;
    let file = lab.agent_dirs().state.join("gateways.json");
    let text = std::fs::read_to_string(&file)?;
    assert!(
        text.contains("default via 10.64.1.1 dev cable proto dhcp"),
        "{text}"
    );
    let agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_way(&agent, "cable", "ipv4", Some("10.64.1.1"), "10.64.1.2")?;

    // Another network: the old gateway is not on it.
    ip(
        &lab,
        "link set cable down\n\
         address flush dev cable scope global\n\
         link set cable up\n\
         address add 10.99.0.2/24 dev cable",
    )?;
    wait_ready(&agent, "lte", &[])?;
    let forgotten = || std::fs::read_to_string(&file).is_ok_and(|text| !text.contains("10.64.1.1"));
    failover_lab::wait_until("the gateway is forgotten", SOON, forgotten)?;
    Ok(())
}
