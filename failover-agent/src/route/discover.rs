//! What is there: interfaces, addresses, gateways. Reads only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use failover_ebpf::LinkLayer;
use rtnetlink::{
    packet_core::Parseable,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        route::{RouteMessage, RouteProtocol, RouteType},
    },
};

use super::{
    Link, Path, Router, Template, index, main_table,
    message::{self, Hop, hops, metric},
    netlink::Netlink,
    table,
};
use crate::{
    config::{Config, Gateway, UplinkConfig},
    failure::Failure,
    policy::Family,
};

/// Similarity (Jaro-Winkler) from which a name counts as a slip of the pen.
const SIMILAR: f64 = 0.8;

impl Router {
    /// Looks at every uplink, in order of rank, before anything is changed.
    ///
    /// # Errors
    /// A [`Failure`]: unknown interface; no gateway or no address in a family for which the uplink has targets; a gateway that
    /// is not on the link; a default route of someone else's interface with one of our metrics. Or netlink fails.
    pub fn discover(&mut self, config: &Config) -> Result<Vec<Link>> {
        let survey = self.survey()?;
        let mut links = Vec::new();
        for (rank, uplink) in config.uplinks.iter().enumerate() {
            let mut link = survey.link(uplink)?;
            for family in Family::ALL {
                link.families[index(family)] =
                    match survey.path(uplink, self.uplink_table(rank), family) {
                        Ok(path) => Some(path),
                        Err(failure) if has_targets(uplink, family) => return Err(failure.into()),
                        Err(_) => None,
                    };
            }
            links.push(link);
        }
        self.check_metrics(&survey, &links)?;
        Ok(links)
    }

    /// The same while the agent runs, when an uplink may well have lost its address, its gateway or its interface: what
    /// is missing is None.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn rediscover(&mut self, config: &Config) -> Result<Vec<Link>> {
        let survey = self.survey()?;
        let links = config.uplinks.iter().enumerate().map(|(rank, uplink)| {
            let Ok(mut link) = survey.link(uplink) else {
                return Link {
                    ifindex: 0,
                    interface: uplink.interface.clone(),
                    link_layer: LinkLayer::None,
                    carrier: false,
                    families: [None, None],
                };
            };
            for family in Family::ALL {
                link.families[index(family)] =
                    survey.path(uplink, self.uplink_table(rank), family).ok();
            }
            link
        });
        Ok(links.collect())
    }

    fn survey(&mut self) -> Result<Survey> {
        Survey::take(
            &mut self.netlink,
            RouteProtocol::from(self.config.protocol),
            self.displaced.routes()?,
        )
    }

    fn uplink_table(&self, rank: usize) -> u32 {
        table::uplink_table(&self.config, rank)
    }

    /// A default route of an interface that is no uplink is not ours to displace: it must not have a metric of ours.
    fn check_metrics(&self, survey: &Survey, links: &[Link]) -> Result<(), Failure> {
        let standbys = self.config.standby_metric
            ..self.config.standby_metric + table::rank_number(links.len());
        for family in Family::ALL {
            if links
                .iter()
                .all(|link| link.families[index(family)].is_none())
            {
                continue;
            }
            for route in survey.foreign(family) {
                let of_uplink = hops(route)
                    .iter()
                    .any(|hop| links.iter().any(|link| link.ifindex == hop.ifindex));
                let key = match metric(route) {
                    metric if metric == self.config.active_metric => "active_metric",
                    metric if standbys.contains(&metric) => "standby_metric",
                    _ => continue,
                };
                if !of_uplink {
                    return Err(Failure::MetricTaken {
                        key,
                        metric: metric(route),
                        route: message::describe(route),
                    });
                }
            }
        }
        Ok(())
    }
}

fn has_targets(uplink: &UplinkConfig, family: Family) -> bool {
    uplink
        .probe
        .targets
        .iter()
        .any(|target| target.is_ipv4() == (family == Family::V4))
}

/// An interface.
struct Interface {
    index: u32,
    name: String,
    flags: LinkFlags,
    layer: LinkLayer,
}

/// An address on an interface.
struct Address {
    ifindex: u32,
    ip: IpAddr,
    /// The network on the link: the peer's, where there is one.
    network: (IpAddr, u8),
    /// Fit to be the source of a connection to the internet.
    usable: bool,
    /// IPv6 privacy address, or secondary IPv4 address: the others are better to probe from.
    secondary: bool,
}

/// The gateway, and the default route from which it was learned or which agrees with it.
type WayOut<'a> = (Option<IpAddr>, Option<(&'a RouteMessage, Hop)>);

/// Everything at one time.
struct Survey {
    protocol: RouteProtocol,
    interfaces: Vec<Interface>,
    addresses: Vec<Address>,
    /// Default routes in every table, and networks on the links as the kernel or router advertisements made them.
    routes: [Vec<RouteMessage>; 2],
    /// Default routes that an earlier run (or this one) has displaced: they count as if they stood.
    displaced: Vec<RouteMessage>,
}

impl Survey {
    fn take(
        netlink: &mut Netlink,
        ours: RouteProtocol,
        displaced: Vec<RouteMessage>,
    ) -> Result<Survey> {
        let interfaces = netlink
            .dump(
                &RouteNetlinkMessage::GetLink(LinkMessage::default()),
                |payload| Ok(Some(interface(&LinkMessage::parse(payload)?))),
            )
            .context("cannot list interfaces")?;
        let addresses = netlink
            .dump(
                &RouteNetlinkMessage::GetAddress(AddressMessage::default()),
                |payload| Ok(address(&AddressMessage::parse(payload)?)),
            )
            .context("cannot list addresses")?;
        let mut routes = [Vec::new(), Vec::new()];
        for family in Family::ALL {
            let found = &mut routes[index(family)];
            found.extend(netlink.routes(family, &main_table(), |header| {
                message::is_default(header)
                    || matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra)
                        && header.kind == RouteType::Unicast
            })?);
            found.extend(
                table::routes_of(netlink, family, u8::from(ours))?
                    .into_iter()
                    .filter(|route| message::table(route) != message::MAIN_TABLE),
            );
        }
        Ok(Survey {
            protocol: ours,
            interfaces,
            addresses,
            routes,
            displaced,
        })
    }

    fn link(&self, uplink: &UplinkConfig) -> Result<Link, Failure> {
        let interface = self.interface(uplink)?;
        Ok(Link {
            ifindex: interface.index,
            interface: interface.name.clone(),
            link_layer: interface.layer,
            carrier: interface.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            families: [None, None],
        })
    }

    fn interface(&self, uplink: &UplinkConfig) -> Result<&Interface, Failure> {
        let wanted = uplink.interface.as_str();
        self.interfaces
            .iter()
            .find(|interface| interface.name == wanted)
            .ok_or_else(|| {
                let names = || {
                    self.interfaces
                        .iter()
                        .map(|interface| interface.name.as_str())
                        .filter(|name| *name != "lo")
                };
                let similarity = |name: &&str| strsim::jaro_winkler(name, wanted);
                let nearest = names()
                    .filter(|name| similarity(name) >= SIMILAR)
                    .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
                let cure = match nearest {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                };
                Failure::UnknownInterface {
                    place: uplink.place.clone(),
                    interface: wanted.to_owned(),
                    cure,
                }
            })
    }

    fn path(&self, uplink: &UplinkConfig, own_table: u32, family: Family) -> Result<Path, Failure> {
        let interface = self.interface(uplink)?;
        let mut addresses: Vec<&Address> = self
            .addresses
            .iter()
            .filter(|address| {
                address.ifindex == interface.index
                    && address.ip.is_ipv4() == (family == Family::V4)
                    && address.usable
            })
            .collect();
        addresses.sort_by_key(|address| address.secondary);
        let Some(first) = addresses.first() else {
            return Err(Failure::NoSourceAddress {
                uplink: uplink.name.clone(),
                interface: interface.name.clone(),
                family,
            });
        };
        let prefixes = self.prefixes(interface.index, family);
        let (gateway, learned) = self.gateway(uplink, interface, own_table, family, &prefixes)?;

        let template = learned.map(|(route, hop)| Template {
            prefsrc: message::prefsrc(route)
                .filter(|source| addresses.iter().any(|address| address.ip == *source)),
            metrics: message::metrics(route),
            onlink: hop.onlink,
        });
        let template = template.unwrap_or_default();
        let source = template.prefsrc.unwrap_or_else(|| {
            let near = |address: &&&Address| {
                gateway.is_some_and(|gateway| contains(address.network, gateway))
            };
            addresses.iter().find(near).unwrap_or(first).ip
        });
        Ok(Path {
            source,
            addresses: addresses.iter().map(|address| address.ip).collect(),
            prefixes,
            gateway,
            template,
        })
    }

    fn gateway(
        &self,
        uplink: &UplinkConfig,
        interface: &Interface,
        own_table: u32,
        family: Family,
        prefixes: &[(IpAddr, u8)],
    ) -> Result<WayOut<'_>, Failure> {
        let point_to_point =
            interface.layer == LinkLayer::None || interface.flags.contains(LinkFlags::Pointopoint);
        let on_link = |hop: &Hop| match hop.gateway {
            None => true,
            Some(gateway) => {
                point_to_point
                    || hop.onlink
                    || is_link_local(gateway)
                    || prefixes.iter().any(|prefix| contains(*prefix, gateway))
            }
        };
        let candidates = self.candidates(interface.index, own_table, family);
        let key = match family {
            Family::V4 => "gateway",
            Family::V6 => "gateway6",
        };
        let setting = match family {
            Family::V4 => uplink.gateway,
            Family::V6 => uplink.gateway6,
        };
        let wanted = match setting {
            Gateway::Auto => match candidates.iter().copied().find(|(_, hop)| on_link(hop)) {
                Some((route, hop)) => return Ok((hop.gateway, Some((route, hop)))),
                None if point_to_point => None,
                None => {
                    return Err(Failure::NoGateway {
                        uplink: uplink.name.clone(),
                        interface: interface.name.clone(),
                        family,
                        cure: format!(
                            "give it with {key} = \"ADDRESS\", or {key} = \"none\" on a point-to-point link"
                        ),
                    });
                }
            },
            Gateway::Address(gateway) => Some(gateway),
            Gateway::None => None,
        };
        let learned = candidates
            .into_iter()
            .find(|(_, hop)| hop.gateway == wanted);
        let hop = learned.map_or(
            Hop {
                ifindex: interface.index,
                gateway: wanted,
                onlink: false,
            },
            |(_, hop)| hop,
        );
        match wanted {
            Some(gateway) if !on_link(&hop) => Err(Failure::GatewayOffLink {
                uplink: uplink.name.clone(),
                interface: interface.name.clone(),
                gateway,
                networks: prefixes
                    .iter()
                    .map(|(network, length)| format!("{network}/{length}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
            _ => Ok((wanted, learned)),
        }
    }

    /// Default routes by an interface, the best to learn from first: those of others by metric, displaced ones
    /// included; then ours in the main table, then ours in the uplink's own table, which are copies of older knowledge.
    fn candidates(
        &self,
        ifindex: u32,
        own_table: u32,
        family: Family,
    ) -> Vec<(&RouteMessage, Hop)> {
        let family_number = super::netlink::address_family(family);
        let displaced = self
            .displaced
            .iter()
            .filter(|route| route.header.address_family == family_number);
        let mut candidates: Vec<(&RouteMessage, Hop)> = self.routes[index(family)]
            .iter()
            .filter(|route| message::is_default(&route.header))
            .filter(|route| {
                message::table(route) == message::MAIN_TABLE || message::table(route) == own_table
            })
            .chain(displaced)
            .flat_map(|route| hops(route).into_iter().map(move |hop| (route, hop)))
            .filter(|(_, hop)| hop.ifindex == ifindex)
            .collect();
        candidates.sort_by_key(|(route, _)| {
            let ours = route.header.protocol == self.protocol;
            (
                ours,
                ours && message::table(route) != message::MAIN_TABLE,
                metric(route),
            )
        });
        candidates
    }

    /// Default routes in the main table that are not ours.
    fn foreign(&self, family: Family) -> impl Iterator<Item = &RouteMessage> {
        self.routes[index(family)].iter().filter(|route| {
            message::is_default(&route.header) && route.header.protocol != self.protocol
        })
    }

    /// Networks on the link: those of the addresses, and those that the kernel or a router advertisement says are there.
    fn prefixes(&self, ifindex: u32, family: Family) -> Vec<(IpAddr, u8)> {
        let of_addresses = self
            .addresses
            .iter()
            .filter(|address| address.ifindex == ifindex)
            .map(|address| address.network);
        let of_routes = self.routes[index(family)]
            .iter()
            .filter(|route| {
                message::table(route) == message::MAIN_TABLE && !message::is_default(&route.header)
            })
            .filter(|route| {
                hops(route)
                    .iter()
                    .any(|hop| hop.ifindex == ifindex && hop.gateway.is_none())
            })
            .filter_map(message::destination);
        let mut prefixes: Vec<(IpAddr, u8)> = of_addresses
            .chain(of_routes)
            .filter(|(network, length)| {
                let own = self.addresses.iter().any(|address| address.ip == *network)
                    && is_host((*network, *length));
                network.is_ipv4() == (family == Family::V4)
                    && *length > 0
                    && !is_link_local(*network)
                    && !network.is_multicast()
                    && !own
            })
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }
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
        flags: message.header.flags,
        layer: match message.header.link_layer_type {
            LinkLayerType::Ether => LinkLayer::Ethernet,
            _ => LinkLayer::None,
        },
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut peer = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            // All of them; the header has room for the first eight only.
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let ip = local.or(peer)?;
    let not_yet_or_no_more =
        AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let optimistic = flags.contains(AddressFlags::Optimistic);
    let unfit = if optimistic {
        not_yet_or_no_more - AddressFlags::Tentative
    } else {
        not_yet_or_no_more
    };
    Some(Address {
        ifindex: message.header.index,
        ip,
        network: (
            network(peer.unwrap_or(ip), message.header.prefix_len),
            message.header.prefix_len,
        ),
        usable: message.header.scope == AddressScope::Universe
            && !is_link_local(ip)
            && !flags.intersects(unfit),
        secondary: flags.contains(AddressFlags::Secondary),
    })
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false, // 169.254.0.0/16 is an ordinary network to the kernel's routing
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_host((ip, length): (IpAddr, u8)) -> bool {
    length == if ip.is_ipv4() { 32 } else { 128 }
}

/// The address with its host bits cleared.
fn network(ip: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(
            ip.to_bits() & u32::MAX.checked_shl(32 - length.min(32)).unwrap_or(0),
        )
        .into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(
            ip.to_bits() & u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0),
        )
        .into(),
    }
}

fn contains((net, length): (IpAddr, u8), ip: IpAddr) -> bool {
    net.is_ipv4() == ip.is_ipv4() && network(ip, length) == net
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_hosts() {
        let net: IpAddr = "192.0.2.128".parse().unwrap();
        assert_eq!(network("192.0.2.200".parse().unwrap(), 25), net);
        assert!(contains((net, 25), "192.0.2.129".parse().unwrap()));
        assert!(!contains((net, 25), "192.0.2.127".parse().unwrap()));
        assert!(!contains((net, 25), "2001:db8::1".parse().unwrap()));
        assert_eq!(network(net, 0), IpAddr::from(Ipv4Addr::UNSPECIFIED));
        assert_eq!(network(net, 32), net);
        let net6: IpAddr = "2001:db8::".parse().unwrap();
        assert_eq!(network("2001:db8::1:2".parse().unwrap(), 64), net6);
    }
}
