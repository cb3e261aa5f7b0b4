//! What the agent's log tells.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use failover_lab::{AgentProcess, LogLine, wait_for};
use failover_policy::Family;
use serde_json::Value;

use super::SOON;

/// A switch that an agent has logged.
#[derive(Clone, Debug)]
struct Switched {
    /// When the line arrived.
    at: Instant,
    /// "failover lte".
    what: String,
}

/// A field of a line that is a text; empty if there is none.
pub fn text<'a>(line: &'a LogLine, field: &str) -> &'a str {
    let text = line.field(field).and_then(Value::as_str);
    text.unwrap_or_default()
}

/// A line's message; empty if it has none.
pub fn message(line: &LogLine) -> &str {
    text(line, "message")
}

/// Waits for a line with all these words.
///
/// # Errors
/// When there is none [`SOON`].
pub fn wait_words(agent: &AgentProcess, words: &[&str]) -> Result<()> {
    let line = agent.wait_for_line(&format!("{words:?}"), SOON, |line| {
        words.iter().all(|word| line.text.contains(word))
    });
    line.map(drop)
}

fn switches(agent: &AgentProcess, family: Family) -> Vec<Switched> {
    let log = agent.log();
    let switches = log.iter().filter_map(|line| {
        // Only the line of a confirmed switch has this and a cause.
        line.field("routed_us")?;
        let word = |field| line.field(field)?.as_str();
        let (cause, to) = (word("cause")?, word("to")?);
        (word("family")? == family.to_string()).then(|| Switched {
            at: line.at,
            what: format!("{cause} {to}"),
        })
    });
    switches.collect()
}

/// How long the log must say nothing new: it comes by a pipe, a moment after the status that tells the same.
const QUIET: Duration = Duration::from_millis(200);

/// All confirmed switches of a family so far: `["start-up cable", "failover lte"]`.
pub fn history(agent: &AgentProcess, family: Family) -> Vec<String> {
    let mut known = switches(agent, family);
    loop {
        thread::sleep(QUIET);
        let now = switches(agent, family);
        if now.len() == known.len() {
            return now.into_iter().map(|switch| switch.what).collect();
        }
        known = now;
    }
}

/// Waits until the agent has made exactly these switches, in the words of [`history`], and returns when the last of them was done.
///
/// # Errors
/// When it has not [`SOON`], or has made others.
pub fn wait_for_history(
    agent: &AgentProcess,
    family: Family,
    expected: &[&str],
) -> Result<Instant> {
    let what = format!("the agent has made the switches {expected:?} for {family}");
    let switches = wait_for(&what, SOON, || {
        let switches = switches(agent, family);
        if switches.len() >= expected.len() {
            return Ok(switches);
        }
        Err(format!("{switches:?}"))
    })?;
    let made: Vec<&str> = switches.iter().map(|switch| switch.what.as_str()).collect();
    ensure!(
        made == expected,
        "the agent has made the switches {made:?}, not {expected:?}"
    );
    Ok(switches[expected.len() - 1].at)
}

/// How often an uplink has become so.
pub fn times(agent: &AgentProcess, name: &str, health: &str) -> usize {
    let log = agent.log();
    let lines = log.iter().filter(|line| text(line, "uplink") == name);
    lines.filter(|line| text(line, "to") == health).count()
}
