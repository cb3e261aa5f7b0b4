//! Running the programs on crafted packets (BPF_PROG_TEST_RUN), for tests and for the benchmark.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use failover_ebpf::{ANSWER_TOKEN, programs};

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Packets that leave by an uplink.
    Egress,
    /// Packets that arrive by an uplink.
    Ingress,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Direction; 2] = [Direction::Egress, Direction::Ingress];

    /// Name of the program in the object file.
    pub(super) fn program(self) -> &'static str {
        match self {
            Direction::Egress => programs::EGRESS,
            Direction::Ingress => programs::INGRESS,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        })
    }
}

/// A crafted packet.
#[derive(Clone, Copy, Debug)]
pub struct TestPacket<'a> {
    /// The packet, from its link-layer header on.
    ///
    /// The kernel takes bytes 12 and 13 as the Ethernet type, whatever the interface is. So a packet without a link-layer header must have
    /// an IP type there by choice of its address: an IPv4 source in 8.0.0.0/16, or `86dd` in the third group of an IPv6 source.
    pub data: &'a [u8],
    /// Index of the interface by which it leaves or arrives; must exist.
    pub ifindex: u32,
    /// `SO_MARK` of its socket.
    pub mark: u32,
    /// Number of packets on the wire that it stands for; 0: one, no GSO.
    pub gso_segments: u32,
    /// Whether it is an answer that the egress program made.
    pub is_answer: bool,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// Its decision about the last repetition.
    pub verdict: Verdict,
    /// Mean time of one run (whole nanoseconds).
    pub duration: Duration,
    /// The packet as the program left it.
    pub data: Vec<u8>,
}

/// A program's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on to the next program.
    Pass,
    /// The packet is dropped, and the sender sees success.
    Drop,
    /// The packet has become an answer to the sender, on its way to the ingress of the same interface.
    Answer,
    /// A number that the programs do not use.
    Unexpected(u32),
}

pub(super) fn run(
    ebpf: &Ebpf,
    direction: Direction,
    packet: &TestPacket<'_>,
    repeat: u32,
) -> Result<TestRun> {
    /// include/uapi/linux/pkt_cls.h.
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    const TC_ACT_REDIRECT: u32 = 7;

    let name = direction.program();
    let program: &SchedClassifier = ebpf
        .program(name)
        .with_context(|| format!("no program {name} in the object"))?
        .try_into()?;
    let context = context(packet);
    let mut context_after = [0; CONTEXT_SIZE];
    // No answer is longer than this, or than its packet.
    let mut data = vec![0; packet.data.len().max(2048)];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(packet.data),
            data_out: Some(&mut data),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_after),
            repeat,
            ..TestRunOptions::default()
        })
        .with_context(|| format!("running {name} on {} bytes", packet.data.len()))?;
    data.truncate(usize::try_from(result.data_size_out)?);
    let is_answer = context_after[CB_AT..].starts_with(&token());
    Ok(TestRun {
        verdict: match result.return_value {
            TC_ACT_UNSPEC => Verdict::Pass,
            TC_ACT_REDIRECT if is_answer => Verdict::Answer,
            TC_ACT_REDIRECT => Verdict::Drop,
            other => Verdict::Unexpected(other),
        },
        duration: result.duration,
        data,
    })
}

/// The kernel requires its whole structure, with zeros in the rest.
const CONTEXT_SIZE: usize = 256;
const CB_AT: usize = 48;

fn token() -> [u8; 8] {
    let [a, b] = ANSWER_TOKEN.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// The start of a `struct __sk_buff` (include/uapi/linux/bpf.h). The kernel requires zeros in all but a few fields.
fn context(packet: &TestPacket<'_>) -> [u8; CONTEXT_SIZE] {
    const MARK_AT: usize = 8;
    const INGRESS_IFINDEX_AT: usize = 36;
    const IFINDEX_AT: usize = 40;
    const GSO_SEGS_AT: usize = 164;

    let mut context = [0; CONTEXT_SIZE];
    for (at, value) in [
        (MARK_AT, packet.mark),
        (INGRESS_IFINDEX_AT, packet.ifindex),
        (IFINDEX_AT, packet.ifindex),
        (GSO_SEGS_AT, packet.gso_segments),
    ] {
        context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    if packet.is_answer {
        context[CB_AT..CB_AT + 8].copy_from_slice(&token());
    }
    context
}
