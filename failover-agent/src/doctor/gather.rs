//! Gathering the facts.

use std::{collections::HashMap, fs, net::IpAddr};

use anyhow::{Context as _, Result};
use failover_policy::{Family, PerFamily};
use futures_util::future::join_all;
use tracing::warn;

use super::{
    facts::{End, Facts, Probe, Settings, Uplink, targets},
    firewall,
    obstacle::{effective, obstacle, setting},
    probes,
};
use crate::{
    config::{Config, UplinkConfig},
    cutoff::Cutoff,
    datapath,
    failure::Failure,
    netlink::Netlink,
    route::{
        Link, Router,
        inspect::{self, Interface},
        lookup::Outgoing,
        others,
    },
    store::Store,
};

/// Gathers all facts, and probes every target by every uplink.
pub(super) async fn facts(config: &Config) -> Result<Facts> {
    let requirement = requirement(config)?;
    let links =
        Router::connect(&config.route, Store::read_only(&config.dirs))?.read_links(config)?;
    let mut netlink = Netlink::open_route()?;
    let interfaces = inspect::interfaces(&mut netlink)?;
    let defaults = inspect::foreign_defaults(&mut netlink, config.route.protocol)?;
    let routes = others::routes(&mut netlink, config.route.protocol)?;
    let sharing = inspect::sharing(&mut netlink, &config.route, &links)?;
    let mut uplinks = Vec::new();
    for (uplink, link) in config.uplinks.iter().zip(links.values()) {
        let interface = interfaces.iter().find(|other| other.index == link.ifindex);
        uplinks.push(self::uplink(config, uplink, link.clone(), interface));
    }
    probe(config, &mut uplinks, &mut netlink).await?;
    // After the probes, which made the kernel resolve the gateways.
    let neighbours = inspect::neighbours(&mut netlink)?;
    let neighbours: HashMap<(u32, IpAddr), Vec<u8>> = neighbours
        .into_iter()
        .map(|(ifindex, ip, link_layer)| ((ifindex, ip), link_layer))
        .collect();
    for uplink in &mut uplinks {
        let Some(interface) = &uplink.interface else {
            continue;
        };
        for (family, gateway) in uplink.gateways.iter_mut() {
            let path = uplink.paths[family].as_ref();
            let ip = path.and_then(|path| path.gateway);
            *gateway = ip.and_then(|ip| neighbours.get(&(interface.index, ip)).cloned());
        }
    }
    Ok(Facts {
        config: config.clone(),
        requirement,
        tcx: datapath::has_tcx(),
        cannot_end: Cutoff::open().missing().to_vec(),
        interfaces,
        uplinks,
        defaults,
        routes,
        sharing,
        forwarding: PerFamily::new(
            switch("/proc/sys/net/ipv4/ip_forward"),
            switch("/proc/sys/net/ipv6/conf/all/forwarding"),
        ),
        firewall: firewall::read(),
    })
}

/// What the agent would refuse to start for: problem and cure.
fn requirement(config: &Config) -> Result<Option<(String, String)>> {
    let options = datapath::Options {
        bpf_dir: config.dirs.bpf.clone(),
        attach: config.datapath.attach,
        probe_mark: config.route.mark,
    };
    let Err(error) = datapath::check_requirements(&options) else {
        return Ok(None);
    };
    match error.downcast::<Failure>()? {
        Failure::Kernel {
            release,
            feature,
            cure,
        } => Ok(Some((
            format!("this kernel ({release}) has no {feature}"),
            cure,
        ))),
        Failure::NoBpfFs { path } => Ok(Some((
            format!("no BPF file system at {}", path.display()),
            format!("mount -t bpf bpf {}", path.display()),
        ))),
        other => Err(other.into()),
    }
}

fn uplink(
    config: &Config,
    uplink: &UplinkConfig,
    link: Link,
    interface: Option<&Interface>,
) -> Uplink {
    let name = &uplink.interface;
    Uplink {
        interface: interface.cloned(),
        paths: link.families,
        gateways: PerFamily::default(),
        settings: Settings {
            rp_filter: effective(Family::V4, name, "rp_filter"),
            arp_ignore: effective(Family::V4, name, "arp_ignore"),
            arp_announce: effective(Family::V4, name, "arp_announce"),
            disable_ipv6: setting(Family::V6, name, "disable_ipv6"),
            accept_ra: setting(Family::V6, name, "accept_ra"),
            forwarding_v6: setting(Family::V6, name, "forwarding"),
        },
        programs: interface.map_or(Some(Vec::new()), |interface| programs(config, interface)),
        probes: Vec::new(),
    }
}

/// The programs on an interface; `None` if they cannot be listed, which needs CAP_SYS_ADMIN.
fn programs(config: &Config, interface: &Interface) -> Option<Vec<datapath::Program>> {
    let name = &interface.name;
    datapath::programs_on(&config.dirs.bpf, interface.index, name)
        .inspect_err(|error| warn!("programs on {name} are not examined: {error:#}"))
        .ok()
}

/// Probes all targets by all uplinks at once, except those whose answers cannot come.
async fn probe(config: &Config, uplinks: &mut [Uplink], netlink: &mut Netlink) -> Result<()> {
    let mut rounds = Vec::new();
    for (place, (config_of, uplink)) in config.uplinks.iter().zip(&mut *uplinks).enumerate() {
        let Some(interface) = &uplink.interface else {
            continue;
        };
        for family in Family::ALL {
            let Some(path) = &uplink.paths[family] else {
                continue;
            };
            let mut clear = Vec::new();
            for target in targets(config_of, family) {
                let packet = Outgoing {
                    source: path.source,
                    destination: target,
                    mark: config.route.mark,
                    bound_to: Some(interface.index),
                };
                let end = match obstacle(netlink, packet, interface.index, &interface.name)
                    .context("asking for a route")?
                {
                    _ if !interface.carrier => End::NotSent,
                    Some(obstacle) => End::Prevented(obstacle),
                    None => {
                        clear.push(target);
                        continue;
                    }
                };
                uplink.probes.push(Probe { target, end });
            }
            let (name, source) = (interface.name.clone(), path.source);
            let (mark, timeout) = (config.route.mark, config_of.probe.timeout);
            let bpf_dir = &config.dirs.bpf;
            rounds.push(async move {
                (
                    place,
                    probes::probe(bpf_dir, &name, source, mark, timeout, &clear).await,
                )
            });
        }
    }
    for (place, ends) in join_all(rounds).await {
        let probes = ends.into_iter().map(|(target, end)| Probe { target, end });
        uplinks[place].probes.extend(probes);
    }
    Ok(())
}

/// Whether a kernel setting is on; off where it does not exist (a kernel without IPv6).
fn switch(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}
