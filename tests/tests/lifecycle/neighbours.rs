//! Others on the same interface, and other agents on the same machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, LinkLayer, Options},
};
use failover_lab::{Lab, Namespace, Scenario, TARGET_V4, TARGETS_V4};
use failover_tests::fixtures::{
    SOON,
    json::{counter, wait_active},
    wait_sent,
};
use nix::{net::if_::if_nametoindex, sys::signal::Signal};
use serde_json::Value;

use super::fixtures::{Everything, run, start, start_with};

/// Another product's TCX programs on an interface, which count: as programs with pins of their own, ours will do.
struct Stranger {
    datapath: Datapath,
    ifindex: u32,
}

impl Stranger {
    /// Puts them before all that are there.
    fn attach(lab: &Lab, interface: &str, name: &str) -> Result<Stranger> {
        let options = Options {
            bpf_dir: lab.agent_dirs().bpf.with_file_name(name),
            attach: AttachMode::Tcx,
            probe_mark: 0,
        };
        lab.host().namespace().run(|| {
            let mut datapath = Datapath::open(&options)?;
            let ifindex = if_nametoindex(interface)?;
            datapath.attach(ifindex, LinkLayer::Ethernet)?;
            Ok(Stranger { datapath, ifindex })
        })
    }

    /// Packets sent and received.
    fn packets(&self) -> Result<[u64; 2]> {
        let counters = self.datapath.counters(self.ifindex)?;
        Ok([counters.tx_packets, counters.rx_packets])
    }
}

#[test]
#[ignore = "needs root"]
fn tcx_programs_of_others_run_before_and_after_ours() -> Scenario {
    let lab = Lab::builder().build()?;
    let after = Stranger::attach(&lab, "cable", "after")?;
    let after_gate = Stranger::attach(&lab, "lte", "after-gate")?;
    let mut agent = start(&lab)?;
    let before = Stranger::attach(&lab, "cable", "before")?;
    let before_gate = Stranger::attach(&lab, "lte", "before-gate")?;
    let all = lab.host().snapshot()?;
    assert_eq!(all.lines_with("tcx cable egress").len(), 3);
    assert_eq!(all.lines_with("tcx lte egress").len(), 3);

    let counts = || -> Result<_> { Ok([after.packets()?, before.packets()?]) };
    let gate_counts = || -> Result<_> { Ok([after_gate.packets()?[0], before_gate.packets()?[0]]) };
    let (open, closed) = (counts()?, gate_counts()?);
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    let forced = lab.host().udp_stream(TARGETS_V4[1].into());
    let forced = forced.from(lab.uplink("lte").host_v4()).start()?;
    wait_sent(&stream, 50)?;
    wait_sent(&forced, 50)?;
    let (stream, forced) = (stream.stop()?, forced.stop()?);
    assert_eq!(stream.lost(), 0);
    let sent = stream.sent() as u64;
    for (place, (then, now)) in open.into_iter().zip(counts()?).enumerate() {
        for direction in 0..2 {
            let seen = now[direction] - then[direction];
            assert!(seen >= sent, "{place}, {direction}: {seen} of {sent}");
        }
    }
    // What the gate cuts is seen before it, and only there. Probes pass, with a few neighbours' words.
    let cut = forced.sent() as u64;
    assert_eq!(forced.answered(), 0);
    let now = gate_counts()?;
    let status = agent.status_json()?;
    assert!(counter(&status, "lte", "cut_packets") >= cut);
    assert!(now[1] - closed[1] >= cut, "{closed:?}, {now:?}");
    let [passed, all] = [now[0] - closed[0], now[1] - closed[1]];
    assert!(
        passed + cut <= all + 1,
        "{passed} of {all} passed, {cut} cut"
    );

    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait_exit(SOON)?.code(), Some(0));
    let left = lab.host().snapshot()?;
    assert_eq!(left.lines_with("tcx cable egress").len(), 2);
    let then = counts()?;
    assert!(lab.host().ping(TARGET_V4, SOON)?.is_some());
    for (then, now) in then.into_iter().zip(counts()?) {
        assert!(now[0] > then[0] && now[1] > then[1]);
    }
    Ok(())
}

/// Packets that the filter of another program has counted.
fn filtered(namespace: &Namespace, interface: &str, direction: &str) -> Result<u64> {
    let command = ["-s", "-j", "filter", "show", "dev", interface, direction];
    let filters = namespace.exec_json("tc", &command)?;
    filters
        .as_array()
        .into_iter()
        .flatten()
        .filter(|filter| filter["pref"] == 10)
        .find_map(|filter| filter["options"]["actions"][0]["stats"]["packets"].as_u64())
        .with_context(|| format!("no count in {filters:#}"))
}

#[test]
#[ignore = "needs root"]
fn clsact_filters_of_others_keep_counting() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    // Mirroring counts, and disturbs nobody at an end where nobody listens.
    host.ip_batch(
        "link add mirror type veth peer name nobody\n\
         link set mirror up\n\
         link set nobody up",
    )?;
    for interface in ["cable", "lte"] {
        host.exec("tc", &["qdisc", "add", "dev", interface, "clsact"])?;
        for direction in ["ingress", "egress"] {
            let filter = format!(
                "filter add dev {interface} {direction} pref 10 protocol all \
                 u32 match u32 0 0 action mirred egress mirror dev mirror"
            );
            host.exec("tc", &filter.split(' ').collect::<Vec<_>>())?;
        }
    }
    let before = Everything::of(&lab)?;
    for attach in ["tcx", "clsact"] {
        let mut agent = start_with(&lab, &lab.agent_config().quick().attach(attach))?;
        let counts = |direction| filtered(host, "cable", direction);
        let then = [counts("egress")?, counts("ingress")?];
        let gated = filtered(host, "lte", "egress")?;
        let stream = lab.host().udp_stream(TARGET_V4).start()?;
        let forced = lab.host().udp_stream(TARGETS_V4[1].into());
        let forced = forced
            .from(lab.uplink("lte").host_v4())
            .every(Duration::from_millis(1))
            .start()?;
        wait_sent(&stream, 50)?;
        wait_sent(&forced, 200)?;
        let (stream, forced) = (stream.stop()?, forced.stop()?);
        let sent = stream.sent() as u64;
        let now = [counts("egress")?, counts("ingress")?];
        assert!(
            now[0] - then[0] >= sent && now[1] - then[1] >= sent,
            "{attach}: {sent} sent and answered, {then:?} to {now:?}"
        );
        // Cut packets do not come that far; probes do.
        let passed = filtered(host, "lte", "egress")? - gated;
        assert_eq!(forced.answered(), 0, "{attach}");
        assert!(passed < forced.sent() as u64, "{attach}: {passed} passed");
        if attach == "tcx" {
            agent.signal(Signal::SIGTERM)?;
            assert_eq!(agent.wait_exit(SOON)?.code(), Some(0));
        } else {
            agent.kill9()?;
            let reset = run(&lab, &["reset"])?;
            assert_eq!(reset.code, Some(0), "{reset:?}");
        }
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn two_agents_in_two_namespaces_do_not_meet() -> Scenario {
    // Interface names, and most likely indexes, are the same in both.
    let labs = [Lab::builder().build()?, Lab::builder().build()?];
    let mut first = start(&labs[0])?;
    let second = start(&labs[1])?;
    let stream = labs[1].host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    let _fault = labs[0].uplink("cable").blackhole()?;
    wait_active(&first, "lte")?;
    let switches = |status: &Value| status["switches"].as_array().map(Vec::len);
    let status = wait_active(&second, "cable")?;
    assert_eq!(switches(&status), Some(2), "one a family: {status:#}");
    first.signal(Signal::SIGTERM)?;
    assert_eq!(first.wait_exit(SOON)?.code(), Some(0));
    let status = wait_active(&second, "cable")?;
    assert_eq!(switches(&status), Some(2), "{status:#}");
    wait_sent(&stream, 20)?;
    let report = stream.stop()?;
    assert_eq!((report.path(), report.lost()), (vec!["cable"], 0));
    Ok(())
}
