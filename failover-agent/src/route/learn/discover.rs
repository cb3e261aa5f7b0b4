//! The uplinks and their egress paths, learned from what is there before anything is changed.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_ebpf::LinkLayer;
use failover_policy::{Family, PerFamily, PerUplink, UplinkId, UplinkSet};
use ipnet::IpNet;
use rtnetlink::packet_route::{link::LinkFlags, route::RouteProtocol};
use tracing::warn;

use super::survey::{self, Interface, Survey};
use crate::route::{error::Error, link::EgressPath, link::Link, router::Router};
use crate::{
    config::{Config, UplinkConfig},
    failure::Failure,
};

/// Similarity (Jaro-Winkler) from which a name counts as a slip of the pen.
const SIMILAR: f64 = 0.8;

/// How long an uplink with carrier counts as it was known after it has lost its address or its gateway: a DHCP client with
/// a new lease takes away the old one first.
const LINGER: Duration = Duration::from_millis(500);

/// The kernel reports what is left of a lifetime in whole ticks of 10 ms, and 0 is for ever: well past its end there is no doubt.
const SWEPT: Duration = Duration::from_millis(50);

/// What is not there (any more) on interfaces that are.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Since when.
    since: HashMap<(UplinkId, Family), Instant>,
    /// Why an uplink has no egress path.
    reasons: HashMap<(UplinkId, Family), String>,
    next_scan: Option<Instant>,
}

impl Missing {
    /// A route has so much left of its lifetime.
    pub(crate) fn ends_in(&mut self, left: Duration) {
        self.scan_by(Instant::now() + left + SWEPT);
    }

    /// What is known of others than these uplinks is forgotten.
    pub(crate) fn retain(&mut self, kept: UplinkSet) {
        self.since.retain(|(uplink, _), _| kept.contains(*uplink));
        self.reasons.retain(|(uplink, _), _| kept.contains(*uplink));
    }

    /// When a scan may find something else although the kernel reports no change.
    pub(crate) fn next_scan(&self) -> Option<Instant> {
        self.next_scan
    }

    fn scan_by(&mut self, time: Instant) {
        self.next_scan = Some(self.next_scan.map_or(time, |earlier| earlier.min(time)));
    }
}

impl Router {
    /// Scans every uplink, in order of rank, before anything is changed.
    ///
    /// # Errors
    /// A [`Failure`]: those of [`Router::await_uplinks`] and what it waits for. Or netlink fails.
    pub fn discover(&mut self, config: &Config) -> Result<PerUplink<Link>> {
        let survey = self.survey()?;
        let (links, missing) = self.read(&survey, config)?;
        if let Some(failure) = missing.into_iter().next() {
            return Err(failure.into());
        }
        check_targets(config, &links)?;
        Ok(links)
    }

    /// The same for an agent that waits for what is not there yet: unknown interfaces; uplinks without a gateway or an address in
    /// any family for which they have targets (one of two is enough: a modem without IPv6 is a warning). Returns what is known
    /// of the uplinks, and one [`Failure`] for each that has to be waited for.
    ///
    /// # Errors
    /// A [`Failure`] that no waiting cures: a gateway that is not on the link of an interface with a network; a target on an uplink's own
    /// link. Or netlink fails.
    pub fn await_uplinks(&mut self, config: &Config) -> Result<(PerUplink<Link>, Vec<Failure>)> {
        let survey = self.survey()?;
        let (links, missing) = self.read(&survey, config)?;
        check_targets(config, &links)?;
        Ok((links, missing))
    }

    fn read(
        &mut self,
        survey: &Survey,
        config: &Config,
    ) -> Result<(PerUplink<Link>, Vec<Failure>)> {
        let slots = self.slots_of(config)?;
        self.uplinks.note(survey, config);
        let mut links = Vec::new();
        let mut missing = Vec::new();
        for uplink in &config.uplinks {
            let id = slots.of(&uplink.interface);
            let mut link = match survey.link(uplink) {
                Ok(link) => link,
                Err(failure) => {
                    missing.push(failure);
                    links.push((id, absent(uplink)));
                    continue;
                }
            };
            let mut failures = Vec::new();
            for family in Family::ALL {
                match self.path(survey, uplink, family) {
                    Ok(path) => link.families[family] = Some(path),
                    Err(Error::Failure(failure @ Failure::GatewayOffLink { .. }))
                        if !survey.may_reach_more(link.ifindex, family) =>
                    {
                        return Err(failure.into());
                    }
                    Err(Error::Failure(failure)) => {
                        if has_targets(uplink, family) {
                            failures.push(failure);
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let probed =
                |family: &Family| has_targets(uplink, *family) && link.families[*family].is_some();
            if Family::ALL.iter().any(probed) {
                failures.iter().for_each(|failure| warn!("{failure}"));
            } else {
                missing.extend(failures.into_iter().next());
            }
            links.push((id, link));
        }
        self.take_foreign(survey);
        Ok((links.into_iter().collect(), missing))
    }

    /// The same while the agent runs: what is missing is None. What was known of an uplink with carrier lingers a little. It is not taken
    /// over: [`Router::scan`] does that.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn read_links(&mut self, config: &Config) -> Result<PerUplink<Link>> {
        self.missing.next_scan = None;
        self.missing.reasons.clear();
        let slots = self.slots_of(config)?;
        let survey = self.survey()?;
        self.uplinks.note(&survey, config);
        let mut links = Vec::new();
        for uplink in &config.uplinks {
            let id = slots.of(&uplink.interface);
            let Ok(mut link) = survey.link(uplink) else {
                self.learned.interrupt(&uplink.interface);
                self.missing.since.retain(|(other, _), _| *other != id);
                links.push((id, absent(uplink)));
                continue;
            };
            for family in Family::ALL {
                let path = match self.path(&survey, uplink, family) {
                    Ok(path) => Some(path),
                    Err(Error::Failure(failure)) => {
                        let reason = failure.to_string();
                        self.missing.reasons.insert((id, family), reason);
                        None
                    }
                    Err(error) => return Err(error.into()),
                };
                link.families[family] = self.lingering(id, &link, family, path);
            }
            links.push((id, link));
        }
        self.take_foreign(&survey);
        self.addresses = self.elsewhere(&survey);
        Ok(links.into_iter().collect())
    }

    /// Every address of this host but those of uplinks' interfaces that have another name by now: they are the same provider's as before.
    fn elsewhere(&self, survey: &Survey) -> Vec<IpAddr> {
        let interfaces = survey.interfaces.iter();
        let renamed = interfaces.filter(|interface| self.uplinks.lost(interface));
        let renamed: Vec<u32> = renamed.map(|interface| interface.index).collect();
        let addresses = survey.addresses.iter();
        let elsewhere = addresses.filter(|address| !renamed.contains(&address.ifindex));
        elsewhere.map(|address| address.ip).collect()
    }

    /// Every address that this host had at the last scan, but for those of uplinks' interfaces that have another name.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Why [`Router::scan`] has found no egress path for a family of an uplink whose interface is there.
    pub fn why_lost(&self, uplink: UplinkId, family: Family) -> Option<&str> {
        let reason = self.missing.reasons.get(&(uplink, family));
        reason.map(String::as_str)
    }

    /// Whether what [`Router::scan`] has taken over is what was known of an uplink before it lost its address or gateway.
    pub fn lingers(&self) -> bool {
        !self.missing.since.is_empty()
    }

    /// An uplink's interface was down, or gone, for however short a time: the kernel has dropped its routes.
    pub fn interrupted(&mut self, interface: &str) {
        self.learned.interrupt(interface);
    }

    /// Notifications were lost: whatever is gone may have gone with its interface.
    pub fn all_interrupted(&mut self) {
        for link in self.links.values() {
            self.learned.interrupt(&link.interface);
        }
    }

    /// The `path` that was found, or for a little while the known one.
    fn lingering(
        &mut self,
        uplink: UplinkId,
        link: &Link,
        family: Family,
        path: Option<EgressPath>,
    ) -> Option<EgressPath> {
        let known = self
            .links
            .get(uplink)
            .filter(|known| known.ifindex == link.ifindex);
        let known = known.and_then(|known| known.families[family].as_ref());
        let (None, Some(known), true) = (&path, known, link.carrier) else {
            self.missing.since.remove(&(uplink, family));
            return path;
        };
        let now = Instant::now();
        let until = *self.missing.since.entry((uplink, family)).or_insert(now) + LINGER;
        if until <= now {
            self.missing.since.remove(&(uplink, family));
            return None;
        }
        self.missing.scan_by(until);
        Some(known.clone())
    }

    /// The networks that this host is on, by whatever interface: no uplink is needed to reach them.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn networks(&mut self) -> Result<Vec<IpNet>> {
        survey::networks(&mut self.netlink)
    }

    fn survey(&mut self) -> Result<Survey> {
        let ours = RouteProtocol::from(self.config.protocol);
        let mut survey = Survey::take(&mut self.netlink, ours)?;
        let foreign = Family::ALL.map(|family| survey.foreign(family));
        self.displaced.observe(foreign.into_iter().flatten());
        survey.displaced = self.displaced.routes();
        if let Some(left) = self.displaced.next_end() {
            self.missing.ends_in(left);
        }
        Ok(survey)
    }

    /// Keeps the survey's foreign default routes, so that a switch need not look for them.
    fn take_foreign(&mut self, survey: &Survey) {
        for family in Family::ALL {
            self.keep_foreign(family, survey.defaults(family).cloned().collect());
        }
    }
}

fn has_targets(uplink: &UplinkConfig, family: Family) -> bool {
    uplink
        .probe
        .targets
        .iter()
        .any(|target| target.is_ipv4() == (family == Family::V4))
}

/// A target on an uplink's own link answers although everything beyond it is dead.
fn check_targets(config: &Config, links: &PerUplink<Link>) -> Result<(), Failure> {
    for (uplink, link) in config.uplinks.iter().zip(links.values()) {
        for &target in &uplink.probe.targets {
            let mut paths = link.families.values().flatten();
            if let Some(network) = paths.find_map(|path| path.on_link(target)) {
                return Err(Failure::TargetOnLink {
                    uplink: uplink.name.clone(),
                    interface: link.interface.clone(),
                    target,
                    network: network.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// An uplink without an interface.
fn absent(uplink: &UplinkConfig) -> Link {
    Link {
        ifindex: 0,
        interface: uplink.interface.clone(),
        link_layer: LinkLayer::None,
        carrier: false,
        rank: uplink.rank,
        weight: uplink.weight,
        metric: uplink.metric,
        addresses: Vec::new(),
        duplicates: Vec::new(),
        families: PerFamily::default(),
    }
}

impl Survey {
    fn link(&self, uplink: &UplinkConfig) -> Result<Link, Failure> {
        let interface = self.interface(uplink)?;
        Ok(Link {
            ifindex: interface.index,
            interface: interface.name.clone(),
            link_layer: interface.layer,
            carrier: interface.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            rank: uplink.rank,
            weight: uplink.weight,
            metric: uplink.metric,
            addresses: self.addresses_of(interface.index),
            duplicates: self.duplicates_of(interface.index),
            families: PerFamily::default(),
        })
    }

    pub(crate) fn interface(&self, uplink: &UplinkConfig) -> Result<&Interface, Failure> {
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
                let meant = self
                    .interfaces
                    .iter()
                    .find(|interface| interface.altnames.iter().any(|altname| altname == wanted));
                let cure = match (meant, nearest) {
                    (Some(meant), _) => format!(
                        "it is an altname of {name}: write `{name}`",
                        name = meant.name
                    ),
                    (None, Some(nearest)) => format!("did you mean `{nearest}`?"),
                    (None, None) => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                };
                Failure::UnknownInterface {
                    place: uplink.place.clone(),
                    interface: wanted.to_owned(),
                    cure,
                }
            })
    }

    /// The VRF that an interface belongs to.
    pub(crate) fn vrf(&self, interface: &Interface) -> Option<String> {
        let mut interfaces = self.interfaces.iter();
        let vrf = interfaces.find(|other| Some(other.index) == interface.vrf)?;
        Some(vrf.name.clone())
    }
}
