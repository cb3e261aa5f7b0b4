//! The kernel's interfaces, addresses, default routes and neighbours as plain data, for the diagnosis. Reads only.

use std::net::IpAddr;

use anyhow::{Context, Result};
use failover_policy::{Family, PerFamily, PerUplink, UplinkId};
use rtnetlink::{
    packet_core::Parseable,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressFlags, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
        route::RouteProtocol,
    },
};

use super::survey::is_link_local;
use crate::route::{
    link::Link,
    numbers::{group_id, member_ids},
    router::main_table,
    wire::address::Assigned,
    wire::interface,
    wire::message,
};
use crate::{config::RouteConfig, netlink::Netlink};

pub(crate) use super::hash_setting::HashSetting;

/// An interface with its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Set up by an administrator (`IFF_UP`).
    pub(crate) up: bool,
    /// `IFF_LOWER_UP`.
    pub(crate) carrier: bool,
    /// Whether others can be behind it: neither the loopback nor point-to-point.
    pub(crate) network: bool,
    /// In bytes.
    pub(crate) mtu: u32,
    /// Id of the XDP program on it.
    pub(crate) xdp: Option<u32>,
    /// Its other names.
    pub(crate) altnames: Vec<String>,
    /// Index of the VRF that it belongs to.
    pub(crate) vrf: Option<u32>,
    /// What it is made of, and index of the interface below it, if that carries its frames: a VLAN, a macvlan.
    pub(crate) below: Option<(String, u32)>,
    pub(crate) addresses: Vec<Address>,
}

/// An address on an interface; no link-local one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) length: u8,
    pub(crate) state: AddressState,
}

/// Whether an address can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressState {
    /// As a source of new connections.
    Usable,
    /// The kernel still looks whether another host on the link has it (RFC 4862, 5.4).
    Tentative,
    /// Another host on the link has it.
    Duplicate,
    /// For old connections only, or not beyond the link.
    Limited,
}

/// A default route of another program in the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) family: Family,
    pub(crate) metric: u32,
    /// Route protocol number (`/etc/iproute2/rt_protos`).
    pub(crate) protocol: u8,
    /// Index of the interface and gateway of each next hop.
    pub(crate) hops: Vec<(u32, Option<IpAddr>)>,
    /// As `ip route` prints it.
    pub(crate) text: String,
}

/// What the sharing of connections in balance groups depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// Whether a default route of ours with several next hops stands.
    pub(crate) stands: PerFamily<bool>,
    /// What connections are distinguished by, in the same order.
    pub(crate) hash: PerFamily<Option<HashSetting>>,
    /// Whether the kernel has resilient nexthop groups (Linux 5.13).
    pub(crate) resilient: bool,
    /// Nexthop objects of others with our groups' numbers, as `ip` prints them.
    pub(crate) taken: Vec<String>,
}

/// Every interface.
pub(crate) fn interfaces(netlink: &mut Netlink) -> Result<Vec<Interface>> {
    let mut interfaces = netlink
        .list(
            &RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |payload| Ok(Some(interface(&LinkMessage::parse(payload)?))),
        )
        .context("cannot list interfaces")?;
    let addresses = netlink
        .list(
            &RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |payload| {
                let message = AddressMessage::parse(payload)?;
                Ok(address(&message).map(|address| (message.header.index, address)))
            },
        )
        .context("cannot list addresses")?;
    for (index, address) in addresses {
        let owner = interfaces.iter_mut().find(|other| other.index == index);
        if let Some(owner) = owner {
            owner.addresses.push(address);
        }
    }
    Ok(interfaces)
}

/// The default routes of the main table that do not bear our protocol number.
pub(crate) fn foreign_defaults(netlink: &mut Netlink, ours: u8) -> Result<Vec<DefaultRoute>> {
    let ours = RouteProtocol::from(ours);
    let mut defaults = Vec::new();
    for family in Family::ALL {
        let routes = netlink.routes(family, &main_table(), |header| {
            message::is_default(header) && header.protocol != ours
        })?;
        defaults.extend(routes.iter().map(|route| {
            DefaultRoute {
                family,
                metric: message::metric(route),
                protocol: route.header.protocol.into(),
                hops: message::hops(route)
                    .iter()
                    .map(|hop| (hop.ifindex, hop.gateway))
                    .collect(),
                text: message::describe(route),
            }
        }));
    }
    Ok(defaults)
}

/// What balance groups of these uplinks find.
pub(crate) fn sharing(
    netlink: &mut Netlink,
    config: &RouteConfig,
    links: &PerUplink<Link>,
) -> Result<Sharing> {
    let ours = RouteProtocol::from(config.protocol);
    let mut stands = PerFamily::both(false);
    for (family, stands) in stands.iter_mut() {
        let routes = netlink.routes(family, &main_table(), |header| {
            message::is_default(header) && header.protocol == ours
        })?;
        *stands = routes
            .iter()
            .any(|route| message::nexthop_id(route).is_some() || message::hops(route).len() > 1);
    }
    Ok(Sharing {
        stands,
        hash: PerFamily::from_fn(HashSetting::of),
        resilient: netlink.has_resilient_groups()?,
        taken: taken_numbers(netlink, config, links)?,
    })
}

/// Nexthop objects of others with numbers that the IPv4 groups of these uplinks need, as `ip` prints them.
///
/// # Errors
/// Netlink itself fails.
fn taken_numbers(
    netlink: &mut Netlink,
    config: &RouteConfig,
    links: &PerUplink<Link>,
) -> Result<Vec<String>> {
    let alike = |(_, link): &(UplinkId, &Link)| {
        links
            .values()
            .filter(|other| other.rank == link.rank)
            .count()
            > 1
    };
    let members = links.iter().filter(alike);
    let mut needed: Vec<u32> = members
        .flat_map(|(uplink, _)| member_ids(config, uplink))
        .collect();
    if !needed.is_empty() {
        needed.push(group_id(config));
    }
    let others = netlink.nexthops()?.into_iter();
    Ok(others
        .filter(|nexthop| nexthop.protocol != config.protocol && needed.contains(&nexthop.id))
        .map(|nexthop| nexthop.to_string())
        .collect())
}

/// The link-layer addresses of the neighbours that the kernel knows: interface index, address, link-layer address.
pub(crate) fn neighbours(netlink: &mut Netlink) -> Result<Vec<(u32, IpAddr, Vec<u8>)>> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    netlink
        .list(&request, |payload| {
            let message = NeighbourMessage::parse(payload)?;
            let (mut ip, mut link_layer) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                        ip = Some(v4.into());
                    }
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                        ip = Some(v6.into());
                    }
                    NeighbourAttribute::LinkLayerAddress(bytes) => link_layer = Some(bytes),
                    _ => {}
                }
            }
            Ok(ip
                .zip(link_layer)
                .map(|(ip, bytes)| (message.header.ifindex, ip, bytes)))
        })
        .context("cannot list neighbours")
}

fn interface(message: &LinkMessage) -> Interface {
    let flags = message.header.flags;
    let mut interface = Interface {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        network: !flags.intersects(LinkFlags::Loopback | LinkFlags::Pointopoint),
        altnames: interface::altnames(message),
        vrf: interface::vrf(message),
        below: interface::below(message),
        ..Interface::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Xdp(xdp) => {
                interface.xdp = xdp.iter().find_map(|attribute| match attribute {
                    LinkXdp::ProgId(id) if *id != 0 => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    interface
}

fn address(message: &AddressMessage) -> Option<Address> {
    let Assigned { ip, flags, .. } = Assigned::read(message)?;
    let state = if flags.contains(AddressFlags::Dadfailed) {
        AddressState::Duplicate
    } else if flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic) {
        AddressState::Tentative
    } else if flags.contains(AddressFlags::Deprecated)
        || message.header.scope != AddressScope::Universe
    {
        AddressState::Limited
    } else {
        AddressState::Usable
    };
    (!is_link_local(ip)).then_some(Address {
        ip,
        length: message.header.prefix_len,
        state,
    })
}
