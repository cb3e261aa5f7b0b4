//! A router with a full routing table: what others' routes cost the agent.

use std::{fmt::Write as _, time::Duration};

use anyhow::Context;
use failover_lab::Scenario;
use failover_policy::Family;
use failover_tests::fixtures::{history, times};

use super::fixtures::*;

const ROUTES: u32 = 100_000;

/// Much more than it takes, much less than what would delay a switch on a busy machine.
const LIMIT: Duration = Duration::from_secs(5);

const MEMORY: u64 = 20 << 20;

#[test]
#[ignore = "needs root"]
fn a_new_gateway_is_followed_beside_a_hundred_thousand_routes() -> Scenario {
    let lab = with_two_gateways()?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    let before = agent.rss_bytes()?;

    let mut routes = String::new();
    for number in 0..ROUTES {
        let [_, a, b, c] = number.to_be_bytes();
        writeln!(
            routes,
            "route add 11.{a}.{b}.{c}/32 via 10.64.2.1 dev lte proto bgp"
        )?;
    }
    ip(&lab, &routes)?;
    let host = lab.host().namespace();
    let standing = host.exec("ip", &["route", "show", "proto", "bgp"])?;
    assert_eq!(standing.lines().count(), usize::try_from(ROUTES)?);
    ip(
        &lab,
        "route replace default via 10.64.1.254 dev cable proto dhcp metric 900",
    )?;
    wait_way(&agent, "cable", "ipv4", Some("10.64.1.254"), "10.64.1.2")?;
    wait_best_route(&lab, Family::V4, "cable", Some("10.64.1.254"))?;
    let log = agent.log();
    let at = |words: &str| {
        let mut lines = log.iter().rev();
        let line = lines.find(|line| line.text.contains(words));
        line.map(|line| line.at)
            .with_context(|| format!("no {words}"))
    };
    let took = at("routes: added default via 10.64.1.254 dev cable")? - at("netlink: Route")?;
    let grown = agent.rss_bytes()?.saturating_sub(before);
    eprintln!(
        "followed after {took:?}, memory grown by {} KiB",
        grown / 1024
    );
    assert!(took < LIMIT, "{took:?}");
    assert!(grown < MEMORY, "{grown} bytes");
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}
