//! After a failback old connections may finish on the other uplink, for a while or for good.

use std::time::{Duration, Instant};

use anyhow::Result;
use failover_ebpf::Gate;
use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6, TcpClient};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, gate, status, uplink, wait_for_active, wait_for_status};

use super::{
    fixtures::{AT_ONCE, WHILE, config, fail_over, foreign_packets, start_with, wait_for_cut},
    sockets::assert_cut,
};

#[test]
#[ignore = "needs root"]
fn old_connections_may_finish_until_the_drain_ends() -> Scenario {
    const DRAIN: Duration = Duration::from_millis(1500);

    let lab = Lab::builder().build()?;
    let config = config(&lab).mode("reset").drain(Duration::from_hours(1));
    // A metered uplink is left sooner.
    let config = config.uplink("lte", |lte| lte.metered(true).drain(DRAIN));
    let agent = start_with(&lab, &config)?;
    // A failover does not wait: nothing can finish on the lost uplink.
    let lost = lab.host().tcp_idle(TARGET_V4)?;
    let fault = fail_over(&lab, &agent, "cable", "lte")?;
    assert_cut("idle on the lost uplink", &lost.wait_ended(AT_ONCE)?);

    let old = [TARGET_V4, TARGET_V6].map(|target| -> Result<[TcpClient; 2]> {
        Ok([
            lab.host().tcp_stream(target, Duration::from_millis(20))?,
            lab.host().tcp_idle(target)?,
        ])
    });
    let old: Vec<[TcpClient; 2]> = old.into_iter().collect::<Result<_>>()?;
    let repaired = fault.repair()?;
    wait_for_active(&agent, "cable")?;
    let back = Instant::now();

    // While it lasts, new connections use the better uplink, and old ones live.
    let again = lab
        .host()
        .tcp_stream(TARGET_V4, Duration::from_millis(20))?;
    again.wait_received_after(Instant::now(), SOON)?;
    let connections = lab.servers().connections();
    let newest = connections
        .last()
        .and_then(|newest| newest.uplink.as_deref());
    assert_eq!(newest, Some("cable"));
    let now = status(&agent)?;
    if back.elapsed() < DRAIN / 2 {
        let state = uplink(&now, "lte").families.get(Family::V4);
        assert!(state.is_some_and(|state| state.draining_s.is_some()));
        assert_eq!(gate(&now, "lte", Family::V4), Some(Gate::Open));
    }

    for [sending, idle] in &old {
        for (what, connection) in [("sending", sending), ("idle", idle)] {
            let ended = connection.wait_ended(SOON)?;
            let lived = ended.at - repaired;
            assert!(lived >= DRAIN, "{what} lived for {lived:?}");
            assert_cut(what, &ended);
        }
        let last = sending.state().last_receive;
        let worked = last.map(|last| last.saturating_duration_since(repaired));
        assert!(worked >= Some(DRAIN / 2), "it worked for {worked:?}");
    }
    let now = wait_for_cut(&agent, "cable")?;
    for family in Family::ALL {
        assert_eq!(gate(&now, "lte", family), Some(Gate::Closed));
    }
    assert_eq!(again.state().ended, None);
    assert_eq!(foreign_packets(&lab)?, []);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn uplink_that_goes_down_while_it_drains_is_cut_at_once() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start_with(&lab, &config(&lab).drain(Duration::from_hours(1)))?;
    let fault = fail_over(&lab, &agent, "cable", "lte")?;
    let idle = lab.host().tcp_idle(TARGET_V4)?;
    fault.repair()?;
    wait_for_active(&agent, "cable")?;
    std::thread::sleep(WHILE);
    assert_eq!(idle.state().ended, None);
    let _fault = lab.uplink("lte").blackhole()?;
    assert_cut("idle", &idle.wait_ended(SOON)?);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn failback_without_cutoff_leaves_old_connections_alone() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = config(&lab).failover("reset").failback("off");
    let agent = start_with(&lab, &config)?;
    let lost = lab.host().tcp_idle(TARGET_V4)?;
    let fault = fail_over(&lab, &agent, "cable", "lte")?;
    assert_cut("idle on the lost uplink", &lost.wait_ended(AT_ONCE)?);
    let old = lab
        .host()
        .tcp_stream(TARGET_V4, Duration::from_millis(20))?;
    fault.repair()?;
    wait_for_active(&agent, "cable")?;
    wait_for_status(&agent, "both gates open", |status| {
        Family::ALL
            .into_iter()
            .all(|family| matches!(gate(status, "lte", family), Some(Gate::Open)))
    })?;
    std::thread::sleep(WHILE);
    old.wait_received_after(Instant::now(), SOON)?;
    assert_eq!(old.state().ended, None);
    assert_eq!(foreign_packets(&lab)?, []);
    Ok(())
}
