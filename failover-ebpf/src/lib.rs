//! The map ABI: every type and name that user space and the eBPF programs share.
//!
//! Builds for the host (feature `user`, for aya's `Pod`) and for bpf. Values are plain `repr(C)`
//! without padding, so that `bpftool map dump` prints exactly what is here: field names and enum
//! words are a user interface.
#![no_std]

/// Changes whenever a map's key, value or meaning changes. Pinned maps of another version are not adopted.
pub const ABI_VERSION: u32 = 4;

/// Greatest number of uplinks that the maps hold.
pub const MAX_UPLINKS: usize = 64;

/// Greatest number of prefixes that pass closed gates (on-link and configured ones).
pub const MAX_PREFIXES: usize = 1024;

/// Greatest number of addresses of all uplinks together.
pub const MAX_ADDRESSES: usize = 1024;

/// Greatest number of probe sockets at a time.
pub const MAX_PROBES: usize = 1024;

/// Owner of an address that several uplinks have (two identical modems assign the same one): it is stale on none.
pub const SEVERAL: u32 = 0;

/// Owner of an address that an uplink has lost, by itself or with its interface: it is stale on all. No interface has
/// this index.
pub const LOST: u32 = u32::MAX;

/// Flows that are remembered at a time; the least recently used one makes room.
pub const MAX_FLOWS: usize = 65536;

/// Greatest number of `cutoff.allow_marks`.
pub const MAX_MARKS: usize = 8;

/// Size of the ring buffer of events, in bytes: a multiple of every page size.
pub const EVENTS_BYTES: usize = 1 << 18;

/// Marks a packet that the egress program has turned into an answer, for the ingress program. It is the first two words of the packet's
/// control buffer, which survives the redirect (its mark would too, but routing rules and filters read marks). Other parts of the kernel
/// store small numbers and pointers there.
pub const ANSWER_TOKEN: [u32; 2] = [0xfa11_04e7, 0xa45e_c0de];

/// Names of the programs in the object file.
pub mod programs {
    /// Counts and gates what leaves by an uplink.
    pub const EGRESS: &str = "uplink_egress";
    /// Counts what arrives by an uplink.
    pub const INGRESS: &str = "uplink_ingress";
}

/// Names of the maps in the object file (at most 15 characters, the kernel's limit).
pub mod maps {
    /// Hash: interface index (`u32`) to [`Uplink`](crate::Uplink).
    pub const UPLINKS: &str = "UPLINKS";
    /// Per-CPU hash: interface index (`u32`) to [`Counters`](crate::Counters).
    pub const COUNTERS: &str = "COUNTERS";
    /// LPM trie: prefix length and [`Peer`](crate::Peer) to `u32` (always 1).
    pub const EXEMPT: &str = "EXEMPT";
    /// Array of one [`Settings`](crate::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// Hash: address of an uplink (IPv4 ones mapped) to its [`Owner`](crate::Owner).
    pub const ADDRESSES: &str = "ADDRESSES";
    /// LRU hash: [`Flow`](crate::Flow) to [`Origin`](crate::Origin), on uplinks that keep inbound connections.
    pub const FLOWS: &str = "FLOWS";
    /// Hash: interface index (`u32`) to [`Limits`](crate::Limits).
    pub const LIMITS: &str = "LIMITS";
    /// Ring buffer of [`Event`](crate::Event).
    pub const EVENTS: &str = "EVENTS";
    /// Hash: cookie (`u64`, `SO_COOKIE`) of one of the agent's probe sockets to the index of its interface (`u32`).
    pub const PROBES: &str = "PROBES";
    /// Hash: [`Echo`](crate::Echo) to `u32` (always 1).
    pub const ECHOES: &str = "ECHOES";
}

/// Whether new packets of one family may leave by an uplink.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Everything passes.
    Open = 0,
    /// Only exempt packets pass, unless the lease is past.
    Closed = 1,
}

/// The link-layer header of an interface.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// 14 bytes of Ethernet header.
    Ethernet = 0,
    /// Nothing: PPP, tun, raw-IP modems.
    None = 1,
}

/// How a packet that must not leave is cut.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMode {
    /// It is dropped, and its sender sees success.
    Drop = 0,
    /// It is answered: TCP with a RST, the rest with ICMP "administratively prohibited".
    Reset = 1,
}

/// Whether a closed gate spares connections that came in by the uplink.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// They are cut like all others.
    Cut = 0,
    /// They are answered by the uplink that they came in by.
    Keep = 1,
}

/// How the programs are attached to an interface.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// TCX links (Linux 6.6 and newer).
    Tcx = 0,
    /// Filters on a clsact qdisc that was there before.
    Clsact = 1,
    /// Filters on a clsact qdisc that the agent added, and removes again.
    ClsactOwned = 2,
}

/// The agent's settings for one uplink.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Gate for IPv4.
    pub gate_ipv4: Gate,
    /// Gate for IPv6.
    pub gate_ipv6: Gate,
    /// Link-layer header of the interface.
    pub link_layer: LinkLayer,
    /// How the programs are attached.
    pub hook: Hook,
    /// How IPv4 packets that must not leave are cut.
    pub cut_mode_ipv4: CutMode,
    /// The same for IPv6.
    pub cut_mode_ipv6: CutMode,
    /// Whether connections that came in by it are spared.
    pub inbound: Inbound,
    /// An IPv4 address of the uplink itself, or zeros. Nearly every packet has it as source; only other sources are looked up in
    /// [`maps::ADDRESSES`].
    pub source_ipv4: [u8; 4],
    /// The same for IPv6.
    pub source_ipv6: [u8; 16],
}

/// What the programs have counted on one uplink. Per CPU; the totals are the sums.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that reached the egress hook, cut ones included (a GSO packet counts as its segments).
    pub tx_packets: u64,
    /// Their bytes on the wire, link-layer headers included.
    pub tx_bytes: u64,
    /// Packets received (a packet merged by GRO counts as its segments).
    pub rx_packets: u64,
    /// Their bytes, link-layer header included (of a packet merged by GRO: one header).
    pub rx_bytes: u64,
    /// Packets that were cut: by a closed gate, or because of their source.
    pub cut_packets: u64,
    /// Their bytes.
    pub cut_bytes: u64,
    /// Probes of the agent that passed, whatever the gate.
    pub probes_passed: u64,
    /// Echo requests of the agent that a closed gate cut, because the kernel did not report their socket.
    pub probes_cut: u64,
    /// When the last packet from beyond the on-link prefixes arrived: `CLOCK_MONOTONIC` in nanoseconds, with the resolution of a kernel
    /// tick; 0: never. The latest CPU's value counts.
    pub last_rx_ns: u64,
    /// When this CPU last wrote a cut packet to the log, which it does at most once a second; same clock.
    pub cut_logged_ns: u64,
    /// Cut packets that were answered with a RST. Like `icmp_sent` and `dropped`, it counts answers and socket buffers, not segments: a GSO
    /// packet counts once.
    pub resets_sent: u64,
    /// Cut packets that were answered with an ICMP error.
    pub icmp_sent: u64,
    /// Cut packets that got no answer.
    pub dropped: u64,
    /// Cut packets (a GSO packet counts as its segments) whose source is another uplink's address.
    pub stale_cut: u64,
}

/// The agent's settings for all uplinks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Past this time (`CLOCK_MONOTONIC`, nanoseconds) every gate counts as open.
    pub lease_until_ns: u64,
    /// `SO_MARK` of the agent's own probes.
    pub probe_mark: u32,
    /// [`ABI_VERSION`] of the agent that created the maps.
    pub abi_version: u32,
    /// Packets with one of these marks pass closed gates; 0: none.
    pub allow_marks: [u32; MAX_MARKS],
}

/// The owner of an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Interface index of the uplink that has it, [`SEVERAL`] or [`LOST`].
    pub ifindex: u32,
    /// When the last packet left with it after it was [`LOST`], or when it was lost: whole seconds of `CLOCK_MONOTONIC`.
    pub last_used_s: u32,
}

/// Identifies the agent's echo requests. An entry opens no gate; it shows that a closed gate has cut a probe.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Index of the interface that they leave by.
    pub ifindex: u32,
    /// Their ICMP or ICMPv6 identifier.
    pub identifier: u32,
}

/// A connection of an uplink, without direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Interface index of the uplink.
    pub ifindex: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// Address on this side, as it is on the wire (behind NAT); IPv4 ones mapped.
    pub local: [u8; 16],
    /// Address of the far end.
    pub remote: [u8; 16],
    /// Port on this side; 0 where the protocol has none.
    pub local_port: u16,
    /// Port of the far end.
    pub remote_port: u16,
}

/// Which side sent the first packet of a flow.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This side.
    Local = 0,
    /// The far end: the flow came in by the uplink.
    Remote = 1,
}

/// Token buckets of one uplink. CPUs may race for a token: then a few more are handed out than there are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For ICMP errors.
    pub icmp: Bucket,
    /// For events.
    pub events: Bucket,
}

/// A token bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens left: how much may still be sent at once.
    pub tokens: u64,
    /// When tokens were last added: `CLOCK_MONOTONIC`, nanoseconds.
    pub filled_ns: u64,
}

/// Why a packet was cut.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The uplink's gate is closed.
    Gate = 0,
    /// Its source is another uplink's address.
    Stale = 1,
}

/// How a cut packet is answered.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not at all.
    Dropped = 0,
    /// With a TCP RST.
    Reset = 1,
    /// With ICMP or ICMPv6 "administratively prohibited".
    Icmp = 2,
}

/// A flow has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The flow, and the uplink by which its packet was leaving.
    pub flow: Flow,
    /// Why the packet was cut.
    pub reason: Reason,
    /// How the packet was answered.
    pub answer: Answer,
}

/// What an exempt prefix is matched against: the data of the LPM trie's keys. The 32 bits of the interface always
/// match in full, so the key's prefix length is [`EXACT_BITS`] plus the prefix length of the IPv6 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Interface index; 0 for a prefix that is exempt on all uplinks.
    pub ifindex: u32,
    /// IPv6 address, or IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), in network byte order.
    pub address: [u8; 16],
}

/// Bits of [`Peer`] before its address.
pub const EXACT_BITS: u32 = 32;

// SAFETY: integers and arrays of them, `repr(C)`, no padding (asserted below): every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Peer {}
// SAFETY: `repr(C)` without padding. Its enums have fewer values than bit patterns; only user space of the same
// ABI_VERSION, which it checks before it reads a pinned map, ever writes them.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Uplink {}

// SAFETY: as for Counters.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Limits {}
// SAFETY: as for Counters.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Owner {}
// SAFETY: as for Counters.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Echo {}

const _: () = {
    assert!(size_of::<Uplink>() == 48);
    assert!(size_of::<Counters>() == 112);
    assert!(size_of::<Flow>() == 44);
    assert!(size_of::<Limits>() == 32);
    assert!(size_of::<Event>() == 52);
    assert!(core::mem::offset_of!(Counters, cut_packets) == 32);
    assert!(core::mem::offset_of!(Counters, last_rx_ns) == 64);
    assert!(core::mem::offset_of!(Counters, cut_logged_ns) == 72);
    assert!(size_of::<Settings>() == 16 + 4 * MAX_MARKS);
    assert!(core::mem::offset_of!(Settings, probe_mark) == 8);
    assert!(size_of::<Owner>() == 8);
    assert!(size_of::<Echo>() == 8);
    assert!(size_of::<Peer>() == 20);
    assert!(core::mem::offset_of!(Peer, address) == 4);
};
