//! The fallback for kernels without TCX does the whole job.

use std::time::{Duration, Instant};

use anyhow::Result;
use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6, TARGETS_V4, UplinkSpec};
use failover_tests::fixtures::{
    SOON,
    json::{counter, wait_active},
    wait_sent,
};
use nix::sys::signal::Signal;

use super::fixtures::{Everything, start_with};

#[test]
#[ignore = "needs root"]
fn a_failover_and_a_failback_with_clsact() -> Scenario {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    let before = Everything::of(&lab)?;
    let mut agent = start_with(&lab, &lab.agent_config().quick().attach("clsact"))?;
    let during = lab.host().snapshot()?;
    assert_eq!(during.lines_with("tcx "), [""; 0]);
    for (program, count) in [("uplink_egress", 2), ("uplink_ingress", 2)] {
        assert_eq!(during.lines_with(program).len(), count, "{program}");
    }
    let streams = [TARGET_V4, TARGET_V6].map(|target| lab.host().udp_stream(target).start());
    let streams = streams.into_iter().collect::<Result<Vec<_>>>()?;
    for stream in &streams {
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    }

    let fault = lab.uplink("cable").blackhole()?;
    let status = wait_active(&agent, "lte")?;
    for stream in &streams {
        stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    }
    let cut = counter(&status, "cable", "cut_packets");
    let capture = lab
        .uplink("cable")
        .capture("udp", &lab.agent_dirs().scratch.join("cable.pcap"))?;
    let forced = lab
        .host()
        .udp_stream(TARGETS_V4[1].into())
        .from(lab.uplink("cable").host_v4())
        .every(Duration::from_millis(2))
        .start()?;
    wait_sent(&forced, 50)?;
    let sent = forced.stop()?.sent() as u64;
    assert_eq!(capture.finish()?.lines("")?, [""; 0]);
    let status = agent.status_json()?;
    assert!(counter(&status, "cable", "cut_packets") - cut >= sent);

    let repaired = fault.repair()?;
    wait_active(&agent, "cable")?;
    for stream in &streams {
        stream.wait_for_echo_by("cable", repaired, SOON)?;
    }
    for stream in streams {
        assert_eq!(stream.stop()?.path(), ["cable", "lte", "cable"]);
    }
    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait_exit(SOON)?.code(), Some(0));
    before.ensure_same(&Everything::of(&lab)?)?;
    Ok(())
}
