//! Uplinks that look alike: the same gateway, the same network, even the same address, on links of their own.

use std::time::Instant;

use anyhow::Result;
use failover_lab::{AgentProcess, Lab, Scenario, TARGET_V4};
use failover_policy::Family;
use failover_tests::fixtures::{
    SOON, ensure_cut, history,
    json::{uplink, wait_health},
    times, wait_for_probes,
};

use super::fixtures::*;

/// A laboratory in which lte is in the same network as cable, behind a gateway of the same address.
fn lab(address: &str) -> Result<Lab> {
    let lab = Lab::builder().build()?;
    let provider = lab.uplink("lte").provider();
    provider.nft("flush chain inet provider filter_sources")?;
    provider.ip_batch(
        "address del 10.64.2.1/24 dev customer\n\
         address add 10.64.1.1/24 dev customer",
    )?;
    ip(
        &lab,
        &format!(
            "address del 10.64.2.2/24 dev lte\n\
             address add {address}/24 dev lte\n\
             route add default via 10.64.1.1 dev lte proto dhcp metric 5001"
        ),
    )?;
    Ok(lab)
}

fn each_is_judged_and_used_for_itself(lab: &Lab) -> Result<AgentProcess> {
    let agent = lab.start_agent(&config(lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;

    let fault = lab.uplink("lte").blackhole()?;
    wait_health(&agent, "lte", "Down")?;
    wait_for_probes(&agent, &["cable"], 20)?;
    assert_eq!(uplink(&agent.status_json()?, "cable")["health"], "Up");
    fault.repair()?;
    wait_ready(&agent, "cable", &["lte"])?;
    assert_eq!(times(&agent, "cable", "Down"), 0);

    let fault = lab.uplink("cable").blackhole()?;
    wait_ready(&agent, "lte", &[])?;
    stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    // A socket that chooses its source when it connects does not choose the uplink with it.
    drop(lab.host().tcp_idle(TARGET_V4)?);
    assert_eq!(times(&agent, "lte", "Down"), 1);
    fault.repair()?;
    wait_ready(&agent, "cable", &["lte"])?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    ensure_cut(lab, &agent, "lte", TARGET_V4)?;
    let expected = ["start-up cable", "failover lte", "failback cable"];
    assert_eq!(history(&agent, Family::V4), expected);
    Ok(agent)
}

#[test]
#[ignore = "needs root"]
fn the_same_gateway_and_network_on_two_links() -> Scenario {
    let lab = lab("10.64.1.3")?;
    each_is_judged_and_used_for_itself(&lab)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_same_address_on_two_links_belongs_to_the_active_one() -> Scenario {
    let lab = lab("10.64.1.2")?;
    let agent = each_is_judged_and_used_for_itself(&lab)?;
    // What cannot work, as documented: the address does not tell strict filtering by which link an answer may come.
    let host = lab.host().namespace();
    host.set_sysctl("net/ipv4/conf/lte/rp_filter", "1")?;
    let status = wait_health(&agent, "lte", "Blind")?;
    let reason = uplink(&status, "lte")["families"]["ipv4"]["reason"].as_str();
    assert!(
        reason.is_some_and(|reason| reason.contains("net.ipv4.conf.lte.rp_filter=2")),
        "{status:#}"
    );
    host.set_sysctl("net/ipv4/conf/lte/rp_filter", "2")?;
    wait_ready(&agent, "cable", &["lte"])?;
    Ok(())
}
