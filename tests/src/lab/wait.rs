//! Bounded waiting.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `condition` holds.
///
/// # Errors
/// When it does not within `timeout`; the error says `what` was waited for.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    wait_for(what, timeout, || {
        if condition() {
            Ok(())
        } else {
            Err("it did not happen")
        }
    })
}

/// Waits until `look` returns a value, and returns it.
///
/// # Errors
/// When it does not within `timeout`; the error says `what` was waited for, and what `look` saw last.
pub fn wait_for<T, E: Display>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= deadline => {
                bail!("waited {timeout:?} until {what}: {seen:#}")
            }
            Err(_) => thread::sleep(LOOK),
        }
    }
}
