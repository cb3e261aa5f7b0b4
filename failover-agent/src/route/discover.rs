//! The uplinks and their ways out, learned from what is there before anything is changed.

use std::net::IpAddr;

use anyhow::Result;
use failover_ebpf::LinkLayer;
use rtnetlink::packet_route::{
    link::LinkFlags,
    route::{RouteMessage, RouteProtocol},
};

use tracing::warn;

use super::{
    Link, Path, Router, Template, index,
    message::{self, Hop, hops, metric},
    plan,
    survey::{self, Address, Interface, Survey, contains, is_link_local},
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
    /// A [`Failure`]: unknown interface; no gateway or no address in any family for which the uplink has targets (one of two is
    /// enough: a modem without IPv6 is a warning); a gateway that is not on the link; a default route of someone else's
    /// interface with one of our metrics. Or netlink fails.
    pub fn discover(&mut self, config: &Config) -> Result<Vec<Link>> {
        self.assign_slots(config)?;
        let survey = self.survey()?;
        let mut links = Vec::new();
        for uplink in &config.uplinks {
            let slot = self.slots.of(&uplink.interface);
            let mut link = survey.link(uplink, slot)?;
            let mut failures = Vec::new();
            for family in Family::ALL {
                match survey.path(uplink, self.uplink_table(slot), family) {
                    Ok(path) => link.families[index(family)] = Some(path),
                    Err(failure @ Failure::GatewayOffLink { .. }) => return Err(failure.into()),
                    Err(failure) if has_targets(uplink, family) => failures.push(failure),
                    Err(_) => {}
                }
            }
            let probed = |family: &Family| {
                has_targets(uplink, *family) && link.families[index(*family)].is_some()
            };
            let none_is_probed = !Family::ALL.iter().any(probed);
            for failure in failures {
                if none_is_probed {
                    return Err(failure.into());
                }
                warn!("{failure}");
            }
            links.push(link);
        }
        self.check_metrics(&survey, &links)?;
        Ok(links)
    }

    /// The same while the agent runs, when an uplink may well have lost its address, its gateway or its interface: what
    /// is missing is None. A gateway that was known before counts as long as it is on the link, because the kernel drops
    /// the default route of an interface that goes down, and not everybody puts it back.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn rediscover(&mut self, config: &Config) -> Result<Vec<Link>> {
        self.assign_slots(config)?;
        let survey = self.survey()?;
        let links = config.uplinks.iter().map(|uplink| {
            let slot = self.slots.of(&uplink.interface);
            let Ok(mut link) = survey.link(uplink, slot) else {
                return Link {
                    ifindex: 0,
                    interface: uplink.interface.clone(),
                    link_layer: LinkLayer::None,
                    carrier: false,
                    slot,
                    rank: uplink.rank,
                    weight: uplink.weight,
                    metric: uplink.metric,
                    families: [None, None],
                };
            };
            for family in Family::ALL {
                let table = self.uplink_table(slot);
                let last = self
                    .remembered
                    .get(&uplink.interface)
                    .and_then(|last| last[index(family)].as_ref());
                link.families[index(family)] = match (survey.path(uplink, table, family), last) {
                    (Err(Failure::NoGateway { .. }), Some(last)) => {
                        survey.path_as_before(uplink, table, family, last)
                    }
                    (path, _) => path.ok(),
                };
            }
            link
        });
        Ok(links.collect())
    }

    /// The networks that this host is on, by whatever interface: no uplink is needed to reach them.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn networks(&mut self) -> Result<Vec<(IpAddr, u8)>> {
        survey::networks(&mut self.netlink)
    }

    fn survey(&mut self) -> Result<Survey> {
        Survey::take(
            &mut self.netlink,
            RouteProtocol::from(self.config.protocol),
            self.displaced.routes()?,
        )
    }

    fn uplink_table(&self, slot: u32) -> u32 {
        table::uplink_table(&self.config, slot)
    }

    /// A default route of an interface that is no uplink is not ours to displace: it must not have a metric of ours.
    fn check_metrics(&self, survey: &Survey, links: &[Link]) -> Result<(), Failure> {
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
                let Some(key) = plan::key_of(links, &self.config, metric(route)) else {
                    continue;
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

/// The gateway, and the default route from which it was learned or which agrees with it.
type WayOut<'a> = (Option<IpAddr>, Option<(&'a RouteMessage, Hop)>);

impl Survey {
    fn link(&self, uplink: &UplinkConfig, slot: u32) -> Result<Link, Failure> {
        let interface = self.interface(uplink)?;
        Ok(Link {
            ifindex: interface.index,
            interface: interface.name.clone(),
            link_layer: interface.layer,
            carrier: interface.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            slot,
            rank: uplink.rank,
            weight: uplink.weight,
            metric: uplink.metric,
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

    /// The path by a gateway that is no longer in any route.
    fn path_as_before(
        &self,
        uplink: &UplinkConfig,
        own_table: u32,
        family: Family,
        last: &Path,
    ) -> Option<Path> {
        let mut uplink = uplink.clone();
        let setting = match family {
            Family::V4 => &mut uplink.gateway,
            Family::V6 => &mut uplink.gateway6,
        };
        *setting = Gateway::Address(last.gateway?);
        let mut path = self.path(&uplink, own_table, family).ok()?;
        if path.addresses.contains(&last.source) {
            path.source = last.source;
            path.template = last.template.clone();
        }
        Some(path)
    }
}
