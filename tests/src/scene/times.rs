//! The times of day that a status tells.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use failover_lab::WallClock;
use serde_json::Value;

/// The agent's clock and ours are read one after the other.
pub const BLUR: Duration = Duration::from_millis(500);

/// Checks that every time in a status is one since `begin`, by the clock as it is now.
///
/// # Errors
/// When one is not; the error says which.
pub fn ensure_times(status: &Value, clock: &WallClock, begin: Instant) -> Result<()> {
    let mut times = Vec::new();
    collect(status, "status", &mut times)?;
    // At least those of the status, of the start, and of an uplink.
    ensure!(times.len() >= 3, "{status:#}");
    let first = humantime::format_rfc3339_millis(clock.at(begin) - BLUR).to_string();
    let right = clock.at(begin) - BLUR..clock.now() + BLUR;
    for (place, time) in times {
        let shown = humantime::format_rfc3339_millis(time);
        ensure!(
            right.contains(&time),
            "{place} is {shown}, but nothing was before {first}, nor is in the future: {status:#}"
        );
    }
    Ok(())
}

/// All times in a JSON value, and where they stand.
fn collect(value: &Value, place: &str, times: &mut Vec<(String, SystemTime)>) -> Result<()> {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                let place = format!("{place}.{key}");
                match key.as_str() {
                    "at" | "since" | "health_since" | "started" => {
                        times.push((place, time(value)?));
                    }
                    _ => collect(value, &place, times)?,
                }
            }
        }
        Value::Array(values) => {
            for (i, value) in values.iter().enumerate() {
                collect(value, &format!("{place}[{i}]"), times)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// A time in a status.
///
/// # Errors
/// When it is none.
pub fn time(value: &Value) -> Result<SystemTime> {
    let text = value
        .as_str()
        .with_context(|| format!("{value} is no time"))?;
    humantime::parse_rfc3339(text).with_context(|| text.to_owned())
}
