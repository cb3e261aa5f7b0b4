//! Why an uplink's probes fail: for a reason of this host it is Blind, not Down.

use std::{collections::HashMap, net::IpAddr};

use failover_policy::{Family, Health, Input, PerFamily, PerUplink, UplinkId, UplinkSet};
use tracing::{debug, warn};

use super::{Agent, rules::targets};
use crate::{
    datapath::{Datapath, Gate},
    doctor,
    route::Link,
};

/// What is known of reasons why probes say nothing.
#[derive(Debug)]
pub(super) struct Blindness {
    /// By uplink and family, as found last.
    reasons: HashMap<(UplinkId, Family), String>,
    /// By interface index: how many probes its programs had cut when that was last looked at.
    cut_probes: HashMap<u32, PerFamily<u64>>,
}

impl Blindness {
    /// With the counts as they are: what was cut before says nothing about now.
    pub(super) fn new(datapath: &Datapath, links: &PerUplink<Link>) -> Self {
        let links = links.values().filter(|link| link.ifindex != 0);
        let count = |link: &Link| {
            let counters = datapath.counters(link.ifindex).unwrap_or_default();
            (link.ifindex, PerFamily::both(counters.probes_cut))
        };
        Blindness {
            reasons: HashMap::new(),
            cut_probes: links.map(count).collect(),
        }
    }

    /// The reasons of other uplinks than these are forgotten.
    pub(super) fn retain(&mut self, kept: UplinkSet) {
        self.reasons.retain(|(uplink, _), _| kept.contains(*uplink));
    }

    /// Takes note of a reason, or that there is none. Returns the one before.
    fn note(&mut self, uplink: UplinkId, family: Family, reason: Option<String>) -> Option<String> {
        match reason {
            Some(reason) => self.reasons.insert((uplink, family), reason),
            None => self.reasons.remove(&(uplink, family)),
        }
    }

    /// Takes note of how many probes were cut so far on an interface; whether some were since that was last looked at.
    fn cut_more(&mut self, ifindex: u32, family: Family, cut: u64) -> bool {
        let known = self.cut_probes.entry(ifindex).or_default();
        let before = std::mem::replace(&mut known[family], cut);
        cut > before
    }
}

impl Agent<'_> {
    /// Looks for a reason why the answers to probes cannot come, and reports to the policy whether there is one.
    pub(super) fn examine(&mut self, uplink: UplinkId, family: Family) {
        let own_gate = self.own_gate(uplink, family);
        let config = &self.uplinks[uplink];
        let targets: Vec<IpAddr> = targets(config, family).map(|(_, target)| target).collect();
        let link = &self.router.links()[uplink];
        let reason = match own_gate {
            Some(reason) => Ok(Some(reason)),
            None => doctor::blindness(link, family, &targets, self.config.route.mark),
        };
        let reason = reason.unwrap_or_else(|error| {
            debug!("{}: no reason could be looked for: {error:#}", config.name);
            None
        });
        let blind = reason.is_some();
        let known = self.blindness.note(uplink, family, reason.clone());
        if let Some(reason) = reason.filter(|reason| known.as_ref() != Some(reason)) {
            let name = self.name(uplink);
            warn!(uplink = name, %family, "{name} ({family}): probes say nothing: {reason}");
        }
        let now = self.clock.now();
        let examined = Input::Examined {
            uplink,
            family,
            blind,
        };
        self.machine.handle(examined, now);
    }

    /// Whether the uplink's own gate has cut probes since that was last asked, and why.
    fn own_gate(&mut self, uplink: UplinkId, family: Family) -> Option<String> {
        let link = &self.router.links()[uplink];
        let cut = self.datapath.counters(link.ifindex).ok()?.probes_cut;
        let more = self.blindness.cut_more(link.ifindex, family, cut);
        let closed = self.gate(uplink, family) == Gate::Closed;
        (more && closed).then(|| {
            let interface = &self.router.links()[uplink].interface;
            format!(
                "the gate of {interface} cuts the agent's own probes, {cut} so far: something on this host takes them from their socket before \
                 they leave, by which the gate knows them (a rule of nft or iptables that copies or queues them): except echo requests from it"
            )
        })
    }

    /// Why an uplink is Blind; None if it is not, or nobody knows.
    pub(super) fn blind_reason(&self, uplink: UplinkId, family: Family) -> Option<String> {
        if self.machine.health(uplink, family) != Health::Blind {
            return None;
        }
        let found = self.blindness.reasons.get(&(uplink, family)).cloned();
        found.or_else(|| self.probers.get(uplink, family)?.obstacle())
    }
}
