//! A changed configuration file, taken over while the agent runs: as a whole or not at all, and without touching what did not
//! change.

use anyhow::{Context as _, bail};
use failover_policy::{Family, Input, UplinkId};
use tracing::{info, warn};

use super::{
    Agent, examine,
    hooks::warn_of_missing_programs,
    rules::{machine_rules, probe_specs},
    setup::{attach, describe, inbound, log_report, warn_of_duplicates},
};
use crate::{config::Config, control::Response, probe::Prober, route::Link};

impl Agent<'_> {
    /// Reads the file anew. What is wrong with it changes nothing.
    pub(super) fn reload(&mut self) -> Response {
        match self.try_reload() {
            Ok(changes) => {
                info!("configuration reloaded: {changes}");
                Response::Done(format!("reloaded: {changes}"))
            }
            Err(error) => {
                warn!("configuration not reloaded, the old one goes on: {error:#}");
                Response::Refused(format!("{error:#} (the old configuration goes on)"))
            }
        }
    }

    fn try_reload(&mut self) -> anyhow::Result<String> {
        let origin = self.origin.as_ref();
        let origin =
            origin.context("there is no file to reload: the agent was started with --uplink")?;
        let config = origin.read()?;
        check_fixed(&self.config, &config)?;
        let (links, missing) = self.router.await_uplinks(&config)?;
        // What waits was measured under the old configuration.
        self.take_inputs();
        self.act();

        warn_of_missing_programs(&config);
        for failure in missing {
            warn!("{failure} (waiting until it is there)");
        }

        // Up to here nothing was changed; from here on nothing can be refused.
        let old = origins(&self.config, &config);
        let changes = changes(&self.config, &config, &old);
        let uplinks = config.uplinks.iter().zip(&links).zip(&old);
        for ((uplink, link), _) in uplinks.filter(|(_, old)| old.is_none()) {
            warn_of_duplicates(&uplink.name, link, &[]);
        }
        let before = std::mem::replace(&mut self.config, config);
        let links_before = std::mem::replace(&mut self.links, links);
        self.machine.reconfigure(
            &machine_rules(&self.config, &self.links, self.memory.known()),
            &old,
            self.clock.now(),
        );
        self.router.reconfigure(&self.config.route)?;
        self.former = std::mem::take(&mut self.former).renumbered(&old);
        self.replace_probers(&old);
        self.reasons = examine::renumbered(std::mem::take(&mut self.reasons), &old);
        if let Err(error) = self.tell_datapath(&before, &links_before, &old) {
            warn!("the programs were not told everything: {error:#}");
        }
        self.lease = super::lease_timer(self.config.cutoff.lease);
        self.rewatch = true;
        // A drill or a choice may have gone with its uplink.
        self.drill_unsaved = true;
        self.health_unsaved = true;
        // The observer has not heard of what new uplinks did until now.
        self.pace.schedule(false);
        self.align_routes();
        match self.router.release() {
            Ok(report) => log_report("routes", &report),
            Err(error) => warn!("routes of removed uplinks could not be restored: {error:#}"),
        }
        self.act();
        Ok(changes)
    }

    /// Those whose uplink is still there go on, renumbered; the others begin or end.
    fn replace_probers(&mut self, old: &[Option<UplinkId>]) {
        let mut known = std::mem::take(&mut self.probers);
        for spec in probe_specs(&self.config, &self.links) {
            let uplink = old[spec.uplink.0];
            let position = known
                .iter()
                .position(|prober| uplink.is_some_and(|uplink| prober.probes(uplink, spec.family)));
            let prober = match position {
                Some(position) => {
                    let prober = known.swap_remove(position);
                    if prober.spec().targets != spec.targets {
                        let (uplink, family) = (spec.uplink, spec.family);
                        let moved = Input::Moved { uplink, family };
                        self.machine.handle(moved, self.clock.now());
                    }
                    prober.update(spec);
                    prober
                }
                None => Prober::spawn(
                    spec,
                    self.clock,
                    self.sender.clone(),
                    self.datapath.probe_sockets(),
                ),
            };
            self.probers.push(prober);
        }
    }

    /// Uplinks that are gone lose their programs, new ones get them; settings that changed are set.
    fn tell_datapath(
        &mut self,
        before: &Config,
        links: &[Link],
        old: &[Option<UplinkId>],
    ) -> anyhow::Result<()> {
        let present = self.links.iter().map(|link| link.ifindex);
        let present: Vec<u32> = present.filter(|&ifindex| ifindex != 0).collect();
        for link in links.iter().filter(|link| link.ifindex != 0) {
            if !present.contains(&link.ifindex) {
                self.datapath.forget_addresses(link.ifindex)?;
            }
        }
        self.datapath.retain(&present)?;
        self.datapath.set_exempt(0, &self.config.cutoff.allow)?;
        self.datapath
            .set_allow_marks(&self.config.cutoff.allow_marks)?;
        self.datapath.renew_lease(self.config.cutoff.lease)?;
        for (uplink, old) in old.iter().enumerate() {
            let link = &self.links[uplink];
            if link.ifindex == 0 {
                continue;
            }
            let attached = old.is_some_and(|old| links[old.0].ifindex == link.ifindex);
            let uplink = UplinkId(uplink);
            if !attached {
                attach(self.datapath, &self.config, &self.links, uplink);
                continue;
            }
            describe(self.datapath, &self.config, &self.links, uplink)?;
            let kept = self.config.uplinks[uplink.0].inbound;
            if old.is_some_and(|old| before.uplinks[old.0].inbound != kept) {
                self.datapath.set_inbound(link.ifindex, inbound(kept))?;
            }
        }
        // The mode may be another one now, of what is cut already, too.
        for uplink in (0..self.links.len()).map(UplinkId) {
            if self.datapath.hook(self.links[uplink.0].ifindex)?.is_none() {
                continue;
            }
            for family in Family::ALL {
                let gate = self.gate(uplink, family);
                self.set_cut_mode(uplink, family, gate);
            }
        }
        for family in Family::ALL {
            self.align_gates(family);
        }
        Ok(())
    }
}

/// By new uplink: which of the old ones it is. An uplink is its interface, whatever it is called.
fn origins(before: &Config, now: &Config) -> Vec<Option<UplinkId>> {
    let find = |interface: &str| {
        let mut old = before.uplinks.iter();
        old.position(|uplink| uplink.interface == interface)
            .map(UplinkId)
    };
    let now = now.uplinks.iter();
    now.map(|uplink| find(&uplink.interface)).collect()
}

/// What cannot change while the agent runs: by these things it finds again what is its own.
pub(super) fn check_fixed(before: &Config, now: &Config) -> anyhow::Result<()> {
    let fixed = [
        ("[dirs]", before.dirs == now.dirs),
        ("[datapath]", before.datapath == now.datapath),
        (
            "route.protocol",
            before.route.protocol == now.route.protocol,
        ),
        ("route.table", before.route.table == now.route.table),
        (
            "route.rule_priority",
            before.route.rule_priority == now.route.rule_priority,
        ),
        ("route.mark", before.route.mark == now.route.mark),
    ];
    let changed = fixed.iter().filter(|(_, same)| !same).map(|(key, _)| *key);
    let changed: Vec<&str> = changed.collect();
    if !changed.is_empty() {
        bail!(
            "{} cannot change while the agent runs: stop it and start it again, or put the old value back",
            changed.join(", ")
        );
    }
    Ok(())
}

/// In words, for whoever reloads.
fn changes(before: &Config, now: &Config, old: &[Option<UplinkId>]) -> String {
    let mut words = Vec::new();
    let mut list = |what: &str, names: Vec<&str>| {
        if !names.is_empty() {
            words.push(format!("{what} {}", names.join(", ")));
        }
    };
    let origin = || now.uplinks.iter().zip(old);
    let added = origin().filter(|(_, old)| old.is_none());
    list(
        "added",
        added.map(|(uplink, _)| uplink.name.as_str()).collect(),
    );
    let removed = before.uplinks.iter().enumerate();
    let removed = removed.filter(|(id, _)| !old.contains(&Some(UplinkId(*id))));
    list(
        "removed",
        removed.map(|(_, uplink)| uplink.name.as_str()).collect(),
    );
    let changed = origin().filter(|(uplink, old)| {
        old.is_some_and(|old| !uplink.means_the_same(&before.uplinks[old.0]))
    });
    list(
        "changed",
        changed.map(|(uplink, _)| uplink.name.as_str()).collect(),
    );
    let kept: Vec<_> = old
        .iter()
        .enumerate()
        .filter_map(|(new, old)| Some((new, (*old)?.0)))
        .collect();
    let same_order = kept.is_sorted_by(|one, other| {
        let ranks = |config: &Config, one: usize, other: usize| {
            config.uplinks[one].rank == config.uplinks[other].rank
        };
        one.1 < other.1 && ranks(before, one.1, other.1) == ranks(now, one.0, other.0)
    });
    let common = [
        ("the order of preference", same_order),
        ("[route]", before.route == now.route),
        ("[cutoff]", before.cutoff == now.cutoff),
        ("[hooks]", before.hooks == now.hooks),
    ];
    let common = common.iter().filter(|(_, same)| !same);
    list("changed", common.map(|(table, _)| *table).collect());
    if words.is_empty() {
        return "nothing has changed".to_owned();
    }
    words.join("; ")
}
