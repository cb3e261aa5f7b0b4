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
    /// LPM trie: [`Prefix`](crate::Prefix) to `u32` (always 1).
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
    /// Their bytes on the wire, link-layer header included.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, link-layer header included.
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

/// Key of the LPM trie of exempt destinations.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Bits of what follows that must match: 32 for the interface, then the prefix length counted
    /// in the 128 bits of the address.
    pub prefix_len: u32,
    /// Interface index; 0 for a prefix that is exempt on all uplinks.
    pub ifindex: u32,
    /// IPv6 address, or IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), in network byte order.
    pub address: [u8; 16],
}

const _: () = {
    assert!(size_of::<Uplink>() == 16);
    assert!(size_of::<Counters>() == 64);
    assert!(core::mem::offset_of!(Counters, cut_packets) == 32);
    assert!(core::mem::offset_of!(Counters, last_rx_ns) == 56);
    assert!(size_of::<Settings>() == 16);
    assert!(core::mem::offset_of!(Settings, probe_mark) == 8);
    assert!(size_of::<Prefix>() == 24);
    assert!(core::mem::offset_of!(Prefix, address) == 8);
};
