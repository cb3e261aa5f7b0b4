//! What the tests of the routing edge share.

use failover_policy::{PerUplink, UplinkId, UplinkSet};
use ipnet::IpNet;
use std::{net::IpAddr, path::Path};

use failover_agent::{
    config::Config,
    failure::Failure,
    route::{Aligned, Done, Link, Report, Router},
};

pub(crate) const A: UplinkId = UplinkId(0);
pub(crate) const B: UplinkId = UplinkId(1);
pub(crate) const C: UplinkId = UplinkId(2);
pub(crate) const D: UplinkId = UplinkId(3);

pub(crate) fn only(uplink: UplinkId) -> UplinkSet {
    UplinkSet::only(uplink)
}

pub(crate) fn members(uplinks: &[UplinkId]) -> UplinkSet {
    uplinks.iter().copied().collect()
}

pub(crate) fn state() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Discovered and prepared.
pub(crate) fn router(config: &Config, state: &Path) -> (Router, PerUplink<Link>) {
    let mut router = Router::connect(&config.route, state).unwrap();
    let links = router.discover(config).unwrap();
    let report = prepare(&mut router, &links);
    assert_eq!(report.problems, Vec::<String>::new());
    (router, links)
}

/// Has tables and rules agree with these links.
pub(crate) fn prepare(router: &mut Router, links: &PerUplink<Link>) -> Report {
    router.start(links).unwrap().tables
}

/// Looks again and puts right what was undone, as the agent does after a change.
pub(crate) fn sync(router: &mut Router, config: &Config) -> Aligned {
    let scan = router.scan(config).unwrap();
    router.align(scan)
}

/// The same; what was done to tables, rules and routes.
pub(crate) fn look(router: &mut Router, config: &Config) -> Report {
    let aligned = sync(router, config);
    let mut report = aligned.tables.unwrap();
    report.changes.extend(aligned.routes.changes);
    report.problems.extend(aligned.routes.problems);
    report.displaced |= aligned.routes.displaced;
    report
}

pub(crate) fn failure(result: anyhow::Result<PerUplink<Link>>) -> Failure {
    result.unwrap_err().downcast::<Failure>().unwrap()
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn network(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ours(dev: &str, gateway: &str, metric: u64) -> (String, Option<String>, u64, String) {
    (
        dev.to_owned(),
        Some(gateway.to_owned()),
        metric,
        "136".to_owned(),
    )
}

pub(crate) fn foreign(
    dev: &str,
    gateway: &str,
    metric: u64,
    protocol: &str,
) -> (String, Option<String>, u64, String) {
    (
        dev.to_owned(),
        Some(gateway.to_owned()),
        metric,
        protocol.to_owned(),
    )
}

/// What was done, one line each.
pub(crate) fn lines(changes: &[Done]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}
