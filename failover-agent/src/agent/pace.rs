//! When to look at uplinks and routes again.

use std::time::{Duration, Instant};

/// Changes come in bursts (link, addresses, routes): wait for the end of one before looking.
const SETTLE: Duration = Duration::from_millis(50);

/// Routes that change within this time after a look may have changed because of it.
const PAUSE: Duration = Duration::from_secs(1);

/// So many looks may follow each other at once: a DHCP client changes its routes in a few steps. Then each look because of routes
/// waits for [`PAUSE`], until there was nothing to look at for twice as long: so a quarrel with another program about a route costs
/// neither of us much.
const LOOKS: u32 = 5;

/// Where a look takes long (a full routing table), looks because of routes may take this part of our time; the pause ends after
/// [`LONGEST_PAUSE`] all the same.
const SHARE: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// When to look next, and how often we looked lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Instant>,
    /// When the last look was over.
    last: Option<Instant>,
    /// How long it took.
    took: Duration,
    /// Looks without a pause between them.
    in_a_row: u32,
}

impl Pace {
    pub(super) fn due(&self) -> Option<Instant> {
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
        let rests = contested && (self.in_a_row >= LOOKS || long > PAUSE);
        let pause = long.clamp(PAUSE, LONGEST_PAUSE);
        let rested = self.last.map(|last| last + pause).filter(|_| rests);
        self.schedule_at(rested.map_or(settled, |rested| rested.max(settled)));
    }

    /// Look then, at the latest.
    pub(super) fn schedule_at(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// A look begins; what it leads to may schedule another.
    pub(super) fn begin(&mut self) -> Instant {
        self.due = None;
        Instant::now()
    }

    /// The look that began at `begun` is over.
    pub(super) fn looked(&mut self, begun: Instant) {
        let rested = self.last.is_none_or(|last| begun >= last + 2 * PAUSE);
        self.in_a_row = if rested { 1 } else { self.in_a_row + 1 };
        let now = Instant::now();
        self.last = Some(now);
        self.took = now - begun;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarrel_is_slowed_down_and_a_few_steps_are_not() {
        let mut pace = Pace::default();
        for _ in 0..LOOKS {
            pace.schedule(true);
            let wait = pace.due().unwrap() - Instant::now();
            assert!(wait <= SETTLE, "{wait:?}");
            let begun = pace.begin();
            pace.looked(begun);
        }
        let last = pace.last.unwrap();
        pace.schedule(true);
        assert_eq!(pace.due(), Some(last + PAUSE));
        // Whatever is certainly not our doing does not wait.
        pace.schedule(false);
        assert!(pace.due().unwrap() <= Instant::now() + SETTLE);
        pace.begin();
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn long_looks_are_rare_ones() {
        let mut pace = Pace::default();
        let begun = pace.begin();
        pace.looked(begun.checked_sub(Duration::from_millis(500)).unwrap());
        pace.schedule(true);
        let wait = pace.due().unwrap() - pace.last.unwrap();
        assert!(wait >= Duration::from_secs(5), "{wait:?}");
    }
}
