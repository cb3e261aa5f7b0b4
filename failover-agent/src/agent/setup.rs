//! Puts the edges in place before the loop begins, and everything back after it has ended.

use std::{net::IpAddr, path::Path};

use anyhow::Context as _;
use tracing::{debug, info, warn};

use crate::{
    config::{Config, Inbound},
    datapath::{self, Datapath},
    policy::{Family, Members, UplinkId},
    route::{Link, Report, Router},
};

/// Puts everything in place that changes no traffic yet. Returns the active uplinks that an earlier run has left.
pub(super) fn prepare(
    config: &Config,
    links: &[Link],
    router: &mut Router,
    datapath: &mut Datapath,
) -> anyhow::Result<[Members; 2]> {
    datapath.renew_lease(config.cutoff.lease)?;
    let present = (0..links.len())
        .map(UplinkId)
        .filter(|uplink| links[uplink.0].ifindex != 0);
    let ifindexes: Vec<u32> = present
        .clone()
        .map(|uplink| links[uplink.0].ifindex)
        .collect();
    datapath.retain(&ifindexes)?;
    datapath.set_exempt(0, &config.cutoff.allow)?;
    datapath.set_allow_marks(&config.cutoff.allow_marks)?;
    for uplink in present {
        attach(datapath, config, links, uplink)?;
    }
    log_report("routing tables", &router.prepare(links)?);
    let active = [router.current(Family::V4)?, router.current(Family::V6)?];
    log_report("routes", &router.release()?);
    Ok(active)
}

/// Attaches the programs to one uplink's interface and tells them what they must know of it.
pub(super) fn attach(
    datapath: &mut Datapath,
    config: &Config,
    links: &[Link],
    uplink: UplinkId,
) -> anyhow::Result<()> {
    let (link, uplink_config) = (&links[uplink.0], &config.uplinks[uplink.0]);
    let name = &uplink_config.name;
    let attached = datapath
        .attach(link.ifindex, link.link_layer)
        .with_context(|| format!("uplink `{name}`: attaching to {}", link.interface))?;
    datapath.set_inbound(link.ifindex, inbound(uplink_config.inbound))?;
    describe(datapath, config, links, uplink)?;
    info!(
        uplink = name,
        interface = link.interface,
        hook = ?attached.hook,
        adopted = attached.adopted,
        "{name}: programs {}",
        if attached.adopted { "adopted" } else { "attached" },
    );
    Ok(())
}

/// The datapath's word.
pub(super) fn inbound(inbound: Inbound) -> datapath::Inbound {
    match inbound {
        Inbound::Keep => datapath::Inbound::Keep,
        Inbound::Cut => datapath::Inbound::Cut,
    }
}

/// Tells the programs an uplink's networks, which pass its closed gate, and its addresses, which no other uplink may send. Those that
/// several uplinks have, as two modems of a kind, they tell apart by themselves.
pub(super) fn describe(
    datapath: &mut Datapath,
    config: &Config,
    links: &[Link],
    uplink: UplinkId,
) -> anyhow::Result<()> {
    let link = &links[uplink.0];
    datapath.set_exempt(link.ifindex, &on_link_prefixes(link))?;
    match config.cutoff.cuts() {
        true => datapath.set_addresses(link.ifindex, &link.addresses),
        false => datapath.forget_addresses(link.ifindex),
    }
}

fn on_link_prefixes(link: &Link) -> Vec<(IpAddr, u8)> {
    link.families
        .iter()
        .flatten()
        .flat_map(|path| path.prefixes.iter().copied())
        .collect()
}

/// Tells of addresses that the kernel does not use because somebody else on the link has them, too; not of those `known` before.
pub(super) fn warn_of_duplicates(name: &str, link: &Link, known: &[IpAddr]) {
    for address in &link.duplicates {
        if !known.contains(address) {
            let interface = &link.interface;
            warn!(
                uplink = name,
                %address,
                "{name}: {address} is not used, since somebody else on the link of {interface} has it, too: give one of the two another address"
            );
        }
    }
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

/// Logs what the routing edge did and could not do.
pub(super) fn log_report(what: &str, report: &Report) {
    for change in &report.changes {
        debug!("{what}: {change}");
    }
    for problem in report.problems.iter().chain(&report.obsolete) {
        warn!("{what}: {problem}");
    }
}
