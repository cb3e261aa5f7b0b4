//! What the egress program needs for one packet, where sources are checked and where a packet is cut.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use failover_agent::datapath::{
    CutMode, Datapath, Direction, Gate, LinkLayer, TestPacket, Verdict,
};
use failover_lab::Lab;
use failover_policy::Family as IpFamily;
use nix::net::if_::if_nametoindex;

use crate::{
    Family, Settings, datapath,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

pub(crate) const STALE: Family = Family {
    figures: &[Figure {
        name: "egress-stale-ns",
        about: "the egress program on one packet while the gate is open and its source, not the uplink's own, is looked up among the addresses of 2 uplinks (BPF_PROG_TEST_RUN, mean of 1,000,000 runs)",
        unit: "ns",
        goal: Goal::AtMost(50.0),
    }],
    measure: |settings| Ok(vec![stale(settings)?]),
};

pub(crate) const RESET: Family = Family {
    figures: &[Figure {
        name: "cut-reset-ns",
        about: "the egress program makes a RST of a full-sized segment (BPF_PROG_TEST_RUN, single runs on a fresh packet each, since the second would cut the RST; two readings of the clock and cold caches included, nothing subtracted)",
        unit: "ns",
        goal: Goal::AtMost(600.0),
    }],
    measure: |settings| Ok(vec![reset(settings)?]),
};

/// Opens the datapath on the uplink `cable`.
fn open(lab: &Lab) -> Result<(Datapath, u32)> {
    let mut datapath = datapath::open(lab)?;
    let ifindex = if_nametoindex("cable")?;
    datapath.attach(ifindex, LinkLayer::Ethernet)?;
    // Past it nothing is checked.
    datapath.renew_lease(Duration::from_secs(3600))?;
    Ok((datapath, ifindex))
}

fn set_addresses(lab: &Lab, datapath: &mut Datapath) -> Result<()> {
    for uplink in lab.uplinks() {
        let ifindex = if_nametoindex(uplink.name())?;
        datapath.set_addresses(ifindex, &[uplink.host_v4(), uplink.host_v6()])?;
    }
    Ok(())
}

fn stale(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().build()?;
    let own = lab.uplink("cable").addresses().host_v4;
    // A client's that nobody translates.
    let client = Ipv4Addr::new(198, 18, 0, 1);
    lab.host().namespace().run(|| {
        let (mut datapath, ifindex) = open(&lab)?;
        set_addresses(&lab, &mut datapath)?;
        let repeat = settings.choose(1_000_000, 10_000);
        let mut samples = Samples::default();
        let mut reference = Samples::default();
        for _ in 0..settings.choose(25, 3) {
            for (source, samples) in [(client, &mut samples), (own, &mut reference)] {
                let frame = segment(source, 0);
                samples.push(run(&datapath, ifindex, &frame, repeat, Verdict::Pass)?);
            }
        }
        Ok(Measurement {
            samples,
            reference: Reference {
                what: "the same with the uplink's own address as source, as nearly every packet has it",
                value: ReferenceValue::Measured(reference),
            },
        })
    })
}

fn reset(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().build()?;
    let source = lab.uplink("cable").addresses().host_v4;
    lab.host().namespace().run(|| {
        let (mut datapath, ifindex) = open(&lab)?;
        set_addresses(&lab, &mut datapath)?;
        for family in IpFamily::ALL {
            datapath.set_cut_mode(ifindex, family, CutMode::Reset)?;
        }
        let frame = segment(source, 1448);
        let mut samples = Samples::default();
        let mut reference = Samples::default();
        // Runs of one kind are in a row, as packets are.
        for _ in 0..settings.choose(100, 5) {
            for (gate, verdict, samples) in [
                (Gate::Closed, Verdict::Answer, &mut samples),
                (Gate::Open, Verdict::Pass, &mut reference),
            ] {
                datapath.set_gate(ifindex, IpFamily::V4, gate)?;
                for _ in 0..100 {
                    samples.push(run(&datapath, ifindex, &frame, 1, verdict)?);
                }
            }
        }
        Ok(Measurement {
            samples,
            reference: Reference {
                what: "single runs of the same program that let the same segment pass: what the clock and cold caches alone cost is in both",
                value: ReferenceValue::Measured(reference),
            },
        })
    })
}

/// Nanoseconds that the egress program takes for this frame.
fn run(
    datapath: &Datapath,
    ifindex: u32,
    frame: &[u8],
    repeat: u32,
    verdict: Verdict,
) -> Result<f64> {
    let packet = TestPacket {
        data: frame,
        ifindex,
        mark: 0,
        gso_segments: 0,
        is_answer: false,
    };
    let run = datapath.test_run(Direction::Egress, &packet, repeat)?;
    ensure!(run.verdict == verdict, "not {verdict:?}, but {run:?}");
    Ok(run.duration.as_secs_f64() * 1e9)
}

/// An Ethernet frame with a TCP segment to the internet. Checksums are zero: the program does not look at them.
fn segment(source: Ipv4Addr, payload: u16) -> Vec<u8> {
    /// With the timestamps that nearly every segment bears.
    const TCP_HEADER: u8 = 32;
    const ACK: u8 = 0x10;

    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend((20 + u16::from(TCP_HEADER) + payload).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(source.octets());
    frame.extend([192, 0, 2, 1]);
    frame.extend([0x30, 0x39, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1]);
    frame.extend([(TCP_HEADER / 4) << 4, ACK, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    frame.resize(frame.len() + usize::from(payload), 0);
    frame
}
