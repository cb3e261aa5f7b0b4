//! What is not there yet at the start is waited for.

use anyhow::Result;
use failover_lab::{Lab, Scenario, TARGET_V4};
use failover_policy::Family;
use failover_tests::fixtures::{
    ensure_cut, history,
    json::{uplink, wait_health},
    target, wait_for_probes,
};

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn an_interface_that_comes_after_the_start_is_set_up_and_cut() -> Scenario {
    let lab = Lab::builder().build()?;
    let unplugged = lab.uplink("lte").unplug()?;
    let agent = lab.start_agent(&config(&lab))?;
    let words = ["WARN", "no interface `lte` here", "cable", "waiting"];
    wait_words(&agent, &words)?;
    wait_ready(&agent, "cable", &[])?;
    assert_eq!(uplink(&agent.status_json()?, "lte")["health"], "Down");

    unplugged.repair()?;
    wait_ready(&agent, "cable", &["lte"])?;
    ensure_cut(&lab, &agent, "lte", TARGET_V4)?;

    // Pulled out and plugged in again: another index, in one go, so that nobody sees it gone.
    for _ in 0..2 {
        let unplugged = lab.uplink("lte").unplug()?;
        unplugged.repair()?;
        wait_health(&agent, "lte", "Up")?;
        wait_ready(&agent, "cable", &["lte"])?;
        ensure_cut(&lab, &agent, "lte", TARGET_V4)?;
    }
    let fault = lab.uplink("cable").blackhole()?;
    wait_ready(&agent, "lte", &[])?;
    fault.repair()?;
    wait_ready(&agent, "cable", &["lte"])?;
    let expected = ["start-up cable", "failover lte", "failback cable"];
    assert_eq!(history(&agent, Family::V4), expected);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_agent_starts_although_no_uplink_is_usable() -> Scenario {
    let lab = Lab::builder().build()?;
    let [cable, lte] = ["cable", "lte"].map(|name| lab.uplink(name).unplug());
    let (cable, lte) = (cable?, lte?);
    let agent = lab.start_agent(&config(&lab))?;
    for name in ["cable", "lte"] {
        wait_words(&agent, &[&format!("no interface `{name}` here")])?;
        wait_health(&agent, name, "Down")?;
    }
    assert!(agent.status_json()?["active"].is_null());
    lte.repair()?;
    wait_ready(&agent, "lte", &[])?;
    cable.repair()?;
    wait_ready(&agent, "cable", &["lte"])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn address_and_gateway_may_come_later_one_by_one() -> Scenario {
    let lab = Lab::builder().build()?;
    let a = *lab.uplink("lte").addresses();
    ip(&lab, "address flush dev lte scope global")?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_words(&agent, &["WARN", "lte has no IPv4 address", "waiting"])?;
    wait_ready(&agent, "cable", &[])?;
    ip(&lab, &format!("address add {}/24 dev lte", a.host_v4))?;
    wait_for_probes(&agent, &["cable"], 20)?;
    assert_ne!(uplink(&agent.status_json()?, "lte")["health"], "Up");
    ip(
        &lab,
        &format!("route add default via {} dev lte metric 900", a.gateway_v4),
    )?;
    wait_ready(&agent, "cable", &["lte"])?;
    ensure_cut(&lab, &agent, "lte", TARGET_V4)?;
    Ok(())
}

/// lte has an address of full length and another network, and is given a gateway to which there is no route yet.
fn a_route_to_the_gateway_may_come_last(family: Family) -> Result<()> {
    let lab = Lab::builder().build()?;
    let a = *lab.uplink("lte").addresses();
    let (addresses, gateway, length) = match family {
        Family::V4 => (
            [format!("{}/32", a.host_v4), "192.168.8.2/24".to_owned()],
            a.gateway_v4.to_string(),
            32,
        ),
        Family::V6 => (
            [
                format!("{}/128", a.host_v6),
                "fd00:8::2/64 nodad".to_owned(),
            ],
            a.gateway_v6.to_string(),
            128,
        ),
    };
    ip(&lab, "address flush dev lte scope global")?;
    for address in addresses {
        ip(&lab, &format!("address add {address} dev lte"))?;
    }
    let config = config(&lab).targets([target(family)]);
    let config = config.uplink("lte", |lte| match family {
        Family::V4 => lte.gateway(&gateway),
        Family::V6 => lte.gateway6(&gateway),
    });
    let agent = lab.start_agent(&config)?;
    wait_words(&agent, &["WARN", &gateway, "waiting"])?;
    wait_ready(&agent, "cable", &[])?;
    assert_ne!(uplink(&agent.status_json()?, "lte")["health"], "Up");
    for _ in 0..2 {
        ip(&lab, &format!("route add {gateway}/{length} dev lte"))?;
        wait_ready(&agent, "cable", &["lte"])?;
        ensure_cut(&lab, &agent, "lte", target(family))?;
        ip(&lab, &format!("route del {gateway}/{length} dev lte"))?;
        wait_health(&agent, "lte", "Down")?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_host_route_to_the_gateway_may_come_last() -> Scenario {
    a_route_to_the_gateway_may_come_last(Family::V4)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_host_route_to_the_ipv6_gateway_may_come_last() -> Scenario {
    a_route_to_the_gateway_may_come_last(Family::V6)?;
    Ok(())
}
