//! The order of preference: more than two uplinks, links of both kinds, and uplinks given by flags.

use std::time::Instant;

use failover_lab::{Lab, Scenario, TARGET_V4, UplinkSpec, pace};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{SOON, stop, wait_for_health, wait_for_history};

use super::fixtures::{Settings, check_active};

#[test]
#[ignore = "needs root"]
fn three_uplinks_with_and_without_gateway_are_used_in_order() -> Scenario {
    // An L3 link as the preferred one, and one as the last resort.
    let lab = Lab::builder()
        .uplinks([
            UplinkSpec::tun("fibre"),
            UplinkSpec::veth("cable"),
            UplinkSpec::tun("lte"),
        ])
        .build()?;
    let monitor = lab.host().watch_default_routes_v4()?;
    let agent = lab.start_agent(&Settings::default().config(&lab))?;
    wait_for_history(&agent, Family::V4, &["start-up fibre"])?;
    for name in ["cable", "lte"] {
        wait_for_health(&agent, name, Family::V4, Health::Up)?;
    }
    check_active(&lab, &agent, Family::V4, "fibre")?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("fibre", Instant::now(), SOON)?;

    let mut expected = vec!["start-up fibre"];
    let mut then = |switch| {
        expected.push(switch);
        wait_for_history(&agent, Family::V4, &expected)?;
        let (_, active) = switch.split_once(' ').unwrap();
        stream.wait_for_echo_by(active, Instant::now(), SOON)?;
        check_active(&lab, &agent, Family::V4, active)
    };
    let fibre = lab.uplink("fibre").blackhole()?;
    then("failover cable")?;
    let cable = lab.uplink("cable").blackhole()?;
    then("failover lte")?;
    cable.repair()?;
    then("failback cable")?;
    fibre.repair()?;
    then("failback fibre")?;

    // A standby's trouble is nobody's business.
    let cable = lab.uplink("cable").blackhole()?;
    wait_for_health(&agent, "cable", Family::V4, Health::Down)?;
    // And is passed over when it matters.
    let _fibre = lab.uplink("fibre").blackhole()?;
    then("failover lte")?;
    cable.repair()?;
    then("failback cable")?;

    let expected = ["fibre", "cable", "lte", "cable", "fibre", "lte", "cable"];
    assert_eq!(stream.stop()?.path(), expected);
    assert_eq!(
        monitor.finish()?,
        expected.map(|uplink| Some(uplink.to_owned()))
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn flags_with_explicit_gateways_need_no_route_to_learn_from() -> Scenario {
    let lab = Lab::builder()
        .uplinks(["cable", "lte"].map(|name| UplinkSpec::veth(name).without_default_routes()))
        .build()?;
    let before = lab.host().snapshot()?;
    assert_eq!(lab.host().default_routes_v4()?, []);
    let uplinks = lab.uplinks().iter().map(|uplink| {
        let gateway = uplink.addresses().gateway_v4;
        format!("{},gateway={gateway}", uplink.name())
    });
    let uplinks: Vec<String> = uplinks.collect();
    let target = TARGET_V4.to_string();
    let [interval, timeout] = [50, 250].map(|ms| format!("{}ms", ms * pace()));
    let agent = lab.spawn_agent(&[
        "run",
        "--uplink",
        &uplinks[0],
        "--uplink",
        &uplinks[1],
        "--target",
        &target,
        "--interval",
        &interval,
        "--timeout",
        &timeout,
        "--fall",
        "3",
        "--rise",
        "4",
    ])?;
    wait_for_history(&agent, Family::V4, &["start-up cable"])?;
    wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    check_active(&lab, &agent, Family::V4, "cable")?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    check_active(&lab, &agent, Family::V4, "lte")?;
    fault.repair()?;
    wait_for_history(
        &agent,
        Family::V4,
        &["start-up cable", "failover lte", "failback cable"],
    )?;
    stop(agent)?;
    before.ensure_same(&lab.host().snapshot()?)?;
    Ok(())
}
