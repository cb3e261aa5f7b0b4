//! Router advertisements that withdraw a router, and several routers on one link.

use std::net::Ipv6Addr;

use failover_lab::{
    LINK_LOCAL_GATEWAY, Scenario, TARGET_V6,
    daemon::{Advertisement, Preference, Router},
};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    SOON, history, state, stop, wait_for_health, wait_for_history, wait_for_status,
};

use super::fixtures::{
    autoconfigured, ipv6_by_advertisements, prefix, start_agent, wait_for_next_hop_of,
};

/// A second router on the same link.
const OTHER_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

#[test]
#[ignore = "needs root"]
fn a_router_that_takes_its_advertisement_back_makes_ipv6_alone_fail_over() -> Scenario {
    let lab = ipv6_by_advertisements()?;
    let advertisement = |name| Advertisement::of(LINK_LOCAL_GATEWAY, prefix(lab.uplink(name), 0));
    let cable = Router::start(lab.uplink("cable"), &advertisement("cable"))?;
    let _lte = Router::start(lab.uplink("lte"), &advertisement("lte"))?;
    for name in ["cable", "lte"] {
        autoconfigured(&lab, name, 0)?;
    }
    let agent = start_agent(&lab, &Family::ALL)?;
    for family in Family::ALL {
        wait_for_history(&agent, family, &["start-up cable"])?;
        wait_for_health(&agent, "lte", family, Health::Up)?;
    }

    cable.advertise(&Advertisement {
        lifetime: 0,
        ..advertisement("cable")
    })?;
    wait_for_history(&agent, Family::V6, &["start-up cable", "failover lte"])?;
    // The router still forwards, and would answer every probe.
    wait_for_status(&agent, "no IPv6 on cable", |status| {
        state(status, "cable", Family::V6)
            .is_none_or(|state| state.health == Health::Down && state.gateway.is_none())
    })?;
    assert!(lab.host().ping(TARGET_V6, SOON)?.is_some());

    cable.advertise(&advertisement("cable"))?;
    wait_for_history(
        &agent,
        Family::V6,
        &["start-up cable", "failover lte", "failback cable"],
    )?;

    // Its end says the same as a lifetime of 0.
    cable.stop()?;
    wait_for_history(
        &agent,
        Family::V6,
        &[
            "start-up cable",
            "failover lte",
            "failback cable",
            "failover lte",
        ],
    )?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    stop(agent)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn of_two_routers_the_preferred_one_is_used_as_long_as_it_is_there() -> Scenario {
    let lab = ipv6_by_advertisements()?;
    let cable = lab.uplink("cable");
    let at_cable = |router, preference| Advertisement {
        preference,
        ..Advertisement::of(router, prefix(cable, 0))
    };
    // The one that is less preferred is there first.
    let low = Router::start(cable, &at_cable(LINK_LOCAL_GATEWAY, Preference::Low))?;
    let lte = lab.uplink("lte");
    let _lte = Router::start(lte, &Advertisement::of(LINK_LOCAL_GATEWAY, prefix(lte, 0)))?;
    autoconfigured(&lab, "lte", 0)?;
    let source = autoconfigured(&lab, "cable", 0)?.into();
    let agent = start_agent(&lab, &[Family::V6])?;
    wait_for_history(&agent, Family::V6, &["start-up cable"])?;
    wait_for_health(&agent, "lte", Family::V6, Health::Up)?;
    wait_for_next_hop_of(&agent, "cable", LINK_LOCAL_GATEWAY.into(), source)?;

    let high = Router::start(cable, &at_cable(OTHER_ROUTER, Preference::High))?;
    wait_for_next_hop_of(&agent, "cable", OTHER_ROUTER.into(), source)?;
    // Whoever speaks last makes no difference.
    low.advertise(&at_cable(LINK_LOCAL_GATEWAY, Preference::Medium))?;
    super::fixtures::wait_for_answers(&agent, Family::V6, &["cable", "lte"])?;
    wait_for_next_hop_of(&agent, "cable", OTHER_ROUTER.into(), source)?;

    high.stop()?;
    wait_for_next_hop_of(&agent, "cable", LINK_LOCAL_GATEWAY.into(), source)?;
    super::fixtures::wait_for_answers(&agent, Family::V6, &["cable", "lte"])?;
    assert_eq!(history(&agent, Family::V6), ["start-up cable"]);
    stop(agent)?;
    Ok(())
}
