//! Manual overrides, and another configuration, while a group is active.

use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6, UplinkSpec};
use failover_policy::Family;

use super::{
    fixtures::{
        SOON, ensure_alive, ensure_never_without_route, history, start, three, two, wait_active,
    },
    flows::{Flows, connect_by},
};

#[test]
#[ignore = "needs root"]
fn a_member_is_chosen_by_hand_and_another_drilled() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "lte"])
        .lan()
        .build()?;
    let agent = start(&lab, &two(&lab), "cable,dsl")?;
    let steady = lab.host().udp_stream(TARGET_V4).start()?;
    let staying = [
        connect_by(&lab, lab.host(), TARGET_V6, "dsl")?,
        connect_by(&lab, lab.client(), TARGET_V4, "dsl")?,
    ];
    for order in [
        ["switch", "dsl"].as_slice(),
        &["drill", "cable", "--for", "1h"],
    ] {
        let leaving = connect_by(&lab, lab.client(), TARGET_V4, "cable")?;
        agent.verb(order)?;
        wait_active(&lab, &agent, "dsl")?;
        leaving.wait_ended(SOON)?;
        ensure_alive(&staying)?;
        agent.verb(&["switch", "auto"])?;
        wait_active(&lab, &agent, "cable,dsl")?;
        ensure_alive(&staying)?;
    }
    let leaving = connect_by(&lab, lab.client(), TARGET_V4, "cable")?;
    agent.verb(&["switch", "lte"])?;
    wait_active(&lab, &agent, "lte")?;
    leaving.wait_ended(SOON)?;
    agent.verb(&["switch", "auto"])?;
    wait_active(&lab, &agent, "cable,dsl")?;
    let expected = [
        "start-up cable,dsl",
        "manual dsl",
        "failback cable,dsl",
        "failover dsl",
        "failback cable,dsl",
        "manual lte",
        "failback cable,dsl",
    ];
    assert_eq!(history(&agent, Family::V4), expected);
    ensure_never_without_route(steady)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_reload_adds_and_removes_members_without_disturbing_the_others() -> Scenario {
    let lab = Lab::builder()
        // Before it is an uplink its default route is another program's, and must not have a metric of ours.
        .uplinks([
            UplinkSpec::veth("cable"),
            UplinkSpec::veth("dsl").metric(400),
            UplinkSpec::veth("fiber"),
            UplinkSpec::veth("lte"),
        ])
        .lan()
        .build()?;
    let all = three(&lab);
    let fewer = all.clone().only(&["cable", "fiber", "lte"]);
    let agent = start(&lab, &fewer, "cable,fiber")?;
    let (host, client) = (lab.host(), lab.client());
    let steady = host.udp_stream(TARGET_V4).start()?;
    let mut flows = [
        Flows::open(host, TARGET_V4, 40)?.only(&["cable", "fiber"]),
        Flows::open(host, TARGET_V6, 40)?.only(&["cable", "fiber"]),
        Flows::open(client, TARGET_V4, 80)?.only(&["cable", "fiber"]),
    ];
    // Between the others: their positions change.
    for (config, active) in [(all, "cable,dsl,fiber"), (fewer, "cable,fiber")] {
        lab.write_config(&config)?;
        agent.verb(&["reload"])?;
        wait_active(&lab, &agent, active)?;
        for flows in &mut flows {
            flows.ensure_put()?;
        }
        let members: Vec<&str> = active.split(',').collect();
        Flows::open(client, TARGET_V4, 120)?.only(&members);
    }
    ensure_never_without_route(steady)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_reload_changes_weights_and_lets_the_backup_join() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "lte"])
        .lan()
        .build()?;
    let agent = start(&lab, &two(&lab), "cable,dsl")?;
    let client = lab.client();
    let mut flows = [
        Flows::open(lab.host(), TARGET_V6, 40)?.only(&["cable", "dsl"]),
        Flows::open(client, TARGET_V4, 80)?.only(&["cable", "dsl"]),
    ];
    let alike = lab.agent_config().quick();
    let alike = alike.each_uplink(|uplink| uplink.rank(0));
    lab.write_config(&alike.uplink("dsl", |dsl| dsl.weight(8)))?;
    agent.verb(&["reload"])?;
    wait_active(&lab, &agent, "cable,dsl,lte")?;
    for flows in &mut flows {
        flows.ensure_put()?;
    }
    // 160 of 200 are to be expected, and 50 with the old weights, a few less for buckets in use.
    for node in [lab.host(), client] {
        let shares = Flows::open(node, TARGET_V4, 200)?.shares();
        assert!((110..=190).contains(&shares["dsl"]), "{shares:?}");
        assert!(shares["lte"] > 0, "{shares:?}");
    }
    // What was left is a backup again.
    lab.write_config(&two(&lab))?;
    agent.verb(&["reload"])?;
    wait_active(&lab, &agent, "cable,dsl")?;
    for flows in &mut flows {
        flows.ensure_put()?;
    }
    Ok(())
}
