//! When to scan uplinks and routes again.

use std::time::{Duration, Instant};

/// Changes come in bursts (link, addresses, routes): wait for the end of one before scanning.
const SETTLE: Duration = Duration::from_millis(50);

/// Least time from a scan that changed the main table to a scan because of routes that others have changed since: that may be the answer to
/// what we did, and a conflict with another program must cost neither of us much.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a scan takes long (a full routing table), scans because of routes may take this part of our time; the pause ends after
/// [`LONGEST_PAUSE`] all the same.
const SHARE: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Longest time without a scan, though nothing is said to have changed: what the kernel did not report must not last.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// When to scan next, and when the last scan was.
#[derive(Debug)]
pub(super) struct ScanSchedule {
    due: Instant,
    /// When the last scan was over.
    last: Option<Instant>,
    /// How long it took.
    took: Duration,
    /// It changed the main table.
    changed: bool,
    /// It displaced others' routes.
    displaced: bool,
}

impl ScanSchedule {
    /// After a scan that has just ended.
    pub(super) fn new() -> Self {
        ScanSchedule {
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

    /// How long the last scan took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// Scan soon; `contested` changes (routes, rules) may be another program's answer to what we did, and wait longer.
    pub(super) fn soon(&mut self, contested: bool) {
        let settled = Instant::now() + SETTLE;
        let long = self.took * SHARE;
        let rests = contested && (self.changed || long > PAUSE);
        let pause = long.clamp(PAUSE, LONGEST_PAUSE);
        let rested = self.last.map(|last| last + pause).filter(|_| rests);
        self.by(rested.map_or(settled, |rested| rested.max(settled)));
    }

    /// Scan then, at the latest.
    pub(super) fn by(&mut self, due: Instant) {
        self.due = self.due.min(due);
    }

    /// A scan begins; what it leads to may schedule another.
    pub(super) fn begin(&mut self) -> Instant {
        let now = Instant::now();
        self.due = now + LONGEST_REST;
        self.changed = false;
        now
    }

    /// The scan changed the main table, or not.
    pub(super) fn note_changed(&mut self, changed: bool) {
        self.changed |= changed;
    }

    /// The scan displaced others' routes, which may have hidden some from it, or not.
    pub(super) fn note_displaced(&mut self, displaced: bool) {
        self.displaced |= displaced;
    }

    /// The scan failed: try again after a while.
    pub(super) fn failed(&mut self) {
        self.by(Instant::now() + PAUSE);
    }

    /// The scan that began at `begun` is over.
    pub(super) fn end(&mut self, begun: Instant) {
        let now = Instant::now();
        self.last = Some(now);
        self.took = now - begun;
        if std::mem::take(&mut self.displaced) {
            self.soon(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_an_answer_to_us_waits() {
        let mut scans = ScanSchedule::new();
        let quick = |scans: &ScanSchedule| scans.due() <= Instant::now() + SETTLE;
        let rests = |scans: &ScanSchedule| scans.due() > Instant::now() + LONGEST_PAUSE;
        assert!(rests(&scans));
        for _ in 0..3 {
            scans.soon(true);
            assert!(quick(&scans));
            let begun = scans.begin();
            scans.end(begun);
        }
        scans.note_changed(true);
        scans.soon(true);
        assert_eq!(Some(scans.due()), scans.last.map(|last| last + PAUSE));
        // Whatever is certainly not our doing does not wait.
        scans.soon(false);
        assert!(quick(&scans));
        let begun = scans.begin();
        assert!(rests(&scans));
        // Whatever was hidden is looked for, once, and without hurry.
        scans.note_changed(true);
        scans.note_displaced(true);
        scans.end(begun);
        assert_eq!(Some(scans.due()), scans.last.map(|last| last + PAUSE));
        let begun = scans.begin();
        scans.end(begun);
        assert!(rests(&scans));
    }

    #[test]
    fn long_scans_are_rare_ones() {
        let mut scans = ScanSchedule::new();
        let begun = scans.begin();
        scans.end(begun.checked_sub(Duration::from_millis(500)).unwrap());
        scans.soon(true);
        let wait = scans.due() - scans.last.unwrap();
        assert!(wait >= Duration::from_secs(5), "{wait:?}");
    }
}
