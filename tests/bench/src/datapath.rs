//! The programs and their gates, without an agent: the datapath as the agent uses it, in a thread of this process.

use std::{net::Ipv4Addr, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, Direction, Gate, LinkLayer, Options, TestPacket, Verdict},
};
use failover_lab::Lab;
use failover_policy::Family as IpFamily;
use nix::net::if_::if_nametoindex;

use super::{
    Family, Settings,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

/// `SO_MARK` of probes; any number will do, since nothing is probed.
const MARK: u32 = 0xfa11;

pub(super) const EGRESS: Family = Family {
    figures: &[Figure {
        name: "egress-open-ns",
        about: "the egress program on one packet of the uplink's own address while the gate is open; sources are checked (BPF_PROG_TEST_RUN, mean of 1,000,000 runs)",
        unit: "ns",
        goal: Goal::AtMost(40.0),
    }],
    measure: |settings| Ok(vec![egress(settings)?]),
};

pub(super) const GATE: Family = Family {
    figures: &[Figure {
        name: "gate-change-us",
        about: "one gate opened or closed, as the agent does it",
        unit: "µs",
        goal: Goal::AtMost(20.0),
    }],
    measure: |settings| Ok(vec![gate(settings)?]),
};

/// Loads the programs. To be called in the host's namespace.
pub(super) fn open(lab: &Lab) -> Result<Datapath> {
    Datapath::open(&Options {
        bpf_dir: lab.agent_dirs().bpf.clone(),
        attach: AttachMode::Auto,
        probe_mark: MARK,
    })
}

fn egress(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().build()?;
    lab.host().namespace().run(|| {
        let mut datapath = open(&lab)?;
        let (uplink, other) = (if_nametoindex("cable")?, if_nametoindex("lte")?);
        datapath.attach(uplink, LinkLayer::Ethernet)?;
        datapath.set_addresses(uplink, &[lab.uplink("cable").host_v4()])?;
        let frame = udp_frame(lab.uplink("cable").addresses().host_v4);
        let repeat = settings.choose(1_000_000, 10_000);
        let mut samples = Samples::default();
        let mut reference = Samples::default();
        for _ in 0..settings.choose(25, 3) {
            samples.push(run_once(&datapath, uplink, &frame, repeat)?);
            reference.push(run_once(&datapath, other, &frame, repeat)?);
        }
        Ok(Measurement {
            samples,
            reference: Reference {
                what: "the same program for an interface that is no uplink: one map is asked, and the packet passed",
                value: ReferenceValue::Measured(reference),
            },
        })
    })
}

/// Nanoseconds that the egress program takes for this frame by this interface.
fn run_once(datapath: &Datapath, ifindex: u32, frame: &[u8], repeat: u32) -> Result<f64> {
    let packet = TestPacket {
        data: frame,
        ifindex,
        mark: 0,
        gso_segments: 0,
        is_answer: false,
    };
    let run = datapath.test_run(Direction::Egress, &packet, repeat)?;
    ensure!(
        run.verdict == Verdict::Pass,
        "the packet did not pass: {run:?}"
    );
    Ok(run.duration.as_secs_f64() * 1e9)
}

/// The smallest Ethernet frame, with an empty UDP datagram to the internet in it. Checksums are zero: the program does not look at them.
fn udp_frame(source: Ipv4Addr) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame[26..30].copy_from_slice(&source.octets());
    frame[30..34].copy_from_slice(&[192, 0, 2, 1]);
    frame[34..42].copy_from_slice(&[0x30, 0x39, 0, 7, 0, 8, 0, 0]);
    frame
}

fn gate(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().build()?;
    lab.host().namespace().run(|| {
        let mut datapath = open(&lab)?;
        let uplink = if_nametoindex("cable")?;
        datapath.attach(uplink, LinkLayer::Ethernet)?;
        let mut samples = Samples::default();
        let mut reference = Samples::default();
        for _ in 0..settings.choose(100, 3) {
            for _ in 0..10 {
                for gate in [Gate::Closed, Gate::Open] {
                    let begun = Instant::now();
                    datapath.set_gate(uplink, IpFamily::V4, gate)?;
                    samples.push_us(begun.elapsed());
                    let stands = datapath.gates(uplink)?.v4;
                    ensure!(stands == gate, "the gate did not change");
                }
            }
            for verb in ["-I", "-D"] {
                let begun = Instant::now();
                iptables(verb, "cable")?;
                reference.push_us(begun.elapsed());
            }
        }
        Ok(Measurement {
            samples,
            reference: Reference {
                what: "one `iptables -I` or `-D` of a rule that drops what leaves by the interface, with its fork and exec",
                value: ReferenceValue::Measured(reference),
            },
        })
    })
}

/// Puts in (`-I`) or takes out (`-D`) a rule that drops what leaves by an interface. To be called in the host's namespace.
pub(super) fn iptables(verb: &str, interface: &str) -> Result<()> {
    command(
        "iptables",
        &["-w", verb, "OUTPUT", "-o", interface, "-j", "DROP"],
    )
}

/// Runs a command in the namespace of the calling thread.
pub(super) fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("cannot run {program}"))?;
    ensure!(
        status.success(),
        "{program} {}: {status}",
        arguments.join(" ")
    );
    Ok(())
}
