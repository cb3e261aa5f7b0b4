//! Probes that say nothing for a reason of this host: the uplink is Blind, and stays in use.

use std::time::Duration;

use anyhow::Result;
use failover_lab::{Lab, Scenario, TARGETS_V4};
use serde_json::Value;

use super::fixtures::*;

/// The uplink is Blind for a reason with these words, in the status and in the log, and nothing was switched.
fn check_blind(agent: &failover_lab::AgentProcess, name: &str, words: &[&str]) -> Result<String> {
    let has_words = |text: &str| words.iter().all(|word| text.contains(word));
    let status = agent.wait_for_status(&format!("{name} Blind: {words:?}"), SOON, |status| {
        let uplink = uplink(status, name);
        let reason = &uplink["families"]["ipv4"]["reason"];
        uplink["health"] == "Blind" && reason.as_str().is_some_and(has_words)
    })?;
    assert_eq!(status["active"], name);
    agent.wait_for_line("why it is Blind", SOON, |line| {
        text(line, "uplink") == name && text(line, "to") == "Blind" && has_words(&line.text)
    })?;
    let reason = &uplink(&status, name)["families"]["ipv4"]["reason"];
    Ok(reason.as_str().unwrap_or_default().to_owned())
}

#[test]
#[ignore = "needs root"]
fn reverse_path_filtering_that_discards_the_answers() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    let agent = lab.start_agent(&lab.agent_config().quick())?;
    wait_active(&agent, "cable", &[])?;
    host.set_sysctl("net/ipv4/conf/cable/rp_filter", "1")?;
    // A user's own route comes before our rules.
    host.ip_batch("route add 192.0.2.1 via 10.64.2.1 dev lte")?;
    let words = ["strict reverse path filtering on cable", "sysctl -w "];
    let reason = check_blind(&agent, "cable", &words)?;
    // A reload does not forget it.
    agent.verb(&["reload"])?;
    let status = agent.status_json()?;
    let known = &uplink(&status, "cable")["families"]["ipv4"]["reason"];
    assert_eq!(known.as_str(), Some(reason.as_str()));
    let (_, cure) = reason.rsplit_once(": ").unwrap_or_default();
    host.exec("sh", &["-c", cure])?;
    wait_active(&agent, "cable", &[])?;
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_firewall_that_refuses_probes_and_a_target_on_the_link() -> Scenario {
    let lab = Lab::builder().build()?;
    // The one that answers does not make up for the one that cannot be asked.
    let config = lab.agent_config().quick();
    let config = config.targets([TARGETS_V4[0], TARGETS_V4[1]]).quorum(2);
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable", &[])?;
    block(&lab, "192.0.2.1")?;
    let words = ["a firewall of this host", "let ICMP echo requests pass"];
    check_blind(&agent, "cable", &words)?;
    unblock(&lab)?;
    let status = wait_active(&agent, "cable", &[])?;
    let cable = &uplink(&status, "cable")["families"]["ipv4"];
    assert_eq!(cable["reason"], Value::Null);

    let ip = |lines| lab.host().namespace().ip_batch(lines);
    ip("address add 192.0.2.77/24 dev cable")?;
    let words = ["192.0.2.1", "own network", "beyond the gateway"];
    check_blind(&agent, "cable", &words)?;
    ip("address del 192.0.2.77/24 dev cable")?;
    wait_active(&agent, "cable", &[])?;
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_first_round_and_the_only_one_are_explained_too() -> Scenario {
    let lab = Lab::builder().build()?;
    let program = script(&lab, "power-cycle", "echo $UPLINK >> $DIR/resets")?;
    let host = lab.host().namespace();
    host.set_sysctl("net/ipv4/conf/lte/rp_filter", "1")?;
    let route = |verb| host.ip_batch(&format!("route {verb} 192.0.2.1 via 10.64.1.1 dev cable"));
    for fall in [3, 1] {
        route("add")?;
        let config = lab.agent_config().quick().fall(fall);
        let config = config.uplink("lte", |lte| lte.recover(&[&program.to_string_lossy()]));
        let mut agent = lab.start_agent(&config)?;
        let reason = |lte: &Value| lte["families"]["ipv4"]["reason"].to_string();
        let lte = wait_health(&agent, "lte", "Blind")?;
        assert!(reason(&lte).contains("reverse path"), "{lte:#}");
        route("del")?;
        wait_active(&agent, "cable", &[])?;
        // Again, now that it was Up.
        route("add")?;
        wait_health(&agent, "lte", "Blind")?;
        route("del")?;
        wait_active(&agent, "cable", &[])?;
        assert_eq!(times(&agent, "lte", "Down"), 0);
        assert_eq!(written(&lab, "resets"), [""; 0]);
        agent.signal(nix::sys::signal::Signal::SIGTERM)?;
        assert!(agent.wait_exit(SOON)?.success());
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_route_that_refuses_a_target_is_wanted() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = lab.agent_config().quick();
    let config = config.uplink("lte", |lte| lte.targets([TARGETS_V4[1]]));
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable", &[])?;
    let ip = |lines| lab.host().namespace().ip_batch(lines);
    // In the uplink's own table: probes do not follow the main one.
    ip("route add unreachable 192.0.2.1 table 13600")?;
    wait_active(&agent, "lte", &["cable"])?;
    wait_health(&agent, "cable", "Down")?;
    assert_eq!(times(&agent, "cable", "Blind"), 0);
    ip("route del unreachable 192.0.2.1 table 13600")?;
    wait_active(&agent, "cable", &[])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn oddities_of_this_host_do_not_hide_an_outage() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    // Of one target answers are discarded, another one must not be asked, and the third can tell.
    host.set_sysctl("net/ipv4/conf/cable/rp_filter", "1")?;
    host.ip_batch("route add 192.0.2.1 via 10.64.2.1 dev lte")?;
    block(&lab, "198.51.100.1")?;
    let config = lab.agent_config().quick().targets(TARGETS_V4);
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable", &[])?;
    let fault = lab.uplink("cable").blackhole()?;
    let line = agent.wait_for_line("the failover", SOON, |line| {
        is_switch(line, "IPv4") && text(line, "to") == "lte"
    })?;
    // 0.65 s on an idle machine.
    let took = line.at.saturating_duration_since(fault.since());
    assert!(took < Duration::from_secs(5), "{took:?}");
    wait_health(&agent, "cable", "Down")?;
    assert_eq!(times(&agent, "cable", "Blind"), 0);
    Ok(())
}
