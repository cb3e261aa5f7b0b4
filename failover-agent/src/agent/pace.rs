//! When to look at uplinks and routes again.

use std::time::{Duration, Instant};

/// Changes come in bursts (link, addresses, routes): wait for the end of one before looking.
const SETTLE: Duration = Duration::from_millis(50);

/// Least time from a look that changed the main table to a look at routes that others have changed since: that may be the answer to
/// what we did, and a conflict with another program must cost neither of us much.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a look takes long (a full routing table), looks because of routes may take this part of our time; the pause ends after
/// [`LONGEST_PAUSE`] all the same.
const SHARE: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Longest time without a look, though nothing is said to have changed: what the kernel did not tell must not last.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// When to look next, and when we looked last.
#[derive(Debug)]
pub(super) struct Pace {
    due: Instant,
    /// When the last look was over.
    last: Option<Instant>,
    /// How long it took.
    took: Duration,
    /// It changed the main table.
    changed: bool,
    /// It displaced others' routes.
    displaced: bool,
}

impl Pace {
    /// After a look that has just ended.
    pub(super) fn new() -> Self {
        Pace {
            due: Instant::now() + LONGEST_REST,
            last: None,
            took: Duration::ZERO,
            changed: false,
            displaced: false,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// How long the last look took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// Look soon; `contested` changes (routes, rules) may be somebody's answer to what we did, and wait longer.
    pub(super) fn schedule(&mut self, contested: bool) {
        let settled = Instant::now() + SETTLE;
        let long = self.took * SHARE;
        let rests = contested && (self.changed || long > PAUSE);
        let pause = long.clamp(PAUSE, LONGEST_PAUSE);
        let rested = self.last.map(|last| last + pause).filter(|_| rests);
        self.schedule_at(rested.map_or(settled, |rested| rested.max(settled)));
    }

    /// Look then, at the latest.
    pub(super) fn schedule_at(&mut self, due: Instant) {
        self.due = self.due.min(due);
    }

    /// A look begins; what it leads to may schedule another.
    pub(super) fn begin(&mut self) -> Instant {
        let now = Instant::now();
        self.due = now + LONGEST_REST;
        self.changed = false;
        now
    }

    /// The look changed the main table, or not.
    pub(super) fn note_changed(&mut self, changed: bool) {
        self.changed |= changed;
    }

    /// The look displaced others' routes, which may have hidden some from it, or not.
    pub(super) fn note_displaced(&mut self, displaced: bool) {
        self.displaced |= displaced;
    }

    /// The look failed: try again after a while.
    pub(super) fn failed(&mut self) {
        self.schedule_at(Instant::now() + PAUSE);
    }

    /// The look that began at `begun` is over.
    pub(super) fn looked(&mut self, begun: Instant) {
        let now = Instant::now();
        self.last = Some(now);
        self.took = now - begun;
        if std::mem::take(&mut self.displaced) {
            self.schedule(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_an_answer_to_us_waits() {
        let mut pace = Pace::new();
        let quick = |pace: &Pace| pace.due() <= Instant::now() + SETTLE;
        let rests = |pace: &Pace| pace.due() > Instant::now() + LONGEST_PAUSE;
        assert!(rests(&pace));
        for _ in 0..3 {
            pace.schedule(true);
            assert!(quick(&pace));
            let begun = pace.begin();
            pace.looked(begun);
        }
        pace.note_changed(true);
        pace.schedule(true);
        assert_eq!(Some(pace.due()), pace.last.map(|last| last + PAUSE));
        // Whatever is certainly not our doing does not wait.
        pace.schedule(false);
        assert!(quick(&pace));
        let begun = pace.begin();
        assert!(rests(&pace));
        // Whatever was hidden is looked for, once, and without hurry.
        pace.note_changed(true);
        pace.note_displaced(true);
        pace.looked(begun);
        assert_eq!(Some(pace.due()), pace.last.map(|last| last + PAUSE));
        let begun = pace.begin();
        pace.looked(begun);
        assert!(rests(&pace));
    }

    #[test]
    fn long_looks_are_rare_ones() {
        let mut pace = Pace::new();
        let begun = pace.begin();
        pace.looked(begun.checked_sub(Duration::from_millis(500)).unwrap());
        pace.schedule(true);
        let wait = pace.due() - pace.last.unwrap();
        assert!(wait >= Duration::from_secs(5), "{wait:?}");
    }
}
