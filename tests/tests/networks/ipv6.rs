//! IPv6 by router advertisements: what is learned from them, and a prefix that is replaced.

use std::net::Ipv6Addr;

use anyhow::Result;
use failover_lab::{
    LINK_LOCAL_GATEWAY, Scenario, TARGET_V6,
    daemon::{Advertisement, Router},
};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{SOON, rule_sources, stop, wait_for_health, wait_for_history};

use super::fixtures::{
    autoconfigured, ipv6_by_advertisements, prefix, start_agent, wait_for_answers,
    wait_for_next_hop_of, wait_for_routes,
};

#[test]
#[ignore = "needs root"]
fn gateways_are_learned_from_router_advertisements_whose_routes_stay() -> Scenario {
    let lab = ipv6_by_advertisements()?;
    let routers = ["cable", "lte"].map(|name| {
        let uplink = lab.uplink(name);
        Router::start(
            uplink,
            &Advertisement::of(LINK_LOCAL_GATEWAY, prefix(uplink, 0)),
        )
    });
    let _routers = routers.into_iter().collect::<Result<Vec<_>>>()?;
    let gateway = LINK_LOCAL_GATEWAY;
    // The kernel's metric for them (RFC 4861 knows none).
    let kernels = ["cable", "lte"].map(|name| format!("{name} {gateway} 1024"));
    wait_for_routes(&lab, Family::V6, &[], &kernels)?;
    let sources = [
        autoconfigured(&lab, "cable", 0)?,
        autoconfigured(&lab, "lte", 0)?,
    ];

    let agent = start_agent(&lab, &[Family::V4, Family::V6])?;
    wait_for_history(&agent, Family::V6, &["start-up cable"])?;
    wait_for_health(&agent, "lte", Family::V6, Health::Up)?;
    for (name, source) in ["cable", "lte"].into_iter().zip(sources) {
        wait_for_next_hop_of(&agent, name, gateway.into(), source.into())?;
    }
    wait_for_routes(
        &lab,
        Family::V6,
        &[format!("cable {gateway} 80"), format!("lte {gateway} 5001")],
        &kernels,
    )?;
    let answer = lab.host().ping(TARGET_V6, SOON)?;
    assert!(answer.is_some(), "{TARGET_V6} does not answer");
    stop(agent)?;
    wait_for_routes(&lab, Family::V6, &[], &kernels)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn of_an_old_and_a_new_prefix_the_new_one_is_the_source() -> Scenario {
    let lab = ipv6_by_advertisements()?;
    let advertise = |name| {
        let uplink = lab.uplink(name);
        let advertisement = Advertisement::of(LINK_LOCAL_GATEWAY, prefix(uplink, 0));
        Router::start(uplink, &advertisement)
    };
    let (cable, _lte) = (advertise("cable")?, advertise("lte")?);
    let [old, lte] = [
        autoconfigured(&lab, "cable", 0)?,
        autoconfigured(&lab, "lte", 0)?,
    ];
    let gateway = LINK_LOCAL_GATEWAY.into();
    let agent = start_agent(&lab, &[Family::V6])?;
    wait_for_history(&agent, Family::V6, &["start-up cable"])?;
    wait_for_next_hop_of(&agent, "cable", gateway, old.into())?;
    wait_for_next_hop_of(&agent, "lte", gateway, lte.into())?;

    cable.advertise(&Advertisement {
        prefixes: vec![
            (prefix(lab.uplink("cable"), 0), false),
            (prefix(lab.uplink("cable"), 1), true),
        ],
        ..Advertisement::of(LINK_LOCAL_GATEWAY, Ipv6Addr::UNSPECIFIED)
    })?;
    let new = autoconfigured(&lab, "cable", 1)?;
    assert_ne!(new, old);
    wait_for_next_hop_of(&agent, "cable", gateway, new.into())?;
    wait_for_answers(&agent, Family::V6, &["cable", "lte"])?;
    assert!(rule_sources(&lab, Family::V6)?.contains(&new.to_string()));
    wait_for_history(&agent, Family::V6, &["start-up cable"])?;
    stop(agent)?;
    Ok(())
}
