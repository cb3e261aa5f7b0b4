//! Puts events in order of time, whichever source told of them first, and shows them.

use std::{
    io,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{event::Event, screen::Screen};

/// How long an event waits for earlier ones of another source (the agent's log arrives by a pipe, answers are seen at a look).
const SETTLE: Duration = Duration::from_millis(60);

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Milliseconds since the start.
    pub t_ms: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// The same in words.
    pub text: String,
}

/// All events until now.
#[derive(Debug)]
pub(super) struct Timeline {
    start: Instant,
    pending: Vec<(Instant, Event)>,
    entries: Vec<Entry>,
}

impl Timeline {
    pub(super) fn new() -> Timeline {
        Timeline {
            start: Instant::now(),
            pending: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Adds an event. Targets that failed in the same round become one event.
    pub(super) fn push(&mut self, at: Instant, event: Event) {
        let same_round = self
            .pending
            .iter_mut()
            .rev()
            .find_map(|(_, earlier)| merged_targets(earlier, &event));
        match (same_round, event) {
            (Some(targets), Event::ProbeFailed { targets: more, .. }) => targets.extend(more),
            (_, event) => self.pending.push((at, event)),
        }
    }

    /// Shows what has settled.
    pub(super) fn show(&mut self, screen: &mut Screen) -> io::Result<()> {
        match Instant::now().checked_sub(SETTLE) {
            Some(settled) => self.show_until(settled, screen),
            None => Ok(()),
        }
    }

    /// Shows everything.
    pub(super) fn finish(&mut self, screen: &mut Screen) -> io::Result<()> {
        self.show_until(Instant::now(), screen)
    }

    fn show_until(&mut self, end: Instant, screen: &mut Screen) -> io::Result<()> {
        // Stable: what one source tells stays in its order.
        self.pending.sort_by_key(|(at, _)| *at);
        let settled = self.pending.partition_point(|(at, _)| *at <= end);
        for (at, event) in self.pending.drain(..settled) {
            let entry = Entry {
                t_ms: milliseconds(at.saturating_duration_since(self.start)),
                text: event.to_string(),
                event,
            };
            screen.entry(&entry)?;
            self.entries.push(entry);
        }
        Ok(())
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

fn merged_targets<'a>(earlier: &'a mut Event, later: &Event) -> Option<&'a mut Vec<String>> {
    let (
        Event::ProbeFailed {
            uplink,
            targets,
            failed,
            ..
        },
        Event::ProbeFailed {
            uplink: later_uplink,
            failed: later_failed,
            ..
        },
    ) = (earlier, later)
    else {
        return None;
    };
    (uplink == later_uplink && failed == later_failed).then_some(targets)
}

/// Milliseconds with three decimals.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
