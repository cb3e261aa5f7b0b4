//! How long a probe waits for its answer, and what a missing answer means.
//!
//! Time during which the agent itself did not run (stopped by a signal, starved of CPU, its virtual machine suspended) does not count as
//! silence of the target. So the socket is read before a probe is given up; and if the end of the timeout was noticed late, the probe waits
//! once more, for as long as that was late and at most one timeout.

use std::time::Duration;

use tokio::time::Instant;

/// How late a timer may fire without the agent having been paused.
const LATE: Duration = Duration::from_millis(50);

/// The longest time between two checks of the clock while an answer is awaited. A round-trip time that was measured while the agent was
/// paused is inexact by no more than this.
const LOOK: Duration = Duration::from_millis(250);

/// The result of a check of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There is time left, or more time was given. Whether the agent was paused since the last check.
    Wait { slept: bool },
    /// The probe is lost.
    Lost,
    /// The probe says nothing: the agent was paused for longer than a timeout, by this time.
    Slept(Duration),
}

/// The timeout of one probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// The end of the timeout.
    end: Instant,
    /// How late the end was noticed, if the probe waits once more because of that.
    late: Option<Duration>,
    /// When to check next.
    next: Instant,
}

impl Patience {
    /// The timeout of a probe that is sent now and waits for `limit`.
    pub(super) fn new(now: Instant, limit: Duration) -> Self {
        let end = now + limit;
        Patience {
            limit,
            end,
            late: None,
            next: end.min(now + step(limit)),
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Whether a check is overdue: an answer that is read now may have been waiting.
    pub(super) fn slept(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.next) > LATE.min(self.limit / 8)
    }

    /// Checks the clock; to be called at the time of the next check, or later.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        let slept = self.slept(now);
        if now < self.end {
            self.next = self.end.min(now + step(self.limit));
            return Look::Wait { slept };
        }
        match self.late {
            None if slept => {
                let late = now.saturating_duration_since(self.end);
                self.late = Some(late);
                self.end = now + late.min(self.limit);
                self.next = self.end;
                Look::Wait { slept }
            }
            // An agent that is paused at every check must not take a dead link for a good one for ever.
            Some(late) if late > self.limit && !slept => Look::Slept(late),
            _ => Look::Lost,
        }
    }
}

fn step(limit: Duration) -> Duration {
    LOOK.min(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(400);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Checks until the probe has ended. Each check is late by the next of `late` (in milliseconds), the others are in time.
    fn wait(late: &[(usize, u64)]) -> (Look, Duration) {
        let sent = Instant::now();
        let mut patience = Patience::new(sent, LIMIT);
        for number in 0.. {
            let late = late.iter().find(|(look, _)| *look == number);
            let now = patience.next() + late.map_or(Duration::ZERO, |(_, late)| ms(*late));
            match patience.look(now) {
                Look::Wait { .. } => assert!(patience.next() > now),
                end => return (end, now - sent),
            }
        }
        unreachable!()
    }

    #[test]
    fn timeout_noticed_in_time_is_a_loss() {
        assert_eq!(wait(&[]), (Look::Lost, LIMIT));
        assert_eq!(wait(&[(0, 20)]), (Look::Lost, LIMIT));
        assert_eq!(wait(&[(3, 50)]), (Look::Lost, ms(450)));
    }

    #[test]
    fn time_slept_before_the_end_is_the_targets_all_the_same() {
        assert_eq!(wait(&[(0, 250)]), (Look::Lost, LIMIT));
    }

    #[test]
    fn timeout_noticed_late_is_given_again() {
        assert_eq!(wait(&[(3, 100)]), (Look::Lost, ms(600)));
        assert_eq!(wait(&[(0, 500)]), (Look::Lost, ms(800)));
    }

    #[test]
    fn after_a_longer_sleep_than_a_timeout_silence_says_nothing() {
        assert_eq!(wait(&[(3, 2000)]), (Look::Slept(ms(2000)), ms(2800)));
        assert_eq!(wait(&[(0, 2000)]), (Look::Slept(ms(1700)), ms(2500)));
    }

    #[test]
    fn an_agent_that_is_paused_again_finds_a_dead_link_all_the_same() {
        assert_eq!(wait(&[(3, 2000), (4, 2000)]), (Look::Lost, ms(4800)));
    }

    #[test]
    fn answers_that_have_waited_are_told_from_others() {
        let sent = Instant::now();
        let mut patience = Patience::new(sent, LIMIT);
        assert!(!patience.slept(sent + ms(90)));
        assert!(!patience.slept(sent + ms(140)));
        assert!(patience.slept(sent + ms(160)));
        assert_eq!(patience.look(sent + ms(160)), Look::Wait { slept: true });
        assert!(!patience.slept(sent + ms(250)));
    }
}
