//! Reloads: many of them, and one that changes the program to run.

use failover_lab::{Lab, Scenario, TARGET_V4};
use nix::sys::signal::Signal;

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn a_storm_of_reloads_loses_nothing() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = lab.agent_config().quick();
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable", &[])?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    for number in 0..20 {
        // Every other one changes what is probed, and how lte is cut.
        let config = match number % 2 {
            0 => config.clone().fall(4).mode("drop"),
            _ => config.clone(),
        };
        lab.write_config(&config)?;
        let before = reloads(&agent);
        agent.signal(Signal::SIGHUP)?;
        if number >= 10 {
            continue;
        }
        failover_lab::wait_until("it is reloaded", SOON, || reloads(&agent) > before)?;
    }
    assert_eq!(
        agent.verb(&["reload"])?.trim(),
        "reloaded: nothing has changed"
    );
    let sent = stream.report().sent();
    failover_lab::wait_until("traffic goes on", SOON, || {
        stream.report().sent() > sent + 50
    })?;
    wait_active(&agent, "cable", &[])?;
    let stream = stream.stop()?;
    assert_eq!((stream.path(), stream.lost()), (vec!["cable"], 0));
    assert_eq!(history(&agent, Family::V4), ["start-up cable"]);
    Ok(())
}

fn reloads(agent: &failover_lab::AgentProcess) -> usize {
    let log = agent.log();
    let reloaded = |text: &str| text.starts_with("configuration reloaded");
    let lines = log.iter().filter(|line| reloaded(text(line, "message")));
    lines.count()
}

#[test]
#[ignore = "needs root"]
fn the_program_of_the_new_file_is_told_of_the_next_switch() -> Scenario {
    let lab = Lab::builder().build()?;
    let hooks = |name: &str| {
        let tell = format!("[ $FAMILY = ipv6 ] || echo $UPLINK >> $DIR/told-{name}");
        let program = script(&lab, name, &tell)?;
        let config = lab.agent_config().quick();
        anyhow::Ok(config.on_switch(&[&program.to_string_lossy()]))
    };
    let agent = lab.start_agent(&hooks("old")?)?;
    wait_active(&agent, "cable", &[])?;
    wait_written(&lab, "told-old", 1)?;
    lab.write_config(&hooks("new")?)?;
    agent.signal(Signal::SIGHUP)?;
    agent.wait_for_line("the reload", SOON, |line| {
        text(line, "message") == "configuration reloaded: changed [hooks]"
    })?;
    let _fault = lab.uplink("cable").blackhole()?;
    assert_eq!(wait_written(&lab, "told-new", 1)?, ["lte"]);
    assert_eq!(written(&lab, "told-old"), ["cable"]);
    Ok(())
}
