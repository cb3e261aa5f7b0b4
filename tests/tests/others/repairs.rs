//! What others undo is put back, and told.

use std::{thread, time::Duration};

use failover_lab::{Lab, Scenario, wait_for};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, history, message};

use super::fixtures::{start, wait_restored};

#[test]
#[ignore = "needs root"]
fn what_others_undo_is_put_back_and_told() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    let [cable, lte] = ["cable", "lte"].map(|name| *lab.uplink(name).addresses());
    let before = lab.host().snapshot()?;
    let ours = format!("removed default via {} dev cable", cable.gateway_v4);
    let (lte_v4, source) = (lte.gateway_v4, lte.host_v4);
    let cases = [
        (
            "route del default dev cable metric 80".to_owned(),
            ours.as_str(),
            "metric 80: put back",
        ),
        (
            "-6 route del default dev cable metric 80".to_owned(),
            "removed default via fe80::1 dev cable proto 136",
            "metric 80: put back",
        ),
        // Takes the place of ours.
        (
            format!(
                "route replace default via {lte_v4} dev lte src {source} proto static metric 80"
            ),
            "protocol static (4), put default",
            "metric 80: displaced",
        ),
        (
            format!("route add default via {lte_v4} dev lte src {source} proto dhcp metric 1"),
            "protocol dhcp (16), put default",
            "metric 1: displaced",
        ),
        (
            "-6 route add default via fe80::1 dev lte proto ra metric 1".to_owned(),
            "protocol ra (9), put default",
            "proto ra metric 1: displaced",
        ),
        (
            "rule del pref 13665".to_owned(),
            "removed rule 13665: from",
            "lookup 13600: put back",
        ),
        // No default route.
        (
            format!("route del {} table 13600", cable.customer_v4()),
            "dev cable table 13600",
            "put back",
        ),
        (
            "route flush table 13601".to_owned(),
            "table 13601 proto 136",
            "put back",
        ),
        (
            "route flush proto 136".to_owned(),
            "removed default",
            "put back",
        ),
        (
            "-6 route flush proto 136".to_owned(),
            "removed default",
            "put back",
        ),
        (
            "rule flush\nrule add pref 32766 lookup main\nrule add pref 32767 lookup default"
                .to_owned(),
            "removed rule",
            "put back",
        ),
    ];
    for (command, who, end) in cases {
        // Of the same kind, a line a second at most is logged.
        thread::sleep(Duration::from_millis(1100));
        let told = agent.log().len();
        for line in command.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            lab.host().namespace().exec("ip", &words)?;
        }
        wait_restored(&lab, &before, &command)?;
        let what = format!("that {command:?} was undone");
        wait_for(&what, SOON, || {
            let log = agent.log().split_off(told);
            let repairs = log.iter().filter(|line| line.field("repairs").is_some());
            let mut lines: Vec<_> = repairs.map(|line| message(line).to_owned()).collect();
            if lines
                .iter()
                .any(|line| line.contains(who) && line.ends_with(end))
            {
                return Ok(());
            }
            lines.insert(0, format!("no {who:?} to {end:?}"));
            Err(lines.join("\n"))
        })?;
    }
    // In the place of one of ours, in our own table.
    let command = format!("route replace default via {lte_v4} dev lte table 13600 metric 1024");
    lab.host().namespace().ip_batch(&command)?;
    wait_restored(&lab, &before, &command)?;
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    let status = agent.status_json()?;
    assert_eq!(status["active"], "cable");
    Ok(())
}
