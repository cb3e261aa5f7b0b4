//! The program that may bring a dead uplink back.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use failover_lab::{Lab, Scenario};

use super::fixtures::*;

/// How soon a program is run again.
const EVERY: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs root"]
fn only_an_uplink_that_stays_down_is_recovered() -> Scenario {
    let lab = Lab::builder().build()?;
    let program = script(
        &lab,
        "power-cycle",
        "echo \"$1 $UPLINK $INTERFACE $REASON\" >> $DIR/env; date +%s%3N >> $DIR/recoveries; echo 'cycling'",
    )?;
    let program = program.to_string_lossy();
    let config = lab.agent_config().quick().uplink("cable", |cable| {
        cable.recover(&[&program, "port 3"]).recover_interval(EVERY)
    });
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable", &[])?;

    // More than a grace long, twice.
    let longer = || sleep(Duration::from_millis(1500));
    agent.verb(&["drill", "cable", "--for", "1h"])?;
    wait_health(&agent, "cable", "Down")?;
    longer();
    agent.verb(&["switch", "auto"])?;
    wait_active(&agent, "cable", &[])?;
    block(&lab, "192.0.2.1")?;
    wait_health(&agent, "cable", "Blind")?;
    longer();
    unblock(&lab)?;
    wait_active(&agent, "cable", &[])?;
    assert_eq!(written(&lab, "recoveries"), [""; 0], "without need");

    let fault = lab.uplink("cable").blackhole()?;
    let recoveries = wait_written(&lab, "recoveries", 3)?;
    fault.repair()?;
    wait_active(&agent, "cable", &[])?;
    let before = written(&lab, "recoveries");
    longer();
    assert_eq!(written(&lab, "recoveries"), before, "it is Up");
    let times: Vec<i64> = recoveries
        .iter()
        .map(|line| line.parse())
        .collect::<Result<_, _>>()?;
    for pair in times.windows(2) {
        // Processes do not start at once.
        assert!(pair[1] - pair[0] > 500, "{times:?}");
    }
    let told = written(&lab, "env");
    assert!(
        told.iter().all(|line| line == "port 3 cable cable recover"),
        "{told:?}"
    );
    let log = agent.log();
    let said: Vec<&str> = log
        .iter()
        .filter(|line| text(line, "hook") == "recover of cable")
        .map(|line| text(line, "message"))
        .collect();
    assert!(said.contains(&"recover of cable: cycling"), "{said:?}");
    let ended = said.iter().filter(|line| line.contains("exit status: 0"));
    assert!(ended.count() >= 3, "{said:?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn with_nowhere_to_go_it_is_recovered_too() -> Scenario {
    let lab = Lab::builder().build()?;
    let program = script(&lab, "power-cycle", "echo $UPLINK >> $DIR/$UPLINK")?;
    let program = program.to_string_lossy();
    let config = lab.agent_config().quick();
    let config = config.each_uplink(|uplink| uplink.recover(&[&program]).recover_interval(EVERY));
    let agent = lab.start_agent(&config)?;
    wait_active(&agent, "cable", &[])?;
    let _faults = [
        lab.uplink("cable").blackhole()?,
        lab.uplink("lte").blackhole()?,
    ];
    for name in ["cable", "lte"] {
        wait_written(&lab, name, 2)?;
    }
    Ok(())
}
