//! How often a file may be written.

use std::time::{Duration, Instant};

/// Writes that may follow each other at once: a switch of both families, a command and its consequences.
const BURST: u32 = 4;

/// After that, one write per this time. What is not written yet is in memory, and only a kill -9 loses it.
const EVERY: Duration = Duration::from_millis(500);

/// The writes that a file has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: u32,
    /// Since when `left` has had its value.
    since: Instant,
}

impl Budget {
    pub(super) fn full(now: Instant) -> Budget {
        Budget {
            left: BURST,
            since: now,
        }
    }

    /// When the next write may happen: `now` or later.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        while self.left < BURST && self.since + EVERY <= now {
            self.left += 1;
            self.since += EVERY;
        }
        match self.left {
            0 => self.since + EVERY,
            _ => now,
        }
    }

    /// Accounts for a write.
    pub(super) fn spend(&mut self, now: Instant) {
        if self.left == BURST {
            self.since = now;
        }
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_two_a_second_and_a_burst_again_after_a_rest() {
        let start = Instant::now();
        let mut budget = Budget::full(start);
        let mut now = start;
        let mut writes = Vec::new();
        // Asked every 10 ms for five seconds.
        while now < start + Duration::from_secs(5) {
            if budget.next(now) == now {
                budget.spend(now);
                writes.push(now - start);
            }
            now += Duration::from_millis(10);
        }
        assert_eq!(writes[3], Duration::from_millis(30));
        assert_eq!(writes[4], EVERY);
        assert_eq!(writes.len(), 4 + 9, "{writes:?}");
        now += EVERY * 10;
        for _ in 0..BURST {
            assert_eq!(budget.next(now), now);
            budget.spend(now);
        }
        assert_eq!(budget.next(now), now + EVERY);
    }
}
