//! Log lines on standard error: text or JSON, in UTC with microseconds.
//!
//! Logging never blocks the caller: lines wait in a bounded queue for a thread that writes them, and each kind of line has a budget per
//! second. Lines that are lost or left out are counted; the log reports them, and so does the status ([`counts`]).
//!
//! Messages of crates that use the `log` crate are logged too (aya-log passes on the eBPF programs' messages this way). The bridge captures
//! the logger when it is installed, so [`init`] must be called before everything else.

mod budget;
mod queue;

use std::{
    io::{self, IsTerminal as _},
    panic,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tracing::{Subscriber, error, warn};
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, format::debug_fn},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use self::{
    budget::{Budget, Limit},
    queue::{Lines, Queue},
};
use crate::{cli::LogFormat, failure::Failure};

/// There is one standard error, and one logger in front of it.
static QUEUE: Queue = Queue::new();
/// Whether the thread that empties the queue is running.
static WRITING: AtomicBool = AtomicBool::new(false);
static BUDGET: LazyLock<Budget> = LazyLock::new(Budget::default);

/// Lines that are missing from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Lines that could not be written, or for which the queue had no room.
    pub lost: u64,
    /// Lines above the budget of their kind.
    pub left_out: u64,
}

/// The lines that are missing from the log so far.
pub fn counts() -> Counts {
    Counts {
        lost: QUEUE.lost(),
        left_out: BUDGET.left_out(),
    }
}

/// Writes a line as it is, after all that were logged before it.
pub fn say(line: &str) {
    QUEUE.push(format!("{line}\n").as_bytes());
}

/// Waits until all lines are written; with a `bound`, at most that long.
pub fn flush(bound: Option<Duration>) {
    if WRITING.load(Ordering::Relaxed) {
        QUEUE.flush(bound);
    } else {
        QUEUE.write_here(io::stderr());
    }
}

/// The variable that chooses what is logged, in `tracing_subscriber`'s filter syntax. It overrides `-v`.
const VARIABLE: &str = "RUST_LOG";

/// Installs the logger and the bridge from `log`, and logs panics through it. Call it once, before everything else.
///
/// # Errors
///
/// `RUST_LOG` is invalid ([`Failure::ConfigInvalid`]), the writing thread cannot be started, or a logger is installed already.
pub fn init(verbose: u8, format: LogFormat) -> anyhow::Result<()> {
    let variable = std::env::var(VARIABLE).ok();
    QUEUE
        .start(io::stderr(), tell_lost, tell_left_out)
        .context("cannot start the thread that writes the log")?;
    WRITING.store(true, Ordering::Relaxed);
    let filter = filter(variable.as_deref(), verbose)?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let limit = Limit {
        budget: &BUDGET,
        due: |due| QUEUE.wake_at(due),
    };
    let lines = Lines(&QUEUE);
    match format {
        LogFormat::Text if verbose == 0 => brief(filter, colour, lines).with(limit).try_init(),
        LogFormat::Text => text(filter, colour, lines).with(limit).try_init(),
        LogFormat::Json => json(filter, lines).with(limit).try_init(),
    }
    .context("cannot install the logger")?;
    // The standard library's hook would write to standard error itself, and wait for its reader.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        error!("panic at {}: {message}", place.unwrap_or_default());
    }));
    Ok(())
}

fn tell_lost(lines: u64) {
    warn!(
        lost = lines,
        "{lines} log lines were lost: the reader of standard error is too slow or gone"
    );
}

fn tell_left_out() {
    for left_out in BUDGET.take() {
        let lines = left_out.lines;
        warn!(
            left_out = lines,
            "{lines} more lines of this kind within a second were not logged, the first of them: {}",
            left_out.example
        );
    }
}

/// What is logged: more of our own with each `-v`, and the warnings of every crate.
fn filter(variable: Option<&str>, verbose: u8) -> Result<EnvFilter, Failure> {
    let (place, directives) = match (variable, verbose) {
        (Some(variable), _) if !variable.trim().is_empty() => (VARIABLE, variable),
        (_, 0) => ("-v", "info"),
        // The messages of the eBPF programs bear the name of their crate.
        (_, 1) => ("-v", "info,failover_agent=debug,failover_ebpf=debug"),
        (_, _) => ("-v", "debug,failover_agent=trace,failover_ebpf=trace"),
    };
    EnvFilter::try_new(directives).map_err(|error| Failure::ConfigInvalid {
        place: place.to_owned(),
        problem: format!("`{directives}` is not a valid filter ({error})"),
        cure: "write info, debug or failover_agent=trace, for example".to_owned(),
    })
}

/// Text lines: our messages name everything that matters, so fields would repeat it.
fn brief<W>(
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .fmt_fields(debug_fn(|writer, field, value| match field.name() {
            "message" => write!(writer, "{value:?}"),
            _ => Ok(()),
        }))
        .with_target(false)
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(writer)
        .finish()
}

fn text<W>(
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(writer)
        .finish()
}

fn json<W>(filter: EnvFilter, writer: W) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn brief_lines_hold_the_message_alone() {
        let sink = Sink::default();
        let writer = {
            let sink = sink.clone();
            move || sink.clone()
        };
        tracing::subscriber::with_default(brief(filter(None, 0).unwrap(), false, writer), || {
            tracing::info!(target: "failover_agent", uplink = "cable", "cable is Up");
        });
        let text = sink.text();
        let (_, rest) = text.split_once(' ').unwrap();
        assert_eq!(rest.trim(), "INFO cable is Up");
    }

    fn lines_of(format: LogFormat, variable: Option<&str>, verbose: u8) -> String {
        let sink = Sink::default();
        let writer = {
            let sink = sink.clone();
            move || sink.clone()
        };
        let filter = filter(variable, verbose).unwrap();
        let speak = || {
            tracing::info!(target: "failover_agent", uplink = "cable", "informed");
            tracing::debug!(target: "failover_agent", "detailed");
            tracing::trace!(target: "failover_agent", "everything");
            tracing::debug!(target: "other_crate", "chatter");
        };
        match format {
            LogFormat::Text => {
                tracing::subscriber::with_default(text(filter, false, writer), speak);
            }
            LogFormat::Json => tracing::subscriber::with_default(json(filter, writer), speak),
        }
        sink.text()
    }

    #[test]
    fn verbosity_opens_our_own_lines_first() {
        let words = |variable, verbose| {
            let text = lines_of(LogFormat::Text, variable, verbose);
            ["informed", "detailed", "everything", "chatter"].map(|word| text.contains(word))
        };
        assert_eq!(words(None, 0), [true, false, false, false]);
        assert_eq!(words(None, 1), [true, true, false, false]);
        assert_eq!(words(None, 2), [true, true, true, true]);
        assert_eq!(
            words(Some("other_crate=debug"), 2),
            [false, false, false, true]
        );
        assert_eq!(words(Some(" "), 0), [true, false, false, false]);
    }

    #[test]
    fn time_is_utc_with_microseconds() {
        let text = lines_of(LogFormat::Text, None, 0);
        let stamp = text.split_whitespace().next().unwrap();
        assert_eq!(stamp.len(), "2026-01-01T00:00:00.000000Z".len(), "{stamp}");
        assert!(humantime::parse_rfc3339(stamp).is_ok(), "{stamp}");
    }

    #[test]
    fn json_lines_are_flat_objects() {
        let text = lines_of(LogFormat::Json, None, 0);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "informed");
        assert_eq!(line["uplink"], "cable");
        assert_eq!(line["level"], "INFO");
        let stamp = line["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(stamp).is_ok(), "{stamp}");
    }

    #[test]
    fn a_senseless_variable_is_refused_with_a_cure() {
        let failure = filter(Some("failover_agent=loudly"), 0).unwrap_err();
        assert_eq!(failure.exit_code(), 11);
        assert!(failure.to_string().starts_with("RUST_LOG: "), "{failure}");
    }
}
