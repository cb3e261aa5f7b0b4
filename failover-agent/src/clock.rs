//! The one place that turns the system's clock into the policy's [`Time`].

use std::time::{Instant, SystemTime};

use crate::policy::Time;

/// Counts from the start of the agent. Cheap to copy; all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_wall: SystemTime,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Clock {
            start: Instant::now(),
            start_wall: SystemTime::now(),
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

    /// The wall-clock time at which the clock showed `time` (later steps of the wall clock are not followed).
    pub fn wall(self, time: Time) -> SystemTime {
        self.start_wall + time.0
    }
}
