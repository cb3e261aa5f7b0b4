//! What policy and probers must know, read off the configuration and the links.

use std::net::IpAddr;

use failover_policy::{
    Family, MachineConfig, PerFamily, PerUplink, TargetId, UplinkSet, UplinkSettings,
};

use super::memory::Known;
use crate::{
    config::{Config, OnDown, UplinkConfig},
    probe::ProbeSpec,
    route::Link,
};

/// What each prober does: one for every uplink and family that has targets.
pub(super) fn probe_specs<'a>(
    config: &'a Config,
    links: &'a PerUplink<Link>,
) -> impl Iterator<Item = ProbeSpec> + 'a {
    let uplinks = links.iter().zip(&config.uplinks);
    uplinks.flat_map(move |((id, link), uplink)| {
        let of_family = move |family: Family| {
            let targets: Vec<_> = targets(uplink, family).collect();
            let spec = (!targets.is_empty()).then(|| ProbeSpec {
                uplink: id,
                family,
                interface: link.interface.clone(),
                targets,
                interval: uplink.probe.interval,
                timeout: uplink.probe.timeout,
                mark: config.route.mark,
                source: None,
                on_link: Vec::new(),
            });
            let path = link.families[family].as_ref();
            spec.map(|spec| spec.by(path))
        };
        Family::ALL.into_iter().filter_map(of_family)
    })
}

/// The targets of one family, with their places in the whole list.
pub(super) fn targets(
    uplink: &UplinkConfig,
    family: Family,
) -> impl Iterator<Item = (TargetId, IpAddr)> {
    let all = uplink.probe.targets.iter().copied().enumerate();
    all.filter(move |(_, target)| target.is_ipv4() == (family == Family::V4))
        .map(|(index, target)| (TargetId(index), target))
}

/// What the policy must know, as long as nothing is active and no drill goes on. `known` is what an earlier run has found out.
pub(super) fn machine_config(
    config: &Config,
    links: &PerUplink<Link>,
    known: &Known,
) -> MachineConfig {
    let uplinks = links.iter().zip(&config.uplinks);
    MachineConfig {
        uplinks: uplinks
            .map(|((id, link), uplink)| (id, settings(uplink, link, known)))
            .collect(),
        active: PerFamily::both(UplinkSet::NONE),
        drill: None,
        manual_override: PerFamily::from_fn(|family| {
            let interface = known.manual_override(family)?;
            let mut links = links.iter();
            let found = links.find(|(_, link)| link.interface == interface);
            found.map(|(id, _)| id)
        }),
        withdraw: config.route.on_down == OnDown::Withdraw,
    }
}

/// What the policy must know of one uplink.
fn settings(uplink: &UplinkConfig, link: &Link, known: &Known) -> UplinkSettings {
    let probe = &uplink.probe;
    UplinkSettings {
        rank: uplink.rank,
        carrier: link.carrier,
        earlier: known.health(&uplink.interface),
        recover_interval: (!uplink.recover.is_empty()).then_some(uplink.recover_interval),
        fall: probe.fall,
        rise: probe.rise,
        quorum: probe.quorum,
        hold: probe.hold,
        drain: uplink.drain,
        interval: probe.interval,
        timeout: probe.timeout,
        targets: PerFamily::from_fn(|family| {
            u32::try_from(targets(uplink, family).count()).unwrap_or(u32::MAX)
        }),
        usable: PerFamily::from_fn(|family| link.families[family].is_some()),
    }
}
