//! Crafted packets. Checksums are zero: the programs do not look at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// An address beyond the uplink's network, of the family of the other end.
pub(crate) const FAR4: &str = "198.51.100.7";
pub(crate) const FAR6: &str = "2001:db8:ffff::7";
pub(crate) const HOST4: &str = "192.0.2.1";
pub(crate) const HOST6: &str = "2001:db8::1";

/// An IP packet of either family.
pub(crate) fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4(source, destination, protocol, 0, payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ipv6(source, destination, protocol, payload)
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// RFC 791; `fragment_offset` in units of 8 bytes.
pub(crate) fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    fragment_offset: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment_offset.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// RFC 8200.
pub(crate) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

pub(crate) fn udp(destination_port: u16) -> Vec<u8> {
    let mut header = vec![0x30, 0x39];
    header.extend(destination_port.to_be_bytes());
    header.extend([0, 8, 0, 0]);
    header
}

pub(crate) fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    (header[12], header[13]) = (5 << 4, flags);
    header
}

pub(crate) fn icmpv6(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 0, 0, 0]
}

/// An Ethernet frame, with the VLAN tags (their Ethernet types, outermost first) given.
pub(crate) fn frame(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 5]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IP packet in an untagged frame.
pub(crate) fn ethernet(packet: &[u8]) -> Vec<u8> {
    frame(&[], ethertype(packet), packet)
}

pub(crate) fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}
