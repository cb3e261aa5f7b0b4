//! What the scenarios share.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use failover_lab::{AgentProcess, Lab, wait_for};
use failover_policy::Family;
pub(crate) use failover_tests::fixtures::wait_words;
use failover_tests::fixtures::{SOON, default_routes};
use serde_json::Value;

/// Gives cable a default route with a metric that beats every other.
pub(crate) fn set_rival(lab: &Lab) -> Result<()> {
    let addresses = lab.uplinks()[0].addresses();
    lab.host().namespace().ip_batch(&format!(
        "route add default via {} dev cable proto static metric 7",
        addresses.gateway_v4
    ))
}

/// The metrics of the IPv4 default routes, best first.
pub(crate) fn metrics(lab: &Lab) -> Result<Vec<u32>> {
    let routes = default_routes(lab, Family::V4)?;
    Ok(routes.iter().map(|route| route.metric).collect())
}

/// Waits until the rival stands, or does not.
pub(crate) fn wait_rival(lab: &Lab, stands: bool) -> Result<()> {
    let what = format!(
        "the rival {}",
        if stands { "stands" } else { "is displaced" }
    );
    wait_for(&what, SOON, || match metrics(lab) {
        Ok(metrics) if metrics.contains(&7) == stands => Ok(()),
        Ok(metrics) => Err(format!("{metrics:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
}

/// Waits until a file says something, and returns it.
pub(crate) fn wait_file(path: &Path, text: &str) -> Result<String> {
    wait_for(&format!("{} says {text}", path.display()), SOON, || {
        let content = fs::read_to_string(path).unwrap_or_default();
        if content.contains(text) {
            Ok(content)
        } else {
            Err(content)
        }
    })
}

/// Has the agent start its program again, and waits until that answers.
pub(crate) fn restart(agent: &AgentProcess) -> Result<Value> {
    let before = agent.status_json()?["agent"]["started"].clone();
    agent.verb(&["restart"])?;
    agent.wait_for_status("a new start", SOON, |status| {
        status["agent"]["started"] != before
    })
}

/// Names of the files in a directory.
pub(crate) fn files(dir: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
