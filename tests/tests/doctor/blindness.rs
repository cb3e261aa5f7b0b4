//! The local reasons for which the agent calls an uplink Blind instead of Down.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_agent::{
    config::{Config, Dirs},
    doctor::blindness,
    route::{Link, Router},
    store::Store,
};
use failover_lab::{AgentProcess, Lab, Scenario, TARGET_V4, TARGET_V6};
use failover_policy::{Family, PerUplink, UplinkId};
use failover_tests::fixtures::SOON;
use serde_json::Value;

use super::diagnosis::probed_both;

const LTE: usize = 1;

/// A laboratory whose agent has set up tables and rules.
fn running() -> Result<(Lab, AgentProcess)> {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&probed_both(&lab))?;
    agent.wait_for_status("cable is active", SOON, |status| {
        status["active"] == "cable" && status["uplinks"][LTE]["health"] == "Up"
    })?;
    Ok((lab, agent))
}

fn links(lab: &Lab) -> Result<(Config, PerUplink<Link>)> {
    let config = Config::from_file(&lab.write_config(&probed_both(lab))?)?;
    let dirs = lab.agent_dirs();
    let dirs = Dirs {
        run: dirs.run.clone(),
        bpf: dirs.bpf.clone(),
        state: dirs.state.clone(),
    };
    let links = lab.host().namespace().run(|| {
        // What the agent has displaced is how the gateways are known.
        Router::connect(&config.route, Store::read_only(&dirs))?.read_links(&config)
    })?;
    Ok((config, links))
}

/// What is said of `lte`.
fn reason(lab: &Lab, family: Family, targets: &[IpAddr]) -> Result<Option<String>> {
    let (config, links) = links(lab)?;
    let mark = config.route.mark;
    lab.host()
        .namespace()
        .run(|| blindness(&links[UplinkId(LTE)], family, targets, mark))
}

#[test]
#[ignore = "needs root"]
fn a_seeing_uplink_is_not_blind_and_that_is_found_quickly() -> Scenario {
    let (lab, _agent) = running()?;
    for (family, target) in [(Family::V4, TARGET_V4), (Family::V6, TARGET_V6)] {
        assert_eq!(reason(&lab, family, &[target])?, None);
    }
    // Down, and not for a reason of ours.
    let fault = lab.uplink("lte").blackhole()?;
    assert_eq!(reason(&lab, Family::V4, &[TARGET_V4])?, None);
    fault.repair()?;

    let (config, links) = links(&lab)?;
    let quickest = lab.host().namespace().run(|| {
        let mut quickest = Duration::MAX;
        for _ in 0..50 {
            let begun = Instant::now();
            blindness(
                &links[UplinkId(LTE)],
                Family::V4,
                &[TARGET_V4],
                config.route.mark,
            )?;
            quickest = quickest.min(begun.elapsed());
        }
        Ok(quickest)
    })?;
    assert!(quickest < Duration::from_millis(5), "{quickest:?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn strict_reverse_path_filtering_blinds() -> Scenario {
    let (lab, agent) = running()?;
    let health = |status: &Value| status["uplinks"][LTE]["families"]["ipv4"]["health"].clone();
    let host = lab.host().namespace();
    host.set_sysctl("net/ipv4/conf/lte/rp_filter", "1")?;
    // The agent's rules make it content.
    assert_eq!(reason(&lab, Family::V4, &[TARGET_V4])?, None);
    host.ip_batch(&format!("route add {TARGET_V4} via 10.64.1.1 dev cable"))?;
    let told = reason(&lab, Family::V4, &[TARGET_V4])?.unwrap();
    assert!(
        told.contains("strict reverse path filtering on lte"),
        "{told}"
    );
    assert!(
        told.ends_with("sysctl -w net.ipv4.conf.lte.rp_filter=2"),
        "{told}"
    );
    // Truly: nothing comes back.
    agent.wait_for_status("lte is not Up", SOON, |status| health(status) != "Up")?;
    // One target that can answer is enough.
    let other: IpAddr = "198.51.100.1".parse()?;
    assert_eq!(reason(&lab, Family::V4, &[TARGET_V4, other])?, None);
    let (_, cure) = told.rsplit_once(": ").unwrap();
    host.exec("sh", &["-c", cure])?;
    assert_eq!(reason(&lab, Family::V4, &[TARGET_V4])?, None);
    agent.wait_for_status("lte is Up", SOON, |status| health(status) == "Up")?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_missing_route_blinds_and_an_unreachable_one_does_not() -> Scenario {
    let (lab, mut agent) = running()?;
    // It would put back what is missing.
    agent.kill9()?;
    let host = lab.host().namespace();
    for (family, target, flag) in [(Family::V4, TARGET_V4, "-4"), (Family::V6, TARGET_V6, "-6")] {
        for kind in ["unreachable", "blackhole", "prohibit"] {
            host.ip_batch(&format!("route add {kind} {target}"))?;
            assert_eq!(reason(&lab, family, &[target])?, None, "{kind} {target}");
            host.ip_batch(&format!("route del {kind} {target}"))?;
        }
        let (_, links) = links(&lab)?;
        host.exec("ip", &[flag, "route", "flush", "table", "13601"])?;
        host.exec("ip", &[flag, "route", "del", "default", "dev", "lte"])?;
        let mark = 0xfa11;
        let told = host.run(|| blindness(&links[UplinkId(LTE)], family, &[target], mark))?;
        let told = told.unwrap_or_default();
        assert!(
            told.starts_with(&format!("no route to {target} by lte: ")),
            "{told}"
        );
    }
    Ok(())
}
