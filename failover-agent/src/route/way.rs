//! How one family leaves by one uplink: gateway, source address, networks on the link.

use std::net::IpAddr;

use anyhow::Result;
use failover_ebpf::LinkLayer;
use rtnetlink::{
    packet_core::Parseable,
    packet_route::{
        RouteNetlinkMessage,
        link::LinkFlags,
        route::{RouteAttribute, RouteMessage, RouteProtocol},
    },
};

use super::{
    Path, Router, Template,
    learned::WayOut,
    list::address_family,
    message::{self, Hop},
    survey::{Address, Interface, Survey, contains, is_link_local},
};
use crate::{
    config::{Config, Gateway, UplinkConfig},
    failure::Failure,
    netlink::Refused,
    policy::Family,
};

impl Router {
    /// How one family leaves by an uplink, learned from others' routes, or remembered from them.
    pub(super) fn path(
        &mut self,
        survey: &Survey,
        config: &Config,
        uplink: &UplinkConfig,
        family: Family,
    ) -> Result<Result<Path, Failure>> {
        let interface = match survey.interface(uplink) {
            Ok(interface) => interface,
            Err(failure) => return Ok(Err(failure)),
        };
        let up = interface.flags.contains(LinkFlags::Up);
        let prefixes = survey.prefixes(interface.index, family);
        let routes = survey.candidates(interface.index, family);
        let told = routes
            .iter()
            .find(|(_, hop)| interface.reaches(&prefixes, hop.gateway, hop.onlink));
        match told {
            Some((route, hop)) => {
                if let Some(left) = message::lifetime(route) {
                    self.missing.ends_in(left);
                }
                let way = WayOut::told(route, *hop);
                self.learned
                    .learn(&interface.name, interface.index, family, way);
            }
            None => self.learned.miss(&interface.name, family, up),
        }
        let known = self.learned.get(&interface.name, family);
        let reaches = |way: &WayOut| interface.reaches(&prefixes, way.gateway, way.template.onlink);
        let learned = known.filter(|way| reaches(way)).cloned();
        if known.is_some() && learned.is_none() && up && !prefixes.is_empty() {
            self.learned.forget(&interface.name, family);
        }
        let sourceless = survey.sources(interface.index, family).is_empty();
        let way = match way_out(uplink, interface, family, &prefixes, &routes, learned) {
            Ok(way) => way,
            // The address comes first; with it, the gateway may be known.
            Err(Failure::NoGateway { .. }) if sourceless => {
                return Ok(Err(no_source(uplink, interface, family)));
            }
            Err(failure) => return Ok(Err(failure)),
        };
        let unnumbered = survey.is_unnumbered(interface.index, family) && up;
        let borrowed = match unnumbered && (told.is_some() || way.gateway.is_none()) {
            true => self.borrowed_source(survey, config, uplink, interface, &way, family)?,
            false => None,
        };
        Ok(survey.path(uplink, interface, family, prefixes, way, borrowed))
    }

    /// The source for an interface without an address of its own: the one that its default route prefers, or that the kernel
    /// chooses for a packet by it. Another uplink's address is none.
    fn borrowed_source(
        &mut self,
        survey: &Survey,
        config: &Config,
        uplink: &UplinkConfig,
        interface: &Interface,
        way: &WayOut,
        family: Family,
    ) -> Result<Option<IpAddr>> {
        let mut targets = uplink.probe.targets.iter().copied();
        let target = targets.find(|target| target.is_ipv4() == (family == Family::V4));
        let source = match (way.template.prefsrc, target) {
            (Some(source), _) => Some(source),
            (None, Some(target)) => self.ask_source(interface.index, target)?,
            (None, None) => None,
        };
        let lent = |address: &&Address| Some(address.ip) == source && address.fitness.is_some();
        let Some(address) = survey.addresses.iter().find(lent) else {
            return Ok(None);
        };
        let lender = survey
            .interfaces
            .iter()
            .find(|interface| interface.index == address.ifindex);
        let of_uplink = |lender: &Interface| {
            let mut uplinks = config.uplinks.iter();
            uplinks.any(|uplink| uplink.interface == lender.name)
        };
        Ok(source.filter(|_| lender.is_some_and(|lender| !of_uplink(lender))))
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
            .get(RouteNetlinkMessage::GetRoute(request), |payload| {
                Ok(Some(RouteMessage::parse(payload)?))
            });
        match answer {
            Ok(route) => Ok(route.as_ref().and_then(message::prefsrc)),
            // No way by it, and so no source.
            Err(error) if error.is::<Refused>() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Path {
    /// The network on the link that `target` is in, or the gateway that it is: such a target says nothing about what lies
    /// beyond.
    pub fn on_link(&self, target: IpAddr) -> Option<(IpAddr, u8)> {
        let gateway = self.gateway.map(|gateway| match gateway {
            IpAddr::V4(_) => (gateway, 32),
            IpAddr::V6(_) => (gateway, 128),
        });
        let mut networks = self.prefixes.iter().copied().chain(gateway);
        networks.find(|network| contains(*network, target))
    }
}

impl Interface {
    fn is_point_to_point(&self) -> bool {
        self.layer == LinkLayer::None || self.flags.contains(LinkFlags::Pointopoint)
    }

    /// Whether a gateway is on the link, whose networks are `prefixes`.
    fn reaches(&self, prefixes: &[(IpAddr, u8)], gateway: Option<IpAddr>, onlink: bool) -> bool {
        gateway.is_none_or(|gateway| {
            self.is_point_to_point()
                || onlink
                || is_link_local(gateway)
                || prefixes.iter().any(|prefix| contains(*prefix, gateway))
        })
    }
}

/// The way out as configured: `learned`, or given. A given one takes over what the default routes that agree with it say.
fn way_out(
    uplink: &UplinkConfig,
    interface: &Interface,
    family: Family,
    prefixes: &[(IpAddr, u8)],
    routes: &[(&RouteMessage, Hop)],
    learned: Option<WayOut>,
) -> Result<WayOut, Failure> {
    let (key, setting) = match family {
        Family::V4 => ("gateway", uplink.gateway),
        Family::V6 => ("gateway6", uplink.gateway6),
    };
    let given = match setting {
        Gateway::Address(gateway) => Some(gateway),
        Gateway::None => None,
        Gateway::Auto => match learned {
            Some(way) => return Ok(way),
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
    let way = agreeing.map_or(
        WayOut {
            gateway: given,
            template: Template::default(),
            protocol: RouteProtocol::Unspec,
        },
        |(route, hop)| WayOut::told(route, *hop),
    );
    match given {
        // Without any network it has no address yet: that is what is missing.
        Some(gateway)
            if !prefixes.is_empty() && !interface.reaches(prefixes, given, way.template.onlink) =>
        {
            Err(Failure::GatewayOffLink {
                uplink: uplink.name.clone(),
                interface: interface.name.clone(),
                gateway,
                networks: prefixes
                    .iter()
                    .map(|(network, length)| format!("{network}/{length}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        }
        _ => Ok(way),
    }
}

impl Survey {
    /// The path by a `way` out. `borrowed` is the source if the interface has no address of its own.
    fn path(
        &self,
        uplink: &UplinkConfig,
        interface: &Interface,
        family: Family,
        prefixes: Vec<(IpAddr, u8)>,
        way: WayOut,
        borrowed: Option<IpAddr>,
    ) -> Result<Path, Failure> {
        let own = self.sources(interface.index, family);
        let mut template = way.template;
        let kept = |source: &IpAddr| match borrowed {
            Some(borrowed) => *source == borrowed,
            None => own.iter().any(|address| {
                address.ip == *source && address.fitness.is_some_and(|fitness| !fitness.deprecated)
            }),
        };
        template.prefsrc = template.prefsrc.filter(kept);
        // In IPv6 the kernel chooses for each destination anew (RFC 6724, 5, rule 8): for some it would take another uplink's.
        if family == Family::V6 {
            template.prefsrc = template.prefsrc.or(borrowed);
        }
        let near = |address: &&&Address| {
            way.gateway
                .is_some_and(|gateway| contains(address.network, gateway))
        };
        let best = own.first().map(|best| best.fitness);
        let mut best = own.iter().filter(|address| Some(address.fitness) == best);
        let source = template.prefsrc.or(borrowed).or_else(|| {
            let near = best.clone().find(near);
            Some(near.or_else(|| best.next())?.ip)
        });
        let source = source.ok_or_else(|| no_source(uplink, interface, family))?;
        Ok(Path {
            source,
            prefixes,
            gateway: way.gateway,
            template,
        })
    }
}

fn no_source(uplink: &UplinkConfig, interface: &Interface, family: Family) -> Failure {
    Failure::NoSourceAddress {
        uplink: uplink.name.clone(),
        interface: interface.name.clone(),
        family,
    }
}
