//! Recognizes when another program repeatedly undoes what the agent does, and limits how often that is reported. Pure: time is a parameter.

use std::{collections::VecDeque, time::Duration};

use failover_policy::{Family, Time};

use super::{ConflictKind, Contender};

/// Repairs of the same thing against the same contender that make a conflict, if they fall into one [`WINDOW`].
pub(crate) const REPAIRS: usize = 5;
/// See [`REPAIRS`]. A conflict is over when this time has passed without a repair.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Least time between two reports of the same conflict.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(600);
/// Least time between two lines about repairs of the same thing.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(1);
/// Greatest number of conflicts that are remembered. Few programs manage routes.
const MOST: usize = 32;

/// What the conflict is about, and the other program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConflictKey {
    pub(crate) kind: ConflictKind,
    pub(crate) family: Family,
    pub(crate) contender: Contender,
}

/// What to report about a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Log a line: the number of repairs since the last line, this one included. `None`: it is too soon.
    pub(crate) line: Option<u64>,
    /// Whether to report a conflict.
    pub(crate) conflict: bool,
}

/// Repairs with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) key: ConflictKey,
    /// Repairs since [`Conflict::since`].
    pub(crate) repairs: u64,
    /// The first repair after a [`WINDOW`] without any.
    pub(crate) since: Time,
    /// The times of the last [`REPAIRS`] repairs.
    recent: VecDeque<Time>,
    /// Whether [`REPAIRS`] of them fell into one [`WINDOW`].
    recognized: bool,
    reported: Option<Time>,
    /// When the last line was logged, and the repairs since.
    logged: Option<Time>,
    unlogged: u64,
}

impl Conflict {
    fn new(key: ConflictKey, now: Time) -> Self {
        Conflict {
            key,
            repairs: 0,
            since: now,
            recent: VecDeque::with_capacity(REPAIRS),
            recognized: false,
            reported: None,
            logged: None,
            unlogged: 0,
        }
    }

    /// When the last repair was made.
    fn last(&self) -> Time {
        self.recent.back().copied().unwrap_or(self.since)
    }

    fn rests(&self, now: Time) -> bool {
        now.since(self.last()) > WINDOW
    }

    fn repaired(&mut self, now: Time) -> Report {
        if self.rests(now) {
            (self.repairs, self.since, self.recognized) = (0, now, false);
            self.recent.clear();
        }
        self.repairs += 1;
        self.unlogged += 1;
        if self.recent.len() == REPAIRS {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        let first = self.recent.front().copied().unwrap_or(now);
        self.recognized |= self.recent.len() == REPAIRS && now.since(first) <= WINDOW;
        let due = |last: Option<Time>, every| last.is_none_or(|last| now.since(last) >= every);
        let conflict = self.recognized && due(self.reported, REPORT_EVERY);
        if conflict {
            self.reported = Some(now);
        }
        let line = due(self.logged, LINE_EVERY).then(|| std::mem::take(&mut self.unlogged));
        if line.is_some() {
            self.logged = Some(now);
        }
        Report { line, conflict }
    }

    /// Whether it was recognized and is not over.
    fn goes_on(&self, now: Time) -> bool {
        self.recognized && !self.rests(now)
    }
}

/// All recent conflicts.
#[derive(Debug, Default)]
pub(crate) struct Conflicts(Vec<Conflict>);

impl Conflicts {
    /// Takes note of a repair. Everything that was restored at one time for one key is one repair.
    pub(crate) fn repaired(&mut self, key: &ConflictKey, now: Time) -> Report {
        // A reported conflict is remembered for long enough that it is not reported again too soon.
        self.0
            .retain(|conflict| now.since(conflict.last()) <= REPORT_EVERY);
        let known = self.0.iter().position(|conflict| conflict.key == *key);
        let position = known.unwrap_or_else(|| {
            if self.0.len() == MOST {
                let oldest = (0..MOST).min_by_key(|position| self.0[*position].last());
                self.0.swap_remove(oldest.unwrap_or(0));
            }
            self.0.push(Conflict::new(key.clone(), now));
            self.0.len() - 1
        });
        self.0[position].repaired(now)
    }

    /// The conflicts that are not over.
    pub(crate) fn ongoing(&self, now: Time) -> impl Iterator<Item = &Conflict> {
        self.0.iter().filter(move |conflict| conflict.goes_on(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn key(protocol: u8) -> ConflictKey {
        ConflictKey {
            kind: ConflictKind::Preempt,
            family: Family::V4,
            contender: Contender::Protocol(protocol),
        }
    }

    fn at(seconds: u64) -> Time {
        Time(Duration::from_secs(seconds))
    }

    #[test]
    fn a_conflict_is_reported_once_and_again_after_ten_minutes() {
        let mut conflicts = Conflicts::default();
        let reports: Vec<u64> = (0..1300)
            .filter(|second| conflicts.repaired(&key(16), at(*second)).conflict)
            .collect();
        assert_eq!(reports, [4, 604, 1204]);
        let conflict = conflicts.ongoing(at(1300)).next().unwrap();
        assert_eq!((conflict.repairs, conflict.since), (1300, at(0)));
    }

    #[test]
    fn repairs_now_and_then_are_no_conflict() {
        let mut conflicts = Conflicts::default();
        // Four within a minute, then the fifth a second too late.
        for second in [0, 20, 40, 60, 61, 82, 103, 124] {
            let report = conflicts.repaired(&key(16), at(second));
            assert!(!report.conflict || second == 61, "at {second}");
        }
        let mut conflicts = Conflicts::default();
        for second in [0, 16, 32, 48, 64, 80, 96] {
            assert!(!conflicts.repaired(&key(16), at(second)).conflict);
        }
        assert_eq!(conflicts.ongoing(at(96)).count(), 0);
    }

    #[test]
    fn a_conflict_ends_and_may_begin_again() {
        let mut conflicts = Conflicts::default();
        for second in 0..5 {
            conflicts.repaired(&key(16), at(second));
        }
        assert_eq!(conflicts.ongoing(at(64)).count(), 1);
        assert_eq!(conflicts.ongoing(at(65)).count(), 0, "a minute of peace");
        for second in 100..104 {
            conflicts.repaired(&key(16), at(second));
            assert_eq!(conflicts.ongoing(at(second)).count(), 0);
        }
        // Recognized, but it was reported less than ten minutes ago.
        assert!(!conflicts.repaired(&key(16), at(104)).conflict);
        let again = conflicts.ongoing(at(104)).next().unwrap();
        assert_eq!((again.repairs, again.since), (5, at(100)));
    }

    #[test]
    fn lines_are_limited_and_count_what_they_leave_out() {
        let mut conflicts = Conflicts::default();
        let tenth = |tenths: u64| Time(Duration::from_millis(100 * tenths));
        let lines: Vec<_> = (0..=20)
            .filter_map(|tenths| conflicts.repaired(&key(16), tenth(tenths)).line)
            .collect();
        assert_eq!(lines, [1, 10, 10]);
        let other = conflicts.repaired(&key(3), tenth(20));
        assert_eq!(other.line, Some(1), "another key");
    }

    proptest! {
        #[test]
        fn whatever_happens(
            repairs in vec((0u8..40, prop_oneof![0u64..2_000, 10_000u64..20_000, 0u64..700_000]), 1..400),
        ) {
            let mut conflicts = Conflicts::default();
            let mut now = 0;
            let mut history: Vec<(u8, u64, Report)> = Vec::new();
            for (who, pause) in repairs {
                now += pause;
                let time = Time(Duration::from_millis(now));
                let report = conflicts.repaired(&key(who), time);
                prop_assert!(conflicts.0.len() <= MOST);

                let earlier = || history.iter().rev().filter(|(other, ..)| *other == who);
                let known = conflicts.0.iter().any(|conflict| conflict.key == key(who));
                prop_assert!(known);
                // Reported: five in a minute at some time, and not twice in ten minutes (more than 32 contenders may push one out).
                if report.conflict {
                    let times: Vec<u64> = std::iter::once(now).chain(earlier().map(|(_, at, _)| *at)).collect();
                    prop_assert!(times.windows(REPAIRS).any(|five| five[0] - five[REPAIRS - 1] <= 60_000));
                }
                let fewer = history.iter().map(|(who, ..)| *who).collect::<std::collections::HashSet<_>>().len() < MOST;
                if fewer {
                    let reported = earlier().find(|(_, _, report)| report.conflict);
                    if report.conflict && let Some((_, at, _)) = reported {
                        prop_assert!(now - at >= 600_000);
                    }
                    let logged = earlier().find(|(_, _, report)| report.line.is_some());
                    prop_assert_eq!(report.line.is_some(), logged.is_none_or(|(_, at, _)| now - at >= 1_000));
                    let five_ago = earlier().nth(REPAIRS - 2);
                    if five_ago.is_some_and(|(_, at, _)| now - at <= 60_000) {
                        let goes_on = conflicts.ongoing(time).any(|conflict| conflict.key == key(who));
                        prop_assert!(goes_on);
                        prop_assert!(report.conflict || reported.is_some_and(|(_, at, _)| now - at < 600_000));
                    }
                }
                history.push((who, now, report));
            }
        }
    }
}
