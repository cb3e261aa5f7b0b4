//! The kernel's interfaces, addresses and routes at one time. Reads only.

use std::{cmp::Reverse, net::IpAddr};

use anyhow::{Context, Result};
use failover_ebpf::LinkLayer;
use failover_policy::{Family, PerFamily};
use ipnet::IpNet;
use rtnetlink::{
    packet_core::Parseable,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressFlags, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        route::{RouteHeader, RouteMessage, RouteProtocol, RouteType},
    },
};

use super::source;
use crate::netlink::Netlink;
use crate::route::{
    router::main_table,
    wire::address::Assigned,
    wire::interface,
    wire::list::address_family,
    wire::message::{self, Hop, hops, metric},
};

/// An interface.
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Its other names (`ip link property add … altname …`).
    pub(crate) altnames: Vec<String>,
    /// Index of the VRF that it belongs to.
    pub(crate) vrf: Option<u32>,
    pub(crate) flags: LinkFlags,
    pub(crate) layer: LinkLayer,
}

/// An address on an interface.
pub(crate) struct Address {
    pub(crate) ifindex: u32,
    pub(crate) ip: IpAddr,
    /// The network on the link: the peer's, where there is one. Without host bits.
    pub(crate) network: IpNet,
    /// How well it does as the source of a connection to the internet; None: not at all.
    pub(crate) fitness: Option<Fitness>,
    /// Another host on the link has it, too.
    pub(crate) duplicate: bool,
}

/// What matters for an address as the source of a connection to the internet: `source.rs` weighs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fitness {
    /// Past its preferred lifetime (RFC 4862, 5.5.4): for connections that have it, and where there is no other.
    pub(crate) deprecated: bool,
    /// Not known to be unique yet, but usable (RFC 4429).
    pub(crate) optimistic: bool,
    /// IPv6 privacy address (RFC 8981), or secondary IPv4 address: the others go before it.
    pub(crate) secondary: bool,
}

impl Fitness {
    /// What counts before anything else, the least the best.
    pub(crate) fn state(self) -> (bool, bool) {
        (self.deprecated, self.optimistic)
    }
}

/// Everything at one time.
pub(crate) struct Survey {
    pub(crate) protocol: RouteProtocol,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) addresses: Vec<Address>,
    /// The main table's default routes, those for one source included, and routes to networks and hosts on the links.
    pub(crate) routes: PerFamily<Vec<RouteMessage>>,
    /// Default routes that an earlier run (or this one) has displaced: they count as if they stood, as long as their lifetimes last.
    pub(crate) displaced: Vec<RouteMessage>,
}
impl Survey {
    /// Lists everything but the displaced routes. `ours` is our protocol number.
    pub(crate) fn take(netlink: &mut Netlink, ours: RouteProtocol) -> Result<Survey> {
        let interfaces = netlink
            .list(
                &RouteNetlinkMessage::GetLink(LinkMessage::default()),
                |payload| Ok(Some(interface(&LinkMessage::parse(payload)?))),
            )
            .context("cannot list interfaces")?;
        let addresses = addresses(netlink)?;
        let mut routes = PerFamily::default();
        for family in Family::ALL {
            // One walk through what may be a full routing table; the kernel cannot look for default routes alone.
            routes[family] = netlink.routes(family, &main_table(), |header| {
                message::decides_all(header)
                    || message::is_default_for_source(header)
                    || header.kind == RouteType::Unicast
                        && (is_told_by_link(header) || message::may_be_on_link(header))
            })?;
        }
        Ok(Survey {
            protocol: ours,
            interfaces,
            addresses,
            routes,
            displaced: Vec::new(),
        })
    }
    /// Others' default routes by an interface, displaced ones included, the best to learn from first: in the order in which the
    /// kernel takes them, by metric, then by what the routers say of themselves (`find_rr_leaf` in `net/ipv6/route.c`). Those that hold
    /// for one source only come last.
    pub(crate) fn candidates(&self, ifindex: u32, family: Family) -> Vec<(&RouteMessage, Hop)> {
        let family_number = address_family(family);
        let displaced = self
            .displaced
            .iter()
            .filter(|route| route.header.address_family == family_number);
        let mut candidates: Vec<(&RouteMessage, Hop)> = self
            .foreign(family)
            .chain(self.foreign_for_source(family))
            .chain(displaced)
            .filter(|route| message::lifetime(route).is_none_or(|left| !left.is_zero()))
            .flat_map(|route| hops(route).into_iter().map(move |hop| (route, hop)))
            .filter(|(_, hop)| hop.ifindex == ifindex)
            .collect();
        candidates.sort_by_key(|(route, _)| {
            let for_source = message::is_default_for_source(&route.header);
            (
                for_source,
                metric(route),
                Reverse(message::preference(route)),
            )
        });
        candidates
    }

    /// The addresses of an interface that may be the source of a connection to the internet, the best for `target` first; without one,
    /// the best for most of it.
    pub(crate) fn sources(
        &self,
        ifindex: u32,
        family: Family,
        target: Option<IpAddr>,
    ) -> Vec<&Address> {
        let mut sources: Vec<&Address> = self
            .addresses
            .iter()
            .filter(|address| {
                address.ifindex == ifindex && address.ip.is_ipv4() == (family == Family::V4)
            })
            .filter(|address| address.fitness.is_some())
            .collect();
        source::sort(&mut sources, target.unwrap_or(source::INTERNET_V6.into()));
        sources
    }

    /// The same of both families.
    pub(crate) fn addresses_of(&self, ifindex: u32) -> Vec<IpAddr> {
        let sources = PerFamily::from_fn(|family| self.sources(ifindex, family, None));
        sources.values().flatten().map(|source| source.ip).collect()
    }

    /// The addresses of an interface that another host on the link has, too.
    pub(crate) fn duplicates_of(&self, ifindex: u32) -> Vec<IpAddr> {
        let of_interface = |address: &&Address| address.ifindex == ifindex && address.duplicate;
        let duplicates = self.addresses.iter().filter(of_interface);
        duplicates.map(|address| address.ip).collect()
    }

    /// Whether an interface has no address of its own, not even one that will be usable soon.
    pub(crate) fn is_unnumbered(&self, ifindex: u32, family: Family) -> bool {
        !self.addresses.iter().any(|address| {
            address.ifindex == ifindex
                && address.ip.is_ipv4() == (family == Family::V4)
                && !is_link_local(address.ip)
        })
    }

    /// Whether a gateway outside the networks of an interface may still come to be on its link: an address of length 32 or 128 is followed
    /// by a route to its gateway (RFC 3442), none or one that the host has chosen itself (RFC 3927) by a lease.
    pub(crate) fn may_reach_more(&self, ifindex: u32, family: Family) -> bool {
        let of_family = |address: &&Address| {
            address.ifindex == ifindex && address.ip.is_ipv4() == (family == Family::V4)
        };
        let mut addresses = self.addresses.iter().filter(of_family);
        let alone = addresses.clone().any(|address| is_host(address.network));
        let self_chosen = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        alone || addresses.all(|address| self_chosen(address.ip))
    }

    /// Every default route in the main table, in the kernel's order, `unreachable` and the like included.
    pub(crate) fn defaults(&self, family: Family) -> impl Iterator<Item = &RouteMessage> {
        let routes = self.routes[family].iter();
        routes.filter(|route| message::decides_all(&route.header))
    }

    /// Default routes in the main table that are not ours and lead somewhere.
    pub(crate) fn foreign(&self, family: Family) -> impl Iterator<Item = &RouteMessage> {
        self.routes[family].iter().filter(|route| {
            message::is_default(&route.header) && route.header.protocol != self.protocol
        })
    }

    /// Others' default routes in the main table that hold for one source only.
    fn foreign_for_source(&self, family: Family) -> impl Iterator<Item = &RouteMessage> {
        self.routes[family].iter().filter(|route| {
            message::is_default_for_source(&route.header) && route.header.protocol != self.protocol
        })
    }

    /// Networks on the link that are believed to be there: those of the addresses, and those that the kernel or a router
    /// advertisement reports. One that covers a good part of the internet is not: any router on the link can advertise `::/1`.
    pub(crate) fn prefixes(&self, ifindex: u32, family: Family) -> Vec<IpNet> {
        let mut prefixes = self.on_link(ifindex, family, is_told_by_link);
        prefixes.retain(|prefix| prefix.prefix_len() >= message::shortest(family));
        prefixes
    }

    /// Networks in which the kernel takes a gateway for being on the link: those, and every route by the interface without a gateway,
    /// whoever made it. With an address of length 32, a DHCP client adds a route to the router alone (RFC 3442).
    pub(crate) fn gateway_networks(&self, ifindex: u32, family: Family) -> Vec<IpNet> {
        self.on_link(ifindex, family, |_| true)
    }

    /// Networks on the link by the interface's addresses and by the routes that `counts` accepts.
    fn on_link(
        &self,
        ifindex: u32,
        family: Family,
        counts: impl Fn(&RouteHeader) -> bool,
    ) -> Vec<IpNet> {
        let of_addresses = self
            .addresses
            .iter()
            .filter(|address| address.ifindex == ifindex)
            .map(|address| address.network);
        let of_routes = self.routes[family]
            .iter()
            .filter(|route| {
                message::table(route) == message::MAIN_TABLE
                    && route.header.destination_prefix_length > 0
                    && counts(&route.header)
            })
            .filter(|route| {
                hops(route)
                    .iter()
                    .any(|hop| hop.ifindex == ifindex && hop.gateway.is_none())
            })
            .filter_map(message::destination);
        let mut prefixes: Vec<IpNet> = of_addresses
            .chain(of_routes)
            .filter(|prefix| {
                let first = prefix.addr();
                let own =
                    is_host(*prefix) && self.addresses.iter().any(|address| address.ip == first);
                first.is_ipv4() == (family == Family::V4)
                    && prefix.prefix_len() > 0
                    && !is_link_local(first)
                    && !first.is_multicast()
                    && !own
            })
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }
}
/// Whether a route reports a network on the link because of an address or a router advertisement.
fn is_told_by_link(header: &RouteHeader) -> bool {
    matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra)
}

fn interface(message: &LinkMessage) -> Interface {
    let name = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
    Interface {
        index: message.header.index,
        name: name.unwrap_or_default(),
        altnames: interface::altnames(message),
        vrf: interface::vrf(message),
        flags: message.header.flags,
        layer: match message.header.link_layer_type {
            LinkLayerType::Ether => LinkLayer::Ethernet,
            _ => LinkLayer::None,
        },
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let Assigned { ip, peer, flags } = Assigned::read(message)?;
    let optimistic = flags.contains(AddressFlags::Optimistic);
    let duplicate = flags.contains(AddressFlags::Dadfailed);
    let unique = !duplicate && (optimistic || !flags.contains(AddressFlags::Tentative));
    let network = IpNet::new(peer.unwrap_or(ip), message.header.prefix_len).ok()?;
    let fit = message.header.scope == AddressScope::Universe && !is_link_local(ip) && unique;
    Some(Address {
        ifindex: message.header.index,
        ip,
        network: network.trunc(),
        fitness: fit.then(|| Fitness {
            deprecated: flags.contains(AddressFlags::Deprecated),
            optimistic,
            secondary: flags.contains(AddressFlags::Secondary),
        }),
        duplicate,
    })
}

/// Whether it is fe80::/10.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false, // 169.254.0.0/16 is an ordinary network to the kernel's routing
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_host(network: IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}

/// The networks of all addresses of this host, on whatever interface.
pub(crate) fn networks(netlink: &mut Netlink) -> Result<Vec<IpNet>> {
    let addresses = addresses(netlink)?.into_iter();
    Ok(addresses.map(|address| address.network).collect())
}

fn addresses(netlink: &mut Netlink) -> Result<Vec<Address>> {
    netlink
        .list(
            &RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |payload| Ok(address(&AddressMessage::parse(payload)?)),
        )
        .context("cannot list addresses")
}
