//! The programs: `uplink_egress` counts and gates what leaves by an uplink, `uplink_ingress` counts what arrives.
//!
//! Both return "next" for what they let pass, so that other programs on the same interface run too, and never change such a packet. A
//! packet that must not leave is dropped, or becomes an answer to its own sender. When built for the host, for clippy and `cargo build
//! --workspace`, this is an empty program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// Maps and helpers belong to the kernel; the host build does not use them.
#![cfg_attr(
    not(target_arch = "bpf"),
    expect(dead_code, reason = "only the bpf build has entry points")
)]

mod answer;
mod count;
mod flow;
mod gate;
mod limit;
mod log;
mod packet;
mod probe;
mod prohibit;
mod reset;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    helpers::bpf_ktime_get_coarse_ns,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use failover_ebpf::{
    Answer, Counters, EVENTS_BYTES, Echo, Event, Flow, Limits, MAX_ADDRESSES, MAX_FLOWS,
    MAX_PREFIXES, MAX_PROBES, MAX_UPLINKS, Origin, Owner, Peer, Reason, Settings, Uplink,
};

use crate::{gate::Verdict, packet::Packet, prohibit::Scratch};

#[btf_map]
static UPLINKS: HashMap<u32, Uplink, MAX_UPLINKS> = HashMap::new();

#[btf_map]
static COUNTERS: PerCpuHashMap<u32, Counters, MAX_UPLINKS> = PerCpuHashMap::new();

#[btf_map]
static EXEMPT: LpmTrie<Peer, u32, MAX_PREFIXES> = LpmTrie::new();

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map]
static ADDRESSES: HashMap<[u8; 16], Owner, MAX_ADDRESSES> = HashMap::new();

#[btf_map]
static PROBES: HashMap<u64, u32, MAX_PROBES> = HashMap::new();

#[btf_map]
static ECHOES: HashMap<Echo, u32, MAX_PROBES> = HashMap::new();

#[btf_map]
static FLOWS: LruHashMap<Flow, Origin, MAX_FLOWS> = LruHashMap::new();

#[btf_map]
static LIMITS: HashMap<u32, Limits, MAX_UPLINKS> = HashMap::new();

#[btf_map]
static EVENTS: RingBuf<Event, EVENTS_BYTES> = RingBuf::new();

/// When the agent was last sent an event about a flow's end.
#[btf_map]
static ENDED: LruHashMap<Flow, u64, MAX_FLOWS> = LruHashMap::new();

/// The packet that a CPU is processing.
#[btf_map]
static PACKET: PerCpuArray<Packet, 1> = PerCpuArray::new();

/// Space for what does not fit on the stack.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// TCX_NEXT under TCX, "as if this filter were not here" under clsact: the same number.
const NEXT: i32 = TC_ACT_UNSPEC;

#[classifier]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the macro hands it over by value"
)]
fn uplink_egress(ctx: TcContext) -> i32 {
    let ifindex = ifindex(&ctx);
    let Some((uplink, counters)) = uplink(ifindex) else {
        return NEXT;
    };
    let size = count::egress(&ctx, counters);
    match gate::decide(&ctx, ifindex, uplink) {
        Verdict::Pass => NEXT,
        Verdict::Probe => {
            counters.probes_passed += size.packets;
            NEXT
        }
        Verdict::Cut(reason, packet) => {
            // Read before the packet becomes an answer.
            if packet.is_some_and(|packet| probe::is_echo(&ctx, ifindex, packet)) {
                counters.probes_cut += size.packets;
            }
            let answer = packet.map_or(Answer::Dropped, |packet| {
                cut(&ctx, ifindex, uplink, counters, reason, packet)
            });
            count::cut(counters, size, reason, answer);
            match answer {
                Answer::Dropped => gate::drop_silently(),
                Answer::Reset | Answer::Icmp => gate::send_back(ifindex),
            }
        }
    }
}

/// Cuts one packet, and reports it. The reported fields must be read before the packet becomes an answer.
#[inline(always)]
fn cut(
    ctx: &TcContext,
    ifindex: u32,
    uplink: &Uplink,
    counters: &mut Counters,
    reason: Reason,
    packet: &Packet,
) -> Answer {
    // A RST ends nothing: its connection has already ended.
    if gate::is_reset(ctx, packet) {
        return Answer::Dropped;
    }
    log::cut(ctx, ifindex, counters, packet);
    let flow = flow::leaving(ctx, ifindex, packet);
    let answer = answer::make(ctx, ifindex, uplink, packet);
    flow::report(flow, reason, answer);
    answer
}

#[classifier]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the macro hands it over by value"
)]
fn uplink_ingress(ctx: TcContext) -> i32 {
    let ifindex = ifindex(&ctx);
    if let Some((uplink, counters)) = uplink(ifindex)
        && !answer::is_ours(&ctx)
    {
        count::ingress(&ctx, ifindex, uplink, counters);
    }
    NEXT
}

/// The uplink that a packet leaves or arrives by, with this CPU's counters. None: the interface is not, or no longer, configured.
#[inline(always)]
fn uplink(ifindex: u32) -> Option<(&'static Uplink, &'static mut Counters)> {
    // SAFETY: the programs insert and remove nothing. User space replaces whole values; at worst a reader gets the previous value.
    let uplink = unsafe { UPLINKS.get(ifindex) }?;
    let counters = COUNTERS.get_ptr_mut(ifindex)?;
    // SAFETY: the slot belongs to this CPU, programs on one CPU do not interrupt each other on the same hook, and
    // no other reference to it exists.
    Some((uplink, unsafe { &mut *counters }))
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel hands every program a valid context.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// `CLOCK_MONOTONIC` as of the last kernel tick (1 to 10 ms ago) in nanoseconds: far cheaper than the exact time.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The same in whole seconds.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "136 years")]
fn now_s() -> u32 {
    (now_ns() / 1_000_000_000) as u32
}

/// Whether `address` (IPv4 ones mapped) lies in a prefix that is exempt on `ifindex`, or, with 0, everywhere.
#[inline(always)]
fn is_exempt(ifindex: u32, address: [u8; 16]) -> bool {
    use aya_ebpf::btf_maps::lpm_trie::Key;
    const WHOLE: u32 = failover_ebpf::EXACT_BITS + 128;
    EXEMPT
        .get(&Key::new(WHOLE, Peer { ifindex, address }))
        .is_some()
}

/// The kernel reads it, and would refuse GPL-only helpers otherwise.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
