//! The map ABI: every type and name that user space and the kernel's side share.
//!
//! Builds for the host (feature `user`, for aya's `Pod`) and for bpf. Values are plain `repr(C)`
//! without padding, so that `bpftool map dump` prints exactly what is here: field names and enum
//! words are a user interface.
#![no_std]

/// Changes whenever a map's key, value or meaning changes. Pinned maps of another version are not adopted.
pub const ABI_VERSION: u32 = 1;

/// Greatest number of uplinks that the maps hold.
pub const MAX_UPLINKS: usize = 64;

/// Greatest number of prefixes that pass closed gates (on-link and configured ones).
pub const MAX_PREFIXES: usize = 1024;

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

/// What precedes the network header on an interface.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// 14 bytes of Ethernet header.
    Ethernet = 0,
    /// Nothing: PPP, tun, raw-IP modems.
    None = 1,
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

/// What the agent tells the programs about one uplink.
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
}

/// What the programs have seen on one uplink. Per CPU; the totals are the sums.
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
    /// Packets that a closed gate cut.
    pub cut_packets: u64,
    /// Their bytes.
    pub cut_bytes: u64,
    /// Probes of the agent that passed, whatever the gate.
    pub probes_passed: u64,
    /// When the last packet from beyond the on-link prefixes arrived: `CLOCK_MONOTONIC`, nanoseconds
    /// (a kernel tick coarse); 0: never. The latest CPU's value counts.
    pub last_rx_ns: u64,
    /// When this CPU last wrote a cut packet to the log, which it does at most once a second; same clock.
    pub cut_logged_ns: u64,
}

/// What the agent tells the programs about all uplinks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Past this time (`CLOCK_MONOTONIC`, nanoseconds) every gate counts as open.
    pub lease_until_ns: u64,
    /// `SO_MARK` of the agent's own probes.
    pub probe_mark: u32,
    /// [`ABI_VERSION`] of the agent that made the maps.
    pub abi_version: u32,
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

const _: () = {
    assert!(size_of::<Uplink>() == 16);
    assert!(size_of::<Counters>() == 72);
    assert!(core::mem::offset_of!(Counters, cut_packets) == 32);
    assert!(core::mem::offset_of!(Counters, last_rx_ns) == 56);
    assert!(core::mem::offset_of!(Counters, cut_logged_ns) == 64);
    assert!(size_of::<Settings>() == 16);
    assert!(core::mem::offset_of!(Settings, probe_mark) == 8);
    assert!(size_of::<Peer>() == 20);
    assert!(core::mem::offset_of!(Peer, address) == 4);
};
