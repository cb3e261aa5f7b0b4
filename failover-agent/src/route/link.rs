//! An uplink and its egress paths, as the kernel knows them.

use std::net::IpAddr;

use failover_ebpf::LinkLayer;
use failover_policy::PerFamily;
use ipnet::IpNet;
use rtnetlink::packet_route::route::RouteMetric;

/// An uplink as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index; 0 while there is no such interface.
    pub ifindex: u32,
    /// Interface name.
    pub interface: String,
    /// What precedes the network header.
    pub link_layer: LinkLayer,
    /// Whether it is up and has carrier (`IFF_UP` and `IFF_LOWER_UP`).
    pub carrier: bool,
    /// Order of preference; uplinks of one rank are a balance group.
    pub rank: u32,
    /// Share of its balance group's new connections, 1 to 256 (which counts as 255 in IPv4).
    pub weight: u32,
    /// Metric of its default route, if it has one of its own.
    pub metric: Option<u32>,
    /// Every address of the interface that a connection to the internet may have, of both families, the best first, deprecated ones too,
    /// whether or not there is an egress path. None on an unnumbered link, whose source belongs to another interface.
    pub addresses: Vec<IpAddr>,
    /// IPv6 addresses of the interface that another host on the link has, too (RFC 4862, 5.4.5): the kernel uses none of them.
    pub duplicates: Vec<IpAddr>,
    /// How each family leaves by it; None: not at all.
    pub families: PerFamily<Option<EgressPath>>,
}

/// How one family leaves by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPath {
    /// Address to probe from.
    pub source: IpAddr,
    /// Networks on the link, without host bits.
    pub prefixes: Vec<IpNet>,
    /// Next router; None on a point-to-point link.
    pub gateway: Option<IpAddr>,
    /// What our default routes copy from the one that was there.
    pub template: Template,
}

/// What our default routes copy from the one that was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub(crate) prefsrc: Option<IpAddr>,
    pub(crate) metrics: Vec<RouteMetric>,
    pub(crate) onlink: bool,
}
