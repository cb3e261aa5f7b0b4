//! A changed configuration file, taken over while the agent runs: as a whole or not at all, and without touching what did not
//! change.

use anyhow::{Context as _, bail};
use failover_policy::{Family, Input, PerUplink, UplinkId, UplinkSet};
use tracing::{info, warn};

use super::{
    Agent, Unsaved, configured,
    hooks::warn_of_missing_programs,
    rules::{machine_config, probe_specs},
    setup::{attach, describe, inbound, present, warn_of_duplicates},
};
use crate::{
    config::{Config, UplinkConfig},
    control::Response,
    route::Scan,
};

impl Agent<'_> {
    /// Reads the file again. What is wrong with it changes nothing.
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

        // Up to here nothing was changed; from here on nothing can be refused, and without an error the links are the new ones.
        let scan = self.router.reconfigure(links, &config.route)?;
        let (kept, links) = (scan.kept, self.router.links());
        let uplinks = configured(&config, links);
        let changes = changes((&self.config, &self.uplinks), (&config, &uplinks), kept);
        for (uplink, link) in links.iter().filter(|(uplink, _)| !kept.contains(*uplink)) {
            warn_of_duplicates(&uplinks[uplink].name, link);
        }
        self.config = config;
        let before = std::mem::replace(&mut self.uplinks, uplinks);
        self.machine.reconfigure(
            &machine_config(&self.config, self.router.links(), self.memory.known()),
            kept,
            self.clock.now(),
        );
        self.lost_addresses.retain(kept);
        let specs = probe_specs(&self.config, self.router.links());
        for (uplink, family) in self.probers.replace(specs, kept) {
            let moved = Input::Moved { uplink, family };
            self.machine.handle(moved, self.clock.now());
        }
        self.blindness.retain(kept);
        if let Err(error) = self.configure_datapath(&before, &scan) {
            warn!("the programs are not configured as a whole: {error:#}");
        }
        self.lease = super::lease_timer(self.config.cutoff.lease);
        self.rewatch = true;
        // A drill or a choice may have gone with its uplink.
        self.unsaved = Unsaved::BOTH;
        // The observer has not heard of what new uplinks did until now.
        self.scans.soon(false);
        self.align_routes(scan);
        self.act();
        Ok(changes)
    }

    /// Uplinks that are gone lose their programs, new ones get them; settings that changed are set.
    fn configure_datapath(
        &mut self,
        before: &PerUplink<UplinkConfig>,
        scan: &Scan,
    ) -> anyhow::Result<()> {
        let links = self.router.links();
        let there = present(links);
        for ifindex in present(&scan.before) {
            if !there.contains(&ifindex) {
                self.datapath.forget_addresses(ifindex)?;
            }
        }
        self.datapath.retain(&there)?;
        self.datapath.set_exempt(0, &self.config.cutoff.allow)?;
        self.datapath
            .set_allow_marks(&self.config.cutoff.allow_marks)?;
        self.datapath.renew_lease(self.config.cutoff.lease)?;
        for (uplink, link) in links.iter().filter(|(_, link)| link.ifindex != 0) {
            let config = &self.uplinks[uplink];
            if !scan.kept.contains(uplink) || scan.before[uplink].ifindex != link.ifindex {
                attach(self.datapath, &self.config.cutoff, config, link);
                continue;
            }
            describe(self.datapath, &self.config.cutoff, link)?;
            if before[uplink].inbound != config.inbound {
                self.datapath
                    .set_inbound(link.ifindex, inbound(config.inbound))?;
            }
        }
        // The mode may be another one now, of what is cut already, too.
        for uplink in self.router.links().ids().collect::<Vec<_>>() {
            if self
                .datapath
                .hook(self.router.links()[uplink].ifindex)?
                .is_none()
            {
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
fn changes(
    (before, uplinks_before): (&Config, &PerUplink<UplinkConfig>),
    (now, uplinks): (&Config, &PerUplink<UplinkConfig>),
    kept: UplinkSet,
) -> String {
    let mut words = Vec::new();
    let mut list = |what: &str, names: Vec<&str>| {
        if !names.is_empty() {
            words.push(format!("{what} {}", names.join(", ")));
        }
    };
    let changed = |uplink: UplinkId, config: &UplinkConfig| {
        kept.contains(uplink) && !config.means_the_same(&uplinks_before[uplink])
    };
    list("added", names(uplinks, |uplink, _| !kept.contains(uplink)));
    list(
        "removed",
        names(uplinks_before, |uplink, _| !kept.contains(uplink)),
    );
    list("changed", names(uplinks, changed));
    let common = [
        (
            "the order of preference",
            is_same_order(uplinks_before, uplinks, kept),
        ),
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

/// The names of those uplinks that are `wanted`.
fn names(
    uplinks: &PerUplink<UplinkConfig>,
    wanted: impl Fn(UplinkId, &UplinkConfig) -> bool,
) -> Vec<&str> {
    let wanted = uplinks
        .iter()
        .filter(|(uplink, config)| wanted(*uplink, config));
    wanted.map(|(_, config)| config.name.as_str()).collect()
}

/// Whether the uplinks that are still there come in the same order, and the same of them share a rank.
fn is_same_order(
    before: &PerUplink<UplinkConfig>,
    now: &PerUplink<UplinkConfig>,
    kept: UplinkSet,
) -> bool {
    let order: Vec<UplinkId> = now.in_order(kept).collect();
    let share = |uplinks: &PerUplink<UplinkConfig>, pair: &[UplinkId]| {
        uplinks[pair[0]].rank == uplinks[pair[1]].rank
    };
    let shared = |pair: &[UplinkId]| share(before, pair) == share(now, pair);
    before.in_order(kept).eq(order.iter().copied()) && order.windows(2).all(shared)
}
