//! From which of several addresses an uplink's probes and connections leave, and leases of a single address.

use failover_lab::{Lab, Scenario};
use failover_policy::Family;
use failover_tests::fixtures::{
    SOON, history, json::uplink, target, times, wait_for_history, wait_for_probes,
};

use super::fixtures::*;

/// What `cable` and `lte` have beside their global addresses, the newest first for the kernel.
const UNIQUE_LOCAL: &str =
    "address add fd00:1::2/64 dev cable nodad\naddress add fd00:2::2/64 dev lte nodad";

#[test]
#[ignore = "needs root"]
fn a_unique_local_address_is_no_source_for_the_internet() -> Scenario {
    let lab = Lab::builder().build()?;
    ip(&lab, "address add fd00:1::2/64 dev cable nodad")?;
    let agent = lab.start_agent(&config_v6(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_way(&agent, "cable", "ipv6", Some("fe80::1"), "2001:db8:1::2")?;
    // On the other one it comes while the agent runs, and again on the first.
    ip(&lab, "address del fd00:1::2/64 dev cable")?;
    ip(&lab, UNIQUE_LOCAL)?;
    wait_for_probes(&agent, &["cable", "lte"], 20)?;
    for (name, source) in [("cable", "2001:db8:1::2"), ("lte", "2001:db8:2::2")] {
        let status = agent.status_json()?;
        assert_eq!(uplink(&status, name)["families"]["ipv6"]["source"], source);
        assert_eq!(times(&agent, name, "Down"), 0);
    }
    let fault = lab.uplink("cable").blackhole()?;
    wait_for_history(&agent, Family::V6, &["start-up cable", "failover lte"])?;
    assert!(lab.host().ping(target(Family::V6), SOON)?.is_some());
    fault.repair()?;
    agent.verb(&["restart"])?;
    wait_ready(&agent, "cable", &["lte"])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_given_source_is_heeded_by_a_reload_and_named_when_it_goes() -> Scenario {
    let lab = Lab::builder().build()?;
    ip(&lab, "address add 10.64.1.77/24 dev cable")?;
    let config = config(&lab);
    let agent = lab.start_agent(&config)?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_way(&agent, "cable", "ipv4", Some("10.64.1.1"), "10.64.1.2")?;

    let with_source = |source: &str| config.clone().uplink("cable", |cable| cable.source(source));
    lab.write_config(&with_source("10.64.1.77"))?;
    agent.verb(&["reload"])?;
    wait_way(&agent, "cable", "ipv4", Some("10.64.1.1"), "10.64.1.77")?;
    let kernels = || {
        let arguments = ["-4", "route", "get", "192.0.2.1"];
        lab.host().namespace().exec("ip", &arguments)
    };
    assert!(kernels()?.contains("src 10.64.1.77"), "{}", kernels()?);
    assert_eq!(times(&agent, "cable", "Down"), 0);

    ip(&lab, "address del 10.64.1.77/24 dev cable")?;
    wait_words(
        &agent,
        &[
            "cable",
            "egress path lost",
            "cable has no address 10.64.1.77",
            "`source`",
        ],
    )?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    ip(&lab, "address add 10.64.1.77/24 dev cable")?;
    let recovered = ["start-up cable", "failover lte", "failback cable"];
    wait_for_history(&agent, Family::V4, &recovered)?;

    // An address of another uplink is none of this one: a reload that says so waits for it.
    lab.write_config(&with_source("10.64.2.2"))?;
    agent.verb(&["reload"])?;
    wait_words(
        &agent,
        &["WARN", "cable has no address 10.64.2.2", "waiting"],
    )?;
    wait_ready(&agent, "lte", &[])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_lease_of_one_address_has_its_gateway_by_a_host_route() -> Scenario {
    let lab = Lab::builder().build()?;
    // As a DHCP client leaves it: the router by a route of its own (RFC 3442), the default route without `onlink`.
    let lease = |name: &str, n: u8, metric: u32| {
        format!(
            "address del 10.64.{n}.2/24 dev {name}\n\
             address add 10.64.{n}.2/32 dev {name}\n\
             route add 10.64.{n}.1 dev {name} proto dhcp scope link src 10.64.{n}.2\n\
             route add default via 10.64.{n}.1 dev {name} proto dhcp src 10.64.{n}.2 metric {metric}"
        )
    };
    ip(&lab, &lease("lte", 2, 900))?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_way(&agent, "lte", "ipv4", Some("10.64.2.1"), "10.64.2.2")?;
    // The other one's next lease is of that kind, too.
    ip(&lab, &lease("cable", 1, 901))?;
    wait_ready(&agent, "cable", &["lte"])?;
    wait_way(&agent, "cable", "ipv4", Some("10.64.1.1"), "10.64.1.2")?;
    wait_best_route(&lab, Family::V4, "cable", Some("10.64.1.1"))?;
    let before = history(&agent, Family::V4).len();

    let _fault = lab.uplink("cable").blackhole()?;
    agent.wait_for_status("lte is active", SOON, |status| status["active"] == "lte")?;
    assert!(history(&agent, Family::V4).len() > before);
    wait_best_route(&lab, Family::V4, "lte", Some("10.64.2.1"))?;
    assert!(lab.host().ping(target(Family::V4), SOON)?.is_some());
    Ok(())
}
