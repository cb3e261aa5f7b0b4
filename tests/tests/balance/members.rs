//! Members that go Down and come back.

use anyhow::Result;
use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6};
use failover_policy::Family;

use super::{
    fixtures::{
        SOON, ensure_alive, ensure_never_without_route, history, start, three, two, wait_active,
    },
    flows::{Flows, connect_by},
};

#[test]
#[ignore = "needs root"]
fn only_the_connections_of_a_member_that_fails_are_cut() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "lte"])
        .lan()
        .build()?;
    let agent = start(&lab, &two(&lab), "cable,dsl")?;
    let (host, client) = (lab.host(), lab.client());
    let steady = host.udp_stream(TARGET_V4).start()?;
    let by = |uplink: &str| -> Result<_> {
        Ok([
            connect_by(&lab, host, TARGET_V4, uplink)?,
            connect_by(&lab, host, TARGET_V6, uplink)?,
            connect_by(&lab, client, TARGET_V4, uplink)?,
        ])
    };
    let (staying, leaving) = (by("cable")?, by("dsl")?);
    // Of IPv6 a plain multipath route: forwarded flows of others may move.
    let leaving_v6 = connect_by(&lab, client, TARGET_V6, "dsl")?;
    let mut flows = Flows::open(client, TARGET_V4, 40)?.only(&["cable", "dsl"]);

    let fault = lab.uplink("dsl").blackhole()?;
    wait_active(&lab, &agent, "cable")?;
    for connection in leaving.iter().chain([&leaving_v6]) {
        let ended = connection.wait_ended(SOON)?;
        assert!(ended.error.is_some(), "the server has closed it: {ended:?}");
    }
    ensure_alive(&staying)?;
    flows.ensure_all_by("cable")?;
    Flows::open(host, TARGET_V6, 20)?.only(&["cable"]);

    fault.repair()?;
    wait_active(&lab, &agent, "cable,dsl")?;
    // What has moved stays, too: its hash buckets are in use.
    flows.ensure_all_by("cable")?;
    ensure_alive(&staying)?;
    for target in [TARGET_V4, TARGET_V6] {
        Flows::open(host, target, 60)?.only(&["cable", "dsl"]);
    }
    let expected = ["start-up cable,dsl", "failover cable", "failback cable,dsl"];
    assert_eq!(history(&agent, Family::V4), expected);
    ensure_never_without_route(steady)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_member_that_leaves_and_joins_disturbs_nobody_on_two_others() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "fiber", "lte"])
        .lan()
        .build()?;
    let agent = start(&lab, &three(&lab), "cable,dsl,fiber")?;
    // Of a plain multipath route's flows many would move when its first member goes: from dsl to fiber.
    let staying = ["dsl", "fiber"];
    let (host, client) = (lab.host(), lab.client());
    let mut flows = [
        Flows::open(host, TARGET_V4, 60)?.only(&staying),
        Flows::open(host, TARGET_V6, 60)?.only(&staying),
        Flows::open(client, TARGET_V4, 120)?.only(&staying),
    ];
    let connections = [
        connect_by(&lab, host, TARGET_V4, "dsl")?,
        connect_by(&lab, host, TARGET_V6, "fiber")?,
        connect_by(&lab, client, TARGET_V4, "dsl")?,
        connect_by(&lab, client, TARGET_V4, "fiber")?,
    ];

    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&lab, &agent, "dsl,fiber")?;
    ensure_alive(&connections)?;
    for flows in &mut flows {
        flows.ensure_put()?;
    }
    fault.repair()?;
    wait_active(&lab, &agent, "cable,dsl,fiber")?;
    ensure_alive(&connections)?;
    for flows in &mut flows {
        flows.ensure_put()?;
    }
    Flows::open(client, TARGET_V4, 120)?.only(&["cable", "dsl", "fiber"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_member_may_fail_in_one_family_alone() -> Scenario {
    let lab = Lab::builder().uplinks(["cable", "dsl", "lte"]).build()?;
    let both = two(&lab).targets([TARGET_V4, TARGET_V6]);
    let agent = start(&lab, &both, "cable,dsl")?;
    let staying = [
        connect_by(&lab, lab.host(), TARGET_V4, "dsl")?,
        connect_by(&lab, lab.host(), TARGET_V6, "cable")?,
    ];
    let leaving = connect_by(&lab, lab.host(), TARGET_V6, "dsl")?;
    let fault = lab.uplink("dsl").towards(TARGET_V6).blackhole()?;
    leaving.wait_ended(SOON)?;
    Flows::open(lab.host(), TARGET_V6, 20)?.only(&["cable"]);
    Flows::open(lab.host(), TARGET_V4, 60)?.only(&["cable", "dsl"]);
    fault.repair()?;
    wait_active(&lab, &agent, "cable,dsl")?;
    ensure_alive(&staying)?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable,dsl"]);
    let expected = ["start-up cable,dsl", "failover cable", "failback cable,dsl"];
    assert_eq!(history(&agent, Family::V6), expected);
    Ok(())
}
