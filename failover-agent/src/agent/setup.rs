//! Puts the edges in place before the loop begins, and everything back after it has ended.

use std::{net::IpAddr, path::Path};

use failover_policy::{Cause, Family, PerFamily, PerUplink, UplinkSet};
use ipnet::IpNet;
use tracing::{debug, info, warn};

use crate::{
    config::{Config, CutoffConfig, CutoffMode, Inbound, UplinkConfig},
    datapath::{self, CutMode, Datapath},
    route::{self, Link, Report, Router},
    store::Store,
};

/// Puts everything in place that changes no traffic yet. Returns the active uplinks that an earlier run has left.
pub(super) fn prepare(
    config: &Config,
    links: &PerUplink<Link>,
    router: &mut Router,
    datapath: &mut Datapath,
) -> anyhow::Result<PerFamily<UplinkSet>> {
    datapath.renew_lease(config.cutoff.lease)?;
    datapath.retain(&present(links))?;
    datapath.set_exempt(0, &config.cutoff.allow)?;
    datapath.set_allow_marks(&config.cutoff.allow_marks)?;
    for (link, uplink) in links.values().zip(&config.uplinks) {
        if link.ifindex != 0 {
            attach(datapath, &config.cutoff, uplink, link);
        }
    }
    let started = router.start(links)?;
    log_report("routing tables", &started.tables);
    log_report("routes", &started.released);
    open_undecided(datapath, config, links, &started.active);
    Ok(started.active)
}

/// The interface indexes of those uplinks whose interfaces are there.
pub(super) fn present(links: &PerUplink<Link>) -> Vec<u32> {
    let indexes = links.values().map(|link| link.ifindex);
    indexes.filter(|&ifindex| ifindex != 0).collect()
}

/// Opens the gates that an earlier run has closed in favour of nobody: one closes a family's gates only for an active uplink that this run
/// has confirmed or adopted.
fn open_undecided(
    datapath: &mut Datapath,
    config: &Config,
    links: &PerUplink<Link>,
    active: &PerFamily<UplinkSet>,
) {
    for ((uplink, link), config_of) in links.iter().zip(&config.uplinks) {
        let name = &config_of.name;
        for family in Family::ALL {
            let active = active[family];
            let undecided = active.is_empty() || active.contains(uplink);
            let open = |datapath: &mut Datapath| -> anyhow::Result<bool> {
                if datapath.gates(link.ifindex)?[family] == datapath::Gate::Open {
                    return Ok(false);
                }
                datapath.set_gate(link.ifindex, family, datapath::Gate::Open)?;
                datapath.set_cut_mode(link.ifindex, family, stale_mode(&config.cutoff))?;
                Ok(true)
            };
            if !undecided || link.ifindex == 0 {
                continue;
            }
            match open(datapath) {
                Ok(true) => info!(
                    uplink = name,
                    %family,
                    "{name}: {family} gate open, which an earlier run had closed: {}",
                    if active.is_empty() { "no uplink is active" } else { "it is active" },
                ),
                Ok(false) => {}
                Err(error) => {
                    warn!(uplink = name, %family, "{name}: gate could not be opened: {error:#}");
                }
            }
        }
    }
}

/// Attaches the programs to one uplink's interface and gives them what they must know of it. Without them the uplink is used all the
/// same: its gates stand open, the status says why, and it is tried again.
pub(super) fn attach(
    datapath: &mut Datapath,
    cutoff: &CutoffConfig,
    uplink: &UplinkConfig,
    link: &Link,
) {
    let name = &uplink.name;
    let known = datapath.obstacle(link.ifindex).map(str::to_owned);
    match try_attach(datapath, cutoff, uplink, link) {
        Ok(attached) => info!(
            uplink = name,
            interface = link.interface,
            hook = ?attached.hook,
            adopted = attached.adopted,
            "{name}: programs {}",
            if attached.adopted { "adopted" } else { "attached" },
        ),
        Err(error) => {
            let obstacle = format!("{error:#}");
            if known.as_ref() == Some(&obstacle) {
                debug!("{name}: still no programs: {obstacle}");
            } else {
                warn!(
                    uplink = name,
                    interface = link.interface,
                    "{name}: no programs on {}, so its gates stand open and nothing is cut on it: {obstacle}",
                    link.interface,
                );
            }
            datapath.give_up(link.ifindex, obstacle);
            // The other uplinks' programs must know its addresses all the same.
            if let Err(error) = describe(datapath, cutoff, link) {
                debug!("{name}: {error:#}");
            }
        }
    }
}

fn try_attach(
    datapath: &mut Datapath,
    cutoff: &CutoffConfig,
    uplink: &UplinkConfig,
    link: &Link,
) -> anyhow::Result<datapath::Attached> {
    let attached = datapath.attach(link.ifindex, link.link_layer)?;
    datapath.set_inbound(link.ifindex, inbound(uplink.inbound))?;
    let gates = datapath.gates(link.ifindex)?;
    for (family, &gate) in gates.iter() {
        // What a gate does that an earlier run has closed is not changed behind its back.
        if gate == datapath::Gate::Open {
            datapath.set_cut_mode(link.ifindex, family, stale_mode(cutoff))?;
        }
    }
    describe(datapath, cutoff, link)?;
    Ok(attached)
}

/// What becomes of stale packets on an uplink that is not cut: what `cutoff.mode` says. If that is `off`, but something is cut for another
/// cause, they are answered as then.
pub(super) fn stale_mode(cutoff: &CutoffConfig) -> CutMode {
    let modes = [
        cutoff.mode,
        cutoff.mode_for(Cause::Failover),
        cutoff.mode_for(Cause::Failback),
    ];
    let mut modes = modes.into_iter().filter(|mode| *mode != CutoffMode::Off);
    match modes.next() {
        Some(CutoffMode::Reset) => CutMode::Reset,
        _ => CutMode::Drop,
    }
}

/// The datapath's word.
pub(super) fn inbound(inbound: Inbound) -> datapath::Inbound {
    match inbound {
        Inbound::Keep => datapath::Inbound::Keep,
        Inbound::Cut => datapath::Inbound::Cut,
    }
}

/// Gives the programs an uplink's networks, which pass its closed gate, and its addresses, which no other uplink may send. Those that
/// several uplinks have, as two modems of a kind, they distinguish by themselves.
pub(super) fn describe(
    datapath: &mut Datapath,
    cutoff: &CutoffConfig,
    link: &Link,
) -> anyhow::Result<()> {
    datapath.set_exempt(link.ifindex, &on_link_prefixes(link))?;
    match cutoff.cuts() {
        true => datapath.set_addresses(link.ifindex, &link.addresses),
        false => datapath.forget_addresses(link.ifindex),
    }
}

fn on_link_prefixes(link: &Link) -> Vec<IpNet> {
    link.families
        .values()
        .flatten()
        .flat_map(|path| path.prefixes.iter().copied())
        .collect()
}

/// Reports the addresses that the kernel does not use because another host on the link has them, too.
pub(super) fn warn_of_duplicates(name: &str, link: &Link) {
    for &address in &link.duplicates {
        warn_of_duplicate(name, &link.interface, address);
    }
}

/// Reports one such address.
pub(super) fn warn_of_duplicate(name: &str, interface: &str, address: IpAddr) {
    warn!(
        uplink = name,
        %address,
        "{name}: {address} is not used, since another host on the link of {interface} has it, too: give one of the two another address"
    );
}

/// Opens the gates, restores what was displaced and removes everything of ours, going on after each failure. Returns what could not be done.
pub(super) fn clean_up(mut router: Router, bpf_dir: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    // First, so that no new connection meets a closed gate on the uplink to which the routes go back.
    if let Err(error) = datapath::end_lease(bpf_dir) {
        problems.push(format!(
            "gates stay closed until the programs go: {error:#}"
        ));
    }
    let report = router.restore();
    log_report("restoring", &report);
    problems.extend(report.problems);
    problems.extend(datapath::remove_pins(bpf_dir).problems);
    problems
}

/// The same for what the program before this one has left, by its records alone.
pub(super) fn take_away(config: &Config, store: &Store) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = datapath::end_lease(&config.dirs.bpf) {
        problems.push(format!(
            "gates stay closed until the programs go: {error:#}"
        ));
    }
    match route::reset(&config.route, store) {
        Ok(report) => {
            log_report("restoring", &report);
            problems.extend(report.problems);
        }
        Err(error) => problems.push(format!("routes and rules: {error:#}")),
    }
    problems.extend(datapath::remove_pins(&config.dirs.bpf).problems);
    super::forget(store);
    problems.extend(store.finish());
    problems
}

/// Logs what the routing edge did and could not do.
pub(super) fn log_report(what: &str, report: &Report) {
    for change in &report.changes {
        debug!("{what}: {change}");
    }
    for problem in report.problems.iter().chain(&report.obsolete) {
        warn!("{what}: {problem}");
    }
}
