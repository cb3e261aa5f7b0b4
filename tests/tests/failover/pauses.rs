//! The agent itself does not run for a while: stopped by a signal, as by a suspended machine, or starved of CPU time. What it has slept
//! through says nothing about a link, and what it has missed it finds out afterwards.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_lab::{AgentProcess, Lab, Scenario, UplinkSpec, paced};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    has_health, history, status, times, wait_for_health, wait_for_history, wait_for_probes,
};
use nix::sys::signal::Signal;

use super::fixtures::{Settings, targets_v4, targets_v6};

fn pause(agent: &AgentProcess, time: Duration) -> Result<()> {
    agent.signal(Signal::SIGSTOP)?;
    sleep(time);
    agent.signal(Signal::SIGCONT)
}

/// Both families are probed.
fn dual(interval: u64, timeout: u64) -> Settings {
    Settings {
        targets: [targets_v4(), targets_v6()].concat(),
        interval: paced(interval),
        timeout: paced(timeout),
        ..Settings::default()
    }
}

/// Nothing was found Down, and nothing was switched but at the start.
fn check_calm(agent: &AgentProcess, after: &str) -> Result<()> {
    for family in Family::ALL {
        assert_eq!(history(agent, family), ["start-up cable"], "{after}");
    }
    for name in ["cable", "lte"] {
        assert_eq!(times(agent, name, "Down"), 0, "{name}, {after}");
    }
    // Since the pause, several rounds have shown it again.
    wait_for_probes(agent, &["cable", "lte"], 30)?;
    let now = status(agent)?;
    for (name, family) in [
        ("cable", Family::V4),
        ("cable", Family::V6),
        ("lte", Family::V4),
    ] {
        assert!(
            has_health(&now, name, family, Health::Up),
            "{name}, {after}"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn answers_that_have_waited_in_the_socket_are_none_missing() -> Scenario {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::tun("cable"), UplinkSpec::tun("lte")])
        .build()?;
    // Several rounds are always on their way.
    let way = paced(150);
    let _far = [
        lab.uplink("cable").delay(way)?,
        lab.uplink("lte").delay(way)?,
    ];
    // The last uplink has another beat.
    let config = dual(100, 800)
        .config(&lab)
        .uplink("lte", |lte| lte.interval(paced(40)));
    let agent = lab.start_agent(&config)?;
    for family in Family::ALL {
        wait_for_history(&agent, family, &["start-up cable"])?;
    }
    for name in ["cable", "lte"] {
        wait_for_health(&agent, name, Family::V6, Health::Up)?;
    }
    // Longer and shorter than a timeout, then hardly any time to run.
    for time in [1900, 1000, 500] {
        pause(&agent, paced(time))?;
        check_calm(&agent, &format!("paused for {:?}", paced(time)))?;
    }
    for _ in 0..12 {
        pause(&agent, paced(150))?;
        sleep(paced(10));
    }
    check_calm(&agent, "starved")?;

    // What happens meanwhile is found out all the same.
    agent.signal(Signal::SIGSTOP)?;
    let _fault = lab.uplink("cable").blackhole()?;
    sleep(paced(1000));
    agent.signal(Signal::SIGCONT)?;
    for family in Family::ALL {
        wait_for_history(&agent, family, &["start-up cable", "failover lte"])?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn agent_that_hardly_runs_finds_a_dead_uplink() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&dual(50, 100).config(&lab))?;
    for family in Family::ALL {
        wait_for_history(&agent, family, &["start-up cable"])?;
    }
    let _fault = lab.uplink("cable").blackhole()?;
    let over = Instant::now() + paced(20_000);
    let moved = || {
        Family::ALL
            .into_iter()
            .all(|family| history(&agent, family) == ["start-up cable", "failover lte"])
    };
    // Every timeout is noticed late, by more than as long again.
    while !moved() && Instant::now() < over {
        pause(&agent, paced(350))?;
        sleep(paced(20));
    }
    assert!(
        moved(),
        "{:?}",
        Family::ALL.map(|family| history(&agent, family))
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn outage_that_is_over_before_a_probe_has_timed_out_is_none() -> Scenario {
    let lab = Lab::builder().build()?;
    let settings = dual(50, 1500);
    let agent = lab.start_agent(&settings.config(&lab))?;
    for family in Family::ALL {
        wait_for_history(&agent, family, &["start-up cable"])?;
    }
    wait_for_health(&agent, "lte", Family::V6, Health::Up)?;
    for (name, outage) in [("cable", 400), ("lte", 700)] {
        let begun = Instant::now();
        let fault = lab.uplink(name).blackhole()?;
        sleep(paced(outage));
        fault.repair()?;
        let took = begun.elapsed();
        assert!(
            took < settings.timeout,
            "this machine is too slow: {took:?}"
        );
        // The timeouts of all that was sent meanwhile are over, and what was sent since is answered.
        sleep(settings.timeout);
        check_calm(&agent, &format!("{name} was out for {took:?}"))?;
    }
    Ok(())
}
