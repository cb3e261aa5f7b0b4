//! How one family leaves by one uplink: gateway, source address, networks on the link.

use std::net::IpAddr;

use anyhow::Result;
use failover_ebpf::LinkLayer;
use failover_policy::Family;
use ipnet::IpNet;
use rtnetlink::{
    packet_core::Parseable,
    packet_route::{
        RouteNetlinkMessage,
        link::LinkFlags,
        route::{RouteAttribute, RouteMessage, RouteProtocol},
    },
};

use super::{
    learned::NextHop,
    survey::{Address, Interface, Survey, is_link_local},
};
use crate::route::{
    error::Error,
    link::EgressPath,
    link::Template,
    router::Router,
    wire::list::address_family,
    wire::message::{self, Hop},
};
use crate::{
    config::{Gateway, UplinkConfig},
    failure::Failure,
};

impl Router {
    /// How one family leaves by an uplink, learned from others' routes, or remembered from them.
    ///
    /// # Errors
    /// A [`Failure`]: it does not leave by it. Or netlink fails.
    pub(crate) fn path(
        &mut self,
        survey: &Survey,
        uplink: &UplinkConfig,
        family: Family,
    ) -> Result<EgressPath, Error> {
        let interface = survey.interface(uplink)?;
        if let Some(vrf) = survey.vrf(interface) {
            return Err(Error::Failure(Failure::InVrf {
                uplink: uplink.name.clone(),
                interface: interface.name.clone(),
                vrf,
            }));
        }
        let up = interface.flags.contains(LinkFlags::Up);
        let near = Near::of(survey, interface, family);
        let routes = survey.candidates(interface.index, family);
        let shown = routes
            .iter()
            .find(|(_, hop)| near.reaches(hop.gateway, hop.onlink));
        match shown {
            Some((route, hop)) => {
                if let Some(left) = message::lifetime(route) {
                    self.missing.ends_in(left);
                }
                let next_hop = near.next_hop(route, *hop);
                self.learned
                    .learn(&interface.name, interface.index, family, next_hop);
            }
            None => self.learned.miss(&interface.name, family, up),
        }
        let known = self.learned.get(&interface.name, family);
        let reaches = |next_hop: &NextHop| near.reaches(next_hop.gateway, next_hop.template.onlink);
        let learned = known.filter(|next_hop| reaches(next_hop)).cloned();
        if known.is_some() && learned.is_none() && up && !near.networks.is_empty() {
            self.learned.forget(&interface.name, family);
        }
        let sourceless = survey
            .sources(interface.index, family, target(uplink, family))
            .is_empty();
        let next_hop = next_hop_of(uplink, family, &near, &routes, learned);
        let mut next_hop = next_hop.map_err(|failure| match failure {
            // The address comes first; with it, the gateway may be known.
            Failure::NoGateway { .. } if sourceless => no_source(uplink, interface, family),
            failure => failure,
        })?;
        if let Some(source) = given_source(uplink, family) {
            next_hop.template.prefsrc = Some(source);
        }
        let unnumbered = survey.is_unnumbered(interface.index, family) && up;
        let borrowed = match unnumbered && (shown.is_some() || next_hop.gateway.is_none()) {
            true => self.borrowed_source(survey, uplink, interface, &next_hop, family)?,
            false => None,
        };
        Ok(survey.path(uplink, &near, family, next_hop, borrowed)?)
    }

    /// The source for an interface without an address of its own: the one that its default route prefers, or that the kernel
    /// chooses for a packet by it. Another uplink's address is none, whatever that one's interface is called by now.
    fn borrowed_source(
        &mut self,
        survey: &Survey,
        uplink: &UplinkConfig,
        interface: &Interface,
        next_hop: &NextHop,
        family: Family,
    ) -> Result<Option<IpAddr>> {
        let source = match (next_hop.template.prefsrc, target(uplink, family)) {
            (Some(source), _) => Some(source),
            (None, Some(target)) => self.ask_source(interface.index, target)?,
            (None, None) => None,
        };
        let lent = |address: &&Address| Some(address.ip) == source && address.fitness.is_some();
        let Some(address) = survey.addresses.iter().find(lent) else {
            return Ok(None);
        };
        Ok(source.filter(|_| !self.uplinks.have(address.ifindex)))
    }

    /// The source address that the kernel would choose for a probe of `target` by an interface.
    fn ask_source(&mut self, ifindex: u32, target: IpAddr) -> Result<Option<IpAddr>> {
        let (family, length) = match target {
            IpAddr::V4(_) => (Family::V4, 32),
            IpAddr::V6(_) => (Family::V6, 128),
        };
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(family);
        request.header.destination_prefix_length = length;
        request.attributes = vec![
            RouteAttribute::Destination(target.into()),
            RouteAttribute::Oif(ifindex),
            RouteAttribute::Mark(self.config.mark),
        ];
        let answer = self
            .netlink
            .get(&RouteNetlinkMessage::GetRoute(request), |payload| {
                Ok(Some(RouteMessage::parse(payload)?))
            });
        match answer {
            Ok(route) => Ok(route.as_ref().and_then(message::prefsrc)),
            // No way by it, and so no source.
            Err(error) if error.refused().is_some() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl EgressPath {
    /// The network on the link that `target` is in, or the gateway that it is: such a target says nothing about what lies
    /// beyond.
    pub fn on_link(&self, target: IpAddr) -> Option<IpNet> {
        let gateway = self.gateway.map(IpNet::from);
        let mut networks = self.prefixes.iter().copied().chain(gateway);
        networks.find(|network| network.contains(&target))
    }
}

impl Interface {
    fn is_point_to_point(&self) -> bool {
        self.layer == LinkLayer::None || self.flags.contains(LinkFlags::Pointopoint)
    }
}

/// What is on the link of an interface in one family.
struct Near<'a> {
    interface: &'a Interface,
    /// [`Survey::prefixes`].
    prefixes: Vec<IpNet>,
    /// [`Survey::gateway_networks`].
    networks: Vec<IpNet>,
}

impl<'a> Near<'a> {
    fn of(survey: &Survey, interface: &'a Interface, family: Family) -> Near<'a> {
        Near {
            interface,
            prefixes: survey.prefixes(interface.index, family),
            networks: survey.gateway_networks(interface.index, family),
        }
    }

    /// Whether a gateway is on the link.
    fn reaches(&self, gateway: Option<IpAddr>, onlink: bool) -> bool {
        gateway.is_none_or(|gateway| {
            onlink
                || self.is_near(gateway)
                || self.networks.iter().any(|net| net.contains(&gateway))
        })
    }

    /// Whether a gateway is on the link whatever routes others make.
    fn is_near(&self, gateway: IpAddr) -> bool {
        self.interface.is_point_to_point()
            || is_link_local(gateway)
            || self.prefixes.iter().any(|net| net.contains(&gateway))
    }

    /// What one nexthop of a default route shows. A gateway that is on the link by another route only is one for us without it, too: our
    /// own tables do not have that route, and it goes when the interface is set down.
    fn next_hop(&self, route: &RouteMessage, hop: Hop) -> NextHop {
        let mut next_hop = NextHop::of(route, hop);
        next_hop.template.onlink |= hop.gateway.is_some_and(|gateway| !self.is_near(gateway));
        next_hop
    }

    /// The networks on the link when the gateway is this one.
    fn with_gateway(&self, gateway: Option<IpAddr>, family: Family) -> Vec<IpNet> {
        let mut prefixes = self.prefixes.clone();
        let alone = gateway.filter(|gateway| {
            gateway.is_ipv4() == (family == Family::V4) && !self.is_near(*gateway)
        });
        prefixes.extend(alone.map(IpNet::from));
        prefixes
    }
}

/// The target that an uplink's source has to suit: its first one of the family.
fn target(uplink: &UplinkConfig, family: Family) -> Option<IpAddr> {
    let mut targets = uplink.probe.targets.iter().copied();
    targets.find(|target| target.is_ipv4() == (family == Family::V4))
}

fn given_source(uplink: &UplinkConfig, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => uplink.source,
        Family::V6 => uplink.source6,
    }
}

/// The egress path as configured: `learned`, or given. A given one takes over what the default routes that agree with it say.
fn next_hop_of(
    uplink: &UplinkConfig,
    family: Family,
    near: &Near<'_>,
    routes: &[(&RouteMessage, Hop)],
    learned: Option<NextHop>,
) -> Result<NextHop, Failure> {
    let interface = near.interface;
    let (key, setting) = match family {
        Family::V4 => ("gateway", uplink.gateway),
        Family::V6 => ("gateway6", uplink.gateway6),
    };
    let given = match setting {
        Gateway::Address(gateway) => Some(gateway),
        Gateway::None => None,
        Gateway::Auto => match learned {
            Some(next_hop) => return Ok(next_hop),
            None if interface.is_point_to_point() => None,
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
    };
    let agreeing = routes.iter().find(|(_, hop)| hop.gateway == given);
    let mut next_hop = agreeing.map_or(
        NextHop {
            gateway: given,
            template: Template::default(),
            protocol: RouteProtocol::Unspec,
        },
        |(route, hop)| near.next_hop(route, *hop),
    );
    let reached = near.reaches(given, next_hop.template.onlink);
    match given {
        // Without any network it has no address yet, or one of length 32 or 128, whose gateway is the only neighbour.
        Some(gateway) if reached || near.networks.is_empty() => {
            next_hop.template.onlink |= !near.is_near(gateway);
            Ok(next_hop)
        }
        Some(gateway) => Err(Failure::GatewayOffLink {
            uplink: uplink.name.clone(),
            interface: interface.name.clone(),
            gateway,
            networks: near
                .networks
                .iter()
                .map(IpNet::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        }),
        None => Ok(next_hop),
    }
}

impl Survey {
    /// The path by a `way` out. `borrowed` is the source if the interface has no address of its own.
    fn path(
        &self,
        uplink: &UplinkConfig,
        near: &Near<'_>,
        family: Family,
        next_hop: NextHop,
        borrowed: Option<IpAddr>,
    ) -> Result<EgressPath, Failure> {
        let interface = near.interface;
        let own = self.sources(interface.index, family, target(uplink, family));
        if let Some(given) = given_source(uplink, family)
            && borrowed != Some(given)
            && !own.iter().any(|address| address.ip == given)
        {
            return Err(source_elsewhere(uplink, interface, family, given));
        }
        let mut template = next_hop.template;
        let kept = |source: &IpAddr| match borrowed {
            Some(borrowed) => *source == borrowed,
            None => own.iter().any(|address| {
                let preferred = address.fitness.is_some_and(|fitness| !fitness.deprecated);
                address.ip == *source && (preferred || given_source(uplink, family).is_some())
            }),
        };
        template.prefsrc = template.prefsrc.filter(kept);
        // In IPv6 the kernel chooses for each destination by itself (RFC 6724, 5, rule 8): for some it would take another uplink's.
        if family == Family::V6 {
            template.prefsrc = template.prefsrc.or(borrowed);
        }
        let of_gateway = |address: &&&Address| {
            family == Family::V4
                && next_hop
                    .gateway
                    .is_some_and(|gateway| address.network.contains(&gateway))
        };
        let best = own.first().map(|best| best.fitness);
        let mut equals = own.iter().filter(|address| Some(address.fitness) == best);
        let source = template.prefsrc.or(borrowed).or_else(|| {
            let source = equals.find(of_gateway).or(own.first());
            source.map(|source| source.ip)
        });
        let source = source.ok_or_else(|| no_source(uplink, interface, family))?;
        Ok(EgressPath {
            source,
            prefixes: near.with_gateway(next_hop.gateway, family),
            gateway: next_hop.gateway,
            template,
        })
    }
}

fn no_source(uplink: &UplinkConfig, interface: &Interface, family: Family) -> Failure {
    Failure::NoSourceAddress {
        uplink: uplink.name.clone(),
        interface: interface.name.clone(),
        missing: format!("{family} address"),
        cure: format!("configure one (for example by DHCP), or remove the {family} targets"),
    }
}

/// The address that was configured as the source is not there.
fn source_elsewhere(
    uplink: &UplinkConfig,
    interface: &Interface,
    family: Family,
    source: IpAddr,
) -> Failure {
    let key = match family {
        Family::V4 => "source",
        Family::V6 => "source6",
    };
    Failure::NoSourceAddress {
        uplink: uplink.name.clone(),
        interface: interface.name.clone(),
        missing: format!("address {source}"),
        cure: format!("add it, or correct `{key}`"),
    }
}
