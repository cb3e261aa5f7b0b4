//! A program that does not give in.

use std::{
    os::unix::process::CommandExt as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use failover_lab::{Lab, Scenario};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, history, message};
use serde_json::Value;

use super::fixtures::{Script, start, wait_restored};

#[test]
#[ignore = "needs root"]
fn a_script_that_puts_its_default_route_again_and_again_is_reported_with_a_cure() -> Scenario {
    /// Between two looks at contested routes.
    const PAUSE: Duration = Duration::from_secs(1);

    let lab = Lab::builder().build()?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    let before = lab.host().snapshot()?;
    let begun = Instant::now();
    let lte = *lab.uplink("lte").addresses();
    let (gateway, source) = (lte.gateway_v4, lte.host_v4);
    let script = Script::start(
        lab.host().namespace(),
        &format!(
            "while :; do ip route add default via {gateway} dev lte proto dhcp src {source} metric 1; sleep 0.1; done"
        ),
    )?;

    let is_conflict = |line: &&failover_lab::LogLine| line.field("remedy").is_some();
    let line = agent.wait_for_line("a conflict", 3 * SOON, |line| is_conflict(&line))?;
    let text = message(&line);
    assert!(
        text.starts_with(
            "route conflict: protocol dhcp (16) adds default routes that beat the agent's"
        ),
        "{text}"
    );
    assert!(text.contains("dhcpcd `metric 700`"), "{text}");
    assert_eq!(line.field("level").and_then(Value::as_str), Some("WARN"));
    let status = agent.wait_for_status("the conflict", SOON, |status| {
        status["conflicts"][0]["repairs"].as_u64() > Some(6)
    })?;
    let conflict = &status["conflicts"][0];
    assert_eq!(conflict["contender"], "protocol dhcp (16)");
    assert_eq!(conflict["family"], "ipv4");
    assert_eq!(
        conflict["what"],
        "adds default routes that beat the agent's"
    );
    assert!(
        conflict["remedy"]
            .as_str()
            .context("no remedy")?
            .contains("700")
    );
    assert_eq!(status["conflicts"].as_array().map(Vec::len), Some(1));
    // For people, too.
    let text = agent.verb(&["status"])?;
    assert!(
        text.contains("Route conflict: protocol dhcp (16)"),
        "{text}"
    );

    // It is restored as long as it goes on, but not at any rate; said once; and the policy is not drawn into it.
    thread::sleep(2 * PAUSE);
    let log = agent.log();
    let most = 2 + begun.elapsed().as_millis() / PAUSE.as_millis();
    let displaced = |line: &&failover_lab::LogLine| {
        message(line).starts_with("routes: displaced default")
            && message(line).ends_with("metric 1")
    };
    let repairs = log.iter().filter(displaced).count() as u128;
    assert!((7..=most).contains(&repairs), "{repairs} of at most {most}");
    let told = log.iter().filter(|line| line.field("repairs").is_some());
    assert!(told.count() as u128 <= most);
    assert_eq!(log.iter().filter(is_conflict).count(), 1);
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);

    drop(script);
    wait_restored(&lab, &before, "the script")?;
    assert_eq!(agent.status_json()?["active"], "cable");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_script_that_flushes_our_rules_is_no_match_for_us() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    let before = lab.host().snapshot()?;
    let script = Script::start(
        lab.host().namespace(),
        "while :; do for pref in 13600 13664 13665 13666; do ip rule del pref $pref; done; sleep 0.2; done",
    )?;
    agent.wait_for_status("a conflict about rules", 3 * SOON, |status| {
        let conflicts = status["conflicts"].as_array().into_iter().flatten();
        let mut rules =
            conflicts.filter(|conflict| conflict["what"] == "removes the agent's rules");
        rules.any(|conflict| {
            let remedy = conflict["remedy"].as_str().unwrap_or_default();
            conflict["contender"] == "an unknown program"
                && remedy.contains("ManageForeignRoutingPolicyRules=no")
        })
    })?;
    drop(script);
    wait_restored(&lab, &before, "the script")?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_program_that_removes_our_route_is_named_with_its_own_cure() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    let before = lab.host().snapshot()?;
    // The kernel calls a process what its file is called; what it does is `ip`'s.
    let program = lab.agent_dirs().scratch.join("dhcpcd");
    let paths = std::env::var_os("PATH").context("no PATH")?;
    let ip = std::env::split_paths(&paths).map(|dir| dir.join("ip"));
    let ip = ip.into_iter().find(|path| path.is_file());
    std::os::unix::fs::symlink(ip.context("no ip")?, &program)?;
    let mut client = Script::spawn(
        lab.host()
            .namespace()
            .command(&program)
            .arg0("ip")
            .args(["-force", "-batch", "-"]),
    )?;

    let named = format!("dhcpcd (process {}) removed default via", client.pid());
    let conflict = |status: &Value| {
        status["conflicts"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    };
    let deadline = Instant::now() + 3 * SOON;
    while !conflict(&agent.status_json()?) {
        assert!(Instant::now() < deadline, "no conflict");
        client.feed("route del default dev cable metric 80")?;
        thread::sleep(Duration::from_millis(200));
    }
    let status = agent.status_json()?;
    let conflict = &status["conflicts"][0];
    assert_eq!(conflict["contender"], "dhcpcd");
    assert_eq!(conflict["what"], "removes or replaces the agent's routes");
    let remedy = conflict["remedy"].as_str().context("no remedy")?;
    assert!(remedy.contains("/etc/dhcpcd.conf"), "{remedy}");
    let line = agent.wait_for_line("who did it", SOON, |line| message(line).contains(&named))?;
    assert!(message(&line).ends_with("put back"), "{}", line.text);
    let process = line.field("process").and_then(Value::as_u64);
    assert_eq!(process, Some(client.pid().into()));
    drop(client);
    wait_restored(&lab, &before, "the removals")?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}
