//! What `bpftool` shows is what was on the wire.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use failover_lab::{Lab, Scenario, TARGET_V4, TARGETS_V4, wait_for};
use failover_tests::fixtures::{
    SOON,
    json::{counter, uplink},
    wait_sent,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::fixtures::start_with;

/// Keeps the gates closed while the agent is stopped.
const LONG_LEASE: Duration = Duration::from_hours(1);

/// Counters that only grow.
const NAMES: [&str; 7] = [
    "tx_packets",
    "tx_bytes",
    "rx_packets",
    "rx_bytes",
    "cut_packets",
    "cut_bytes",
    "probes_passed",
];

/// The formatted entry of an interface in a pinned map.
fn dump(lab: &Lab, map: &str, interface: &str) -> Result<Value> {
    let namespace = lab.host().namespace();
    let link = namespace.exec_json("ip", &["-j", "link", "show", interface])?;
    let pin = lab.agent_dirs().bpf.join(map);
    let pin = pin.to_string_lossy();
    let entries = namespace.exec_json("bpftool", &["-j", "map", "dump", "pinned", &pin])?;
    entries
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| &entry["formatted"])
        .find(|entry| entry["key"] == link[0]["ifindex"])
        .cloned()
        .with_context(|| format!("no entry of {interface} in {entries:#}"))
}

/// The sums over all processors, in the order of [`NAMES`].
fn counters(lab: &Lab, interface: &str) -> Result<[u64; NAMES.len()]> {
    let entry = dump(lab, "counters", interface)?;
    let processors = entry["values"].as_array().context("no values")?;
    assert!(!processors.is_empty(), "{entry:#}");
    let number = |processor: &Value, name| match processor["value"][name].as_u64() {
        Some(number) => number,
        None => panic!("no {name} in {entry:#}"),
    };
    for processor in processors {
        // Times, not sums.
        number(processor, "last_rx_ns");
        number(processor, "cut_logged_ns");
    }
    Ok(NAMES.map(|name| processors.iter().map(|p| number(p, name)).sum()))
}

/// Waits until nothing is counted any more on either uplink.
fn wait_quiet(lab: &Lab) -> Result<[[u64; NAMES.len()]; 2]> {
    let mut last = None;
    wait_for("the uplinks are quiet", SOON, || {
        let read = || Ok([counters(lab, "cable")?, counters(lab, "lte")?]);
        let now = read().map_err(|error: anyhow::Error| format!("{error:#}"))?;
        if last.replace(now) == Some(now) {
            return Ok(now);
        }
        thread::sleep(Duration::from_millis(100));
        Err(format!("{now:?}"))
    })
}

/// A laboratory whose links carry nothing by themselves: no IPv6, and neighbours that are known forever.
fn quiet_lab() -> Result<Lab> {
    let lab = Lab::builder().build()?;
    for uplink in lab.uplinks() {
        let (name, a) = (uplink.name(), uplink.addresses());
        let host = lab.host().namespace();
        for (namespace, interface) in [(host, name), (uplink.provider(), "customer")] {
            namespace.set_sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1")?;
        }
        let mac = |namespace: &failover_lab::Namespace, interface: &str| {
            let link = namespace.exec_json("ip", &["-j", "link", "show", interface])?;
            let address = link[0]["address"].as_str().context("no address")?;
            anyhow::Ok(address.to_owned())
        };
        let (ours, theirs) = (mac(host, name)?, mac(uplink.provider(), "customer")?);
        host.ip_batch(&format!(
            "neighbour replace {} lladdr {theirs} dev {name} nud permanent",
            a.gateway_v4
        ))?;
        uplink.provider().ip_batch(&format!(
            "neighbour replace {} lladdr {ours} dev customer nud permanent",
            a.host_v4
        ))?;
    }
    Ok(lab)
}

#[test]
#[ignore = "needs root"]
fn bpftool_shows_exactly_what_a_capture_at_the_other_end_saw() -> Scenario {
    let lab = quiet_lab()?;
    let agent = start_with(&lab, &lab.agent_config().quick().lease(LONG_LEASE))?;
    // No probes: what flows is ours alone.
    agent.signal(Signal::SIGSTOP)?;
    let before = wait_quiet(&lab)?;
    let scratch = &lab.agent_dirs().scratch;
    let (cable, lte) = (lab.uplink("cable"), lab.uplink("lte"));
    let on_cable = cable.capture("", &scratch.join("cable.pcap"))?;
    let on_lte = lte.capture("", &scratch.join("lte.pcap"))?;

    let stream = lab.host().udp_stream(TARGET_V4).size(300);
    let stream = stream.every(Duration::from_millis(1)).start()?;
    let forced = lab.host().udp_stream(TARGETS_V4[1].into());
    let forced = forced.from(lte.host_v4()).size(700).start()?;
    wait_sent(&stream, 200)?;
    wait_sent(&forced, 20)?;
    for _ in 0..5 {
        assert!(lab.host().ping(TARGET_V4, SOON)?.is_some());
    }
    let (stream, forced) = (stream.stop()?, forced.stop()?);
    let after = wait_quiet(&lab)?;
    let (on_cable, on_lte) = (on_cable.finish()?, on_lte.finish()?);

    let sent = format!("src host {}", cable.host_v4());
    let received = format!("dst host {}", cable.host_v4());
    let packets = |filter: &str| Ok::<_, anyhow::Error>(on_cable.count(filter)? as u64);
    let expected = [
        packets(&sent)?,
        on_cable.bytes(&sent)?,
        packets(&received)?,
        on_cable.bytes(&received)?,
        0,
        0,
        0,
    ];
    let grown = |place: usize| -> [u64; NAMES.len()] {
        std::array::from_fn(|name| after[place][name] - before[place][name])
    };
    assert_eq!(grown(0), expected, "{NAMES:?} of cable");
    // Each and every packet is in them, with an Ethernet, an IPv4 and a UDP or ICMP header.
    let pings = 5;
    let (headers, ping) = (14 + 20 + 8, 14 + 20 + 8);
    let datagrams = stream.sent() as u64;
    assert_eq!(expected[0], datagrams + pings);
    assert_eq!(expected[1], datagrams * (headers + 300) + pings * ping);
    assert_eq!(expected[2], stream.answered() as u64 + pings);

    let cut = forced.sent() as u64;
    let bytes = cut * (headers + 700);
    assert_eq!(
        grown(1),
        [cut, bytes, 0, 0, cut, bytes, 0],
        "{NAMES:?} of lte"
    );
    assert_eq!(on_lte.lines("")?, [""; 0]);

    for (interface, word) in [("cable", "Open"), ("lte", "Closed")] {
        let value = &dump(&lab, "uplinks", interface)?["value"];
        assert_eq!(value["gate_ipv4"], word, "{value:#}");
        assert_eq!(value["link_layer"], "Ethernet", "{value:#}");
        assert_eq!(value["hook"], "Tcx", "{value:#}");
    }

    agent.signal(Signal::SIGCONT)?;
    let status = agent.status_json()?;
    let later = [counters(&lab, "cable")?, counters(&lab, "lte")?];
    for (place, interface) in ["cable", "lte"].into_iter().enumerate() {
        for (name, key) in NAMES.into_iter().enumerate() {
            let (low, high) = (after[place][name], later[place][name]);
            let shown = counter(&status, interface, key);
            assert!(
                (low..=high).contains(&shown),
                "{key} of {interface}: {shown}, not {low} to {high}"
            );
        }
    }
    assert_eq!(counter(&status, "lte", "cut_packets"), after[1][4]);
    assert!(uplink(&status, "cable")["counters"]["last_rx_ms_ago"].is_u64());
    Ok(())
}
