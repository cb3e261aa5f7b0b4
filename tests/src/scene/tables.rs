//! The host's routes and rules, read by `ip`.

use anyhow::{Context, Result};
use failover_lab::{DefaultRoute, Lab};
use failover_policy::Family;

/// Our route protocol, as `ip` prints it where /etc/iproute2/rt_protos has no name for it.
pub const OURS: &str = "136";

/// The default routes of the main table, best first.
///
/// # Errors
/// When they cannot be read.
pub fn default_routes(lab: &Lab, family: Family) -> Result<Vec<DefaultRoute>> {
    match family {
        Family::V4 => lab.host().default_routes_v4(),
        Family::V6 => lab.host().default_routes_v6(),
    }
}

/// The source addresses of the agent's rules of a family, sorted and once each.
///
/// # Errors
/// When they cannot be read.
pub fn rule_sources(lab: &Lab, family: Family) -> Result<Vec<String>> {
    let family = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let host = lab.host().namespace();
    let rules = host.exec_json("ip", &["-j", "-d", family, "rule"])?;
    let rules = rules.as_array().context("no list of rules")?;
    let ours = rules.iter().filter(|rule| rule["protocol"] == OURS);
    let sources = ours.filter_map(|rule| rule["src"].as_str());
    let mut sources: Vec<String> = sources
        .filter(|source| *source != "all")
        .map(str::to_owned)
        .collect();
    sources.sort();
    sources.dedup();
    Ok(sources)
}
