//! What the gate must know about a packet, read from its headers.

use aya_ebpf::programs::TcContext;
use failover_ebpf::LinkLayer;

use crate::PACKET;

/// IP protocol numbers (IANA).
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IGMP: u8 = 2;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
}

/// Address family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The parts of an IP packet on which the decision depends.
pub(crate) struct Packet {
    pub(crate) family: Family,
    /// Protocol of the upper layer.
    pub(crate) protocol: u8,
    /// IPv4 addresses are mapped ones (RFC 4291, 2.5.5.2).
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    /// Offset of the network header.
    pub(crate) at: usize,
    /// Length according to the IP header, in bytes, the header included.
    pub(crate) length: usize,
    /// Offset of the upper-layer header. None in a fragment other than the first, which has none.
    pub(crate) upper: Option<usize>,
}

/// Length of an Ethernet header without tags.
pub(crate) const ETHERNET_HEADER: usize = 14;
pub(crate) const IPV4_HEADER: usize = 20;
pub(crate) const IPV6_HEADER: usize = 40;
const ETHERTYPE_AT: usize = 12;
const VLAN_TAG: usize = 4;
/// 802.1ad outside, 802.1Q inside.
const MAX_VLAN_TAGS: usize = 2;
/// Hop-by-hop, two destination options, routing, fragment and authentication are all that RFC 8200 allows.
const MAX_EXTENSION_HEADERS: usize = 6;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN_8021Q: u16 = 0x8100;
const VLAN_8021AD: u16 = 0x88a8;

/// The family of a packet and where its network header begins; None if it is not IP.
///
/// A tag that the hardware will insert is not in the data, and needs no handling.
#[inline(always)]
pub(crate) fn network_header(ctx: &TcContext, link_layer: LinkLayer) -> Option<(Family, usize)> {
    let start = match link_layer {
        LinkLayer::Ethernet => ETHERNET_HEADER,
        LinkLayer::None => 0,
    };
    // The kernel keeps the 16 bits of the wire in the low half. It knows the type of nearly every packet.
    match (
        u16::from_be((ctx.skb.protocol() & 0xffff) as u16),
        link_layer,
    ) {
        (IPV4, _) => Some((Family::V4, start)),
        (IPV6, _) => Some((Family::V6, start)),
        (_, LinkLayer::Ethernet) => behind_tags(ctx),
        (_, LinkLayer::None) => None,
    }
}

/// The same, from the Ethernet header and the tags behind it.
#[inline(always)]
fn behind_tags(ctx: &TcContext) -> Option<(Family, usize)> {
    let mut ethertype = load_u16(ctx, ETHERTYPE_AT)?;
    let mut at = ETHERNET_HEADER;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        ethertype = load_u16(ctx, at + 2)?;
        at += VLAN_TAG;
    }
    match ethertype {
        IPV4 => Some((Family::V4, at)),
        IPV6 => Some((Family::V6, at)),
        _ => None,
    }
}

/// Reads the IP header at `at`; None if it is cut short or malformed. One packet at a time: the next call overwrites this one's result.
///
/// A function of its own, with its result in a map: to the verifier every packet then looks alike to the code that follows, which it checks
/// once instead of once for every path through the headers.
#[inline(never)]
pub(crate) fn parse(ctx: &TcContext, family: Family, at: usize) -> Option<&'static Packet> {
    let packet = PACKET.get_ptr_mut(0)?;
    // SAFETY: the slot belongs to this CPU, programs on one CPU do not interrupt each other, and no code uses an earlier result after a
    // call.
    let packet = unsafe { &mut *packet };
    packet.family = family;
    packet.at = at;
    packet.upper = None;
    match family {
        Family::V4 => parse_ipv4(ctx, at, packet)?,
        Family::V6 => parse_ipv6(ctx, at, packet)?,
    }
    Some(packet)
}

/// RFC 791, 3.1.
#[inline(always)]
fn parse_ipv4(ctx: &TcContext, at: usize, packet: &mut Packet) -> Option<()> {
    let header: [u8; IPV4_HEADER] = ctx.load(at).ok()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < header.len() {
        return None;
    }
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    packet.protocol = header[9];
    packet.source = mapped([header[12], header[13], header[14], header[15]]);
    packet.destination = mapped([header[16], header[17], header[18], header[19]]);
    packet.length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    packet.upper = (fragment_offset == 0).then_some(at + length);
    Some(())
}

/// RFC 8200, 3 and 4.
#[inline(always)]
fn parse_ipv6(ctx: &TcContext, at: usize, packet: &mut Packet) -> Option<()> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;

    let start: [u8; 8] = ctx.load(at).ok()?;
    if start[0] >> 4 != 6 {
        return None;
    }
    packet.protocol = start[6];
    packet.source = ctx.load(at + 8).ok()?;
    packet.destination = ctx.load(at + 24).ok()?;
    packet.length = IPV6_HEADER + usize::from(u16::from_be_bytes([start[4], start[5]]));
    let mut next = at + IPV6_HEADER;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let length = match packet.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION | FRAGMENT => {
                let extension: [u8; 4] = ctx.load(next).ok()?;
                let units = usize::from(extension[1]);
                let length = match packet.protocol {
                    AUTHENTICATION => (units + 2) * 4,
                    FRAGMENT => 8,
                    _ => (units + 1) * 8,
                };
                let fragment_offset = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8;
                let headless = packet.protocol == FRAGMENT && fragment_offset != 0;
                packet.protocol = extension[0];
                if headless {
                    return Some(());
                }
                length
            }
            _ => {
                packet.upper = Some(next);
                return Some(());
            }
        };
        next += length;
    }
    // There are no more extension headers than these; a header behind more of them is not worth finding.
    Some(())
}

/// Whether an Ethernet type is that of a VLAN tag.
#[inline(always)]
pub(crate) fn is_vlan(ethertype: u16) -> bool {
    ethertype == VLAN_8021Q || ethertype == VLAN_8021AD
}

/// The source address alone of the IPv4 packet at `at`.
#[inline(always)]
pub(crate) fn source_ipv4(ctx: &TcContext, at: usize) -> Option<[u8; 4]> {
    load_early(ctx, at + 12)
}

/// The source address alone of the IPv6 packet at `at`.
#[inline(always)]
pub(crate) fn source_ipv6(ctx: &TcContext, at: usize) -> Option<[u8; 16]> {
    load_early(ctx, at + 8)
}

/// Reads what nearly every packet has in its linear part, without the cost of a helper.
#[inline(always)]
fn load_early<const N: usize>(ctx: &TcContext, at: usize) -> Option<[u8; N]> {
    let begin = ctx.data() + at;
    if begin + N > ctx.data_end() {
        return ctx.load(at).ok();
    }
    // SAFETY: within the packet, as was just checked; bytes need no alignment.
    Some(unsafe { *(begin as *const [u8; N]) })
}

/// The flags of the TCP header at `tcp` (RFC 9293, 3.1); none set if it is cut short.
#[inline(always)]
pub(crate) fn tcp_flags(ctx: &TcContext, tcp: usize) -> u8 {
    const FLAGS_AT: usize = 13;
    ctx.load(tcp + FLAGS_AT).unwrap_or_default()
}

/// Source and destination port; zeros where there are none.
#[inline(always)]
pub(crate) fn ports(ctx: &TcContext, packet: &Packet) -> (u16, u16) {
    let (protocol::TCP | protocol::UDP, Some(upper)) = (packet.protocol, packet.upper) else {
        return (0, 0);
    };
    let [a, b, c, d] = ctx.load::<[u8; 4]>(upper).unwrap_or_default();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// The IPv4-mapped IPv6 address.
#[inline(always)]
pub(crate) fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[inline(always)]
fn load_u16(ctx: &TcContext, at: usize) -> Option<u16> {
    ctx.load::<[u8; 2]>(at).ok().map(u16::from_be_bytes)
}
