//! `reset` after kill -9 removes every trace.

use failover_lab::{Lab, Scenario, TARGET_V4};
use failover_tests::fixtures::{SOON, json::wait_active};

use super::fixtures::{Everything, run, set_foreign_route, start, start_with};

#[test]
#[ignore = "needs root"]
fn a_reset_after_kill_9_leaves_everything_as_it_was() -> Scenario {
    let lab = Lab::builder().build()?;
    set_foreign_route(&lab)?;
    let before = Everything::of(&lab)?;
    for attach in ["auto", "clsact"] {
        let mut agent = start_with(&lab, &lab.agent_config().quick().attach(attach))?;
        if attach == "clsact" {
            let fault = lab.uplink("cable").blackhole()?;
            wait_active(&agent, "lte")?;
            fault.repair()?;
        }
        agent.kill9()?;
        assert!(before.ensure_same(&Everything::of(&lab)?).is_err());

        let reset = run(&lab, &["reset"])?;
        assert_eq!(reset.code, Some(0), "{reset:?}");
        for trace in ["restored default via 10.64.1.1", "removed", "counters"] {
            assert!(reset.stdout.contains(trace), "{trace}: {reset:?}");
        }
        before.ensure_same(&Everything::of(&lab)?)?;
        assert!(!lab.agent_dirs().bpf.exists());
        assert!(lab.host().ping(TARGET_V4, SOON)?.is_some());

        let again = run(&lab, &["reset"])?;
        assert_eq!(again.code, Some(0), "{again:?}");
        assert_eq!(again.stdout, "nothing to reset: no trace of an agent\n");
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_running_agent_is_not_reset() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let running = Everything::of(&lab)?;
    let reset = run(&lab, &["reset"])?;
    assert_eq!(reset.code, Some(21), "{reset:?}");
    let pid = format!("process {}", agent.pid());
    assert!(reset.stderr.contains(&pid), "{reset:?}");
    assert_eq!(reset.stderr.lines().count(), 1, "{reset:?}");
    running.ensure_same(&Everything::of(&lab)?)?;
    wait_active(&agent, "cable")?;
    Ok(())
}
