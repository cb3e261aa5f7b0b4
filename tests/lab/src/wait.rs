//! Bounded waiting.

use std::{
    env,
    fmt::Display,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// How many times slower than the machines of its developers this one is said to be, by whoever starts the tests; 1 if nobody says it.
pub const PACE: &str = "FAILOVER_TESTS_PACE";

/// [`PACE`]: by so much every wait is longer, and scenarios stretch what they ask of an agent's probes and of traffic by as much.
pub fn pace() -> u32 {
    static PACE_OF_HERE: OnceLock<u32> = OnceLock::new();
    *PACE_OF_HERE.get_or_init(|| {
        let said = env::var(PACE).ok();
        said.and_then(|said| said.parse().ok())
            .map_or(1, |pace: u32| pace.max(1))
    })
}

/// A time that depends on how fast the machine is, in milliseconds at a [`pace`] of 1.
pub fn paced(ms: u64) -> Duration {
    Duration::from_millis(ms) * pace()
}

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
    let timeout = timeout * pace();
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
