//! The one place that turns the system's clocks into the policy's [`Time`], and [`Time`] into a time of day.
//!
//! The agent measures time by `CLOCK_MONOTONIC`, as the eBPF programs do for the lease. Nothing sets that clock, and it stands still while
//! the host is suspended, when no probe could be answered either. A time of day is computed only when it is shown, from the time of day at
//! *that* moment: a router without a battery-backed clock learns the time only once an uplink works, and earlier events must be shown with
//! the right time, too.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use nix::time::{ClockId, clock_gettime};

use failover_policy::Time;

/// How far two clock readings may differ without a clock having been set: the clocks are read one after the other.
const TOLERANCE: Duration = Duration::from_millis(10);

/// Within how much time all clocks must be read for a reading to count, and how many attempts are made.
const READING: Duration = Duration::from_millis(2);
const READINGS: usize = 5;

/// How many suspensions are remembered.
const SUSPENSIONS: usize = 64;

/// Global, as the host's clocks are.
static DAY: Mutex<Day> = Mutex::new(Day {
    known: None,
    suspensions: VecDeque::new(),
});

/// Time since the kernel's boot, including the time during which the host was suspended. All processes of a boot agree on it, and nothing
/// can set it.
pub(crate) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME);
    // The kernel has this clock since 2.6.39.
    time.map_or(Duration::ZERO, Duration::from)
}

/// Measures time from the start of the agent. Cheap to copy; all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        look();
        Clock {
            start: Instant::now(),
        }
    }

    /// Time since the start.
    pub fn now(self) -> Time {
        Time(self.start.elapsed())
    }

    /// The monotonic instant of the start, to align the probe rounds of all uplinks.
    pub fn origin(self) -> Instant {
        self.start
    }

    /// The instant at which the clock shows `time`.
    pub fn instant(self, time: Time) -> Instant {
        self.start + time.0
    }

    /// The time of day at which the clock showed `time`, according to the time of day now.
    pub fn wall(self, time: Time) -> SystemTime {
        wall(self.instant(time))
    }
}

/// The time of day of an instant, according to the time of day now.
pub(crate) fn wall(instant: Instant) -> SystemTime {
    look();
    day().of(instant)
}

/// Checks whether the time of day was set, or the host suspended, since the last call. The agent calls it every second or so, to
/// distinguish what happened before a suspension from what happened after it.
pub(crate) fn look() {
    // If this reading does not count, the next call takes another.
    if let Some(reading) = Reading::take() {
        day().note(reading);
    }
}

fn day() -> MutexGuard<'static, Day> {
    DAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All clocks, read at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    wall: SystemTime,
    /// How long the host has been suspended since boot: the lead of `CLOCK_BOOTTIME` over `CLOCK_MONOTONIC`.
    suspended: Duration,
}

impl Reading {
    /// `None` if the process was held up at each attempt.
    fn take() -> Option<Reading> {
        (0..READINGS).find_map(|_| {
            let at = Instant::now();
            let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
            let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
            let wall = SystemTime::now();
            let suspended = Duration::from(boot).saturating_sub(monotonic.into());
            (at.elapsed() <= READING).then_some(Reading {
                at,
                wall,
                suspended,
            })
        })
    }
}

/// What is known about the time of day.
#[derive(Debug)]
struct Day {
    /// The last reading that no later one has contradicted.
    known: Option<Reading>,
    /// When each suspension was noticed, and how long it was; oldest first.
    suspensions: VecDeque<(Instant, Duration)>,
}

impl Day {
    /// Takes in a reading. Returns whether the time of day was set, or the host suspended.
    fn note(&mut self, now: Reading) -> bool {
        let Some(known) = self.known else {
            self.known = Some(now);
            return false;
        };
        let suspended = now.suspended.saturating_sub(known.suspended);
        if suspended > TOLERANCE {
            if self.suspensions.len() == SUSPENSIONS {
                self.suspensions.pop_front();
            }
            self.suspensions.push_back((now.at, suspended));
        }
        let expected = known.wall + now.at.saturating_duration_since(known.at) + suspended;
        let differs = match now.wall.duration_since(expected) {
            Ok(later) => later > TOLERANCE,
            Err(earlier) => earlier.duration() > TOLERANCE,
        };
        // The old reading stays as long as nothing contradicts it, so that each instant has one time of day.
        if suspended > TOLERANCE || differs {
            self.known = Some(now);
        }
        suspended > TOLERANCE || differs
    }

    fn of(&self, instant: Instant) -> SystemTime {
        let Some(known) = self.known else {
            return SystemTime::now();
        };
        let since = instant.saturating_duration_since(known.at);
        let before = known.at.saturating_duration_since(instant);
        let later = (self.suspensions.iter()).filter(|(noticed, _)| *noticed > instant);
        let suspended: Duration = later.map(|(_, length)| *length).sum();
        let wall = known.wall + since;
        // The result may lie before 1970 if the clock says so, but must not underflow.
        wall.checked_sub(before + suspended)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn day() -> Day {
        Day {
            known: None,
            suspensions: VecDeque::new(),
        }
    }

    struct Host {
        start: Instant,
        epoch: SystemTime,
    }

    impl Host {
        fn new() -> Host {
            Host {
                start: Instant::now(),
                epoch: SystemTime::UNIX_EPOCH + 1000 * HOUR,
            }
        }

        /// A reading after so much time of work and of suspension, with the time of day off by `set`.
        fn at(&self, work: Duration, suspended: Duration, set: Duration) -> Reading {
            Reading {
                at: self.start + work,
                wall: self.epoch + work + suspended + set,
                suspended,
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_moves_what_was_before() {
        let (host, mut day) = (Host::new(), day());
        let zero = Duration::ZERO;
        assert!(!day.note(host.at(zero, zero, zero)));
        assert!(!day.note(host.at(HOUR, zero, zero)));
        assert_eq!(day.of(host.start + HOUR / 2), host.epoch + HOUR / 2);
        assert!(day.note(host.at(2 * HOUR, zero, 500 * HOUR)));
        assert_eq!(day.of(host.start), host.epoch + 500 * HOUR);
        assert_eq!(day.of(host.start + 3 * HOUR), host.epoch + 503 * HOUR);
        // The clock is set back.
        assert!(day.note(host.at(3 * HOUR, zero, HOUR)));
        assert_eq!(day.of(host.start), host.epoch + HOUR);
    }

    #[test]
    fn a_suspension_lies_between_what_was_before_and_after_it() {
        let (host, mut day) = (Host::new(), day());
        let zero = Duration::ZERO;
        day.note(host.at(zero, zero, zero));
        assert!(day.note(host.at(HOUR, 8 * HOUR, zero)));
        assert!(!day.note(host.at(2 * HOUR, 8 * HOUR, zero)));
        assert_eq!(day.of(host.start), host.epoch);
        assert_eq!(day.of(host.start + 2 * HOUR), host.epoch + 10 * HOUR);
        // Another one, and the clock is set by an hour meanwhile.
        assert!(day.note(host.at(3 * HOUR, 9 * HOUR, HOUR)));
        let times = [0, 2, 4].map(|hours| day.of(host.start + hours * HOUR));
        assert_eq!(times, [1, 11, 14].map(|hours| host.epoch + hours * HOUR));
    }

    #[test]
    fn an_instant_has_one_time_of_day_as_long_as_no_clock_is_set() {
        let (host, mut day) = (Host::new(), day());
        let jitter = Duration::from_millis(3);
        day.note(host.at(jitter, Duration::ZERO, jitter));
        let first = day.of(host.start);
        for hours in 1..100 {
            assert!(!day.note(host.at(hours * HOUR, Duration::ZERO, Duration::ZERO)));
            assert_eq!(day.of(host.start), first);
        }
    }

    #[test]
    fn clocks_can_be_read() {
        let clock = Clock::start();
        let wall = clock.wall(clock.now());
        let difference = match wall.elapsed() {
            Ok(difference) => difference,
            Err(error) => error.duration(),
        };
        assert!(difference < Duration::from_secs(5), "{difference:?}");
    }
}
