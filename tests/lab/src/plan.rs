//! The address plan. Documentation prefixes (RFC 5737, RFC 3849) and benchmark networks (RFC 2544) throughout.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// IPv4 addresses in the internet that answer ping, UDP and TCP.
pub const TARGETS_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(203, 0, 113, 1),
];

/// IPv6 addresses in the internet that answer ping, UDP and TCP.
pub const TARGETS_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 3),
];

/// The target of a test that needs just one.
pub const TARGET_V4: IpAddr = IpAddr::V4(TARGETS_V4[0]);
/// The IPv6 target of a test that needs just one.
pub const TARGET_V6: IpAddr = IpAddr::V6(TARGETS_V6[0]);

/// UDP and TCP port that echoes (RFC 862).
pub const ECHO_PORT: u16 = 7;
/// TCP port that swallows everything (RFC 863).
pub const DISCARD_PORT: u16 = 9;

/// The host's address in its LAN.
pub const LAN_HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The client's address in the LAN.
pub const LAN_CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// The host's IPv6 address in its LAN (a unique local one, RFC 4193, masqueraded like IPv4).
pub const LAN_HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
/// The client's IPv6 address in the LAN.
pub const LAN_CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2);

/// What a provider's router calls itself on the customer's link; the next hop of the host's IPv6 default route.
pub const LINK_LOCAL_GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Greatest number of uplinks.
pub const MAX_UPLINKS: usize = 4;

/// The addresses that belong to one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The host's, in a /24 with the gateway (on an L3 uplink: its peer's peer).
    pub host_v4: Ipv4Addr,
    /// The provider's router.
    pub gateway_v4: Ipv4Addr,
    /// What the internet sees instead of the host's.
    pub public_v4: Ipv4Addr,
    /// The host's, in a /64 with the gateway; the internet sees it as it is.
    pub host_v6: Ipv6Addr,
    /// The provider's router; it is also [`LINK_LOCAL_GATEWAY`].
    pub gateway_v6: Ipv6Addr,
    /// Where the provider's default route leads.
    pub transit_v4: Ipv4Addr,
    /// The provider's end of the transit link.
    pub provider_transit_v6: Ipv6Addr,
    /// The internet's end of it.
    pub transit_v6: Ipv6Addr,
    /// Number of the uplink, from 1, which all the addresses contain.
    pub number: u8,
}

impl Addresses {
    pub(super) fn of(number: u8) -> Addresses {
        let v6 = |a: u16, b: u16, host: u16| Ipv6Addr::new(0x2001, 0xdb8, a, b, 0, 0, 0, host);
        let n = u16::from(number);
        Addresses {
            host_v4: Ipv4Addr::new(10, 64, number, 2),
            gateway_v4: Ipv4Addr::new(10, 64, number, 1),
            public_v4: Ipv4Addr::new(198, 18, number, 2),
            host_v6: v6(n, 0, 2),
            gateway_v6: v6(n, 0, 1),
            transit_v4: Ipv4Addr::new(198, 18, number, 1),
            provider_transit_v6: v6(0xffff, n, 2),
            transit_v6: v6(0xffff, n, 1),
            number,
        }
    }

    /// The customer's IPv4 network.
    pub fn customer_v4(&self) -> String {
        format!("10.64.{}.0/24", self.number)
    }

    /// The customer's IPv6 network.
    pub fn customer_v6(&self) -> String {
        format!("2001:db8:{:x}::/48", self.number)
    }

    /// Whether the internet sees packets from this address when they come by this uplink.
    pub fn is_origin(&self, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(source) => source == self.public_v4,
            IpAddr::V6(source) => source.segments()[..3] == [0x2001, 0xdb8, u16::from(self.number)],
        }
    }
}

/// Tells by which uplink a packet came, from the source address that a server in the internet sees.
#[derive(Clone, Debug)]
pub(super) struct Origins(pub(super) Arc<[(Arc<str>, Addresses)]>);

impl Origins {
    pub(super) fn uplink(&self, source: IpAddr) -> Option<Arc<str>> {
        let (name, _) = self
            .0
            .iter()
            .find(|(_, addresses)| addresses.is_origin(source))?;
        Some(name.clone())
    }
}
