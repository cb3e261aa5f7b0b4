//! Recognizes when somebody undoes again and again what we do, and limits what is said about it. Pure: time is a parameter.

use failover_policy::{Family, Time};
use std::{collections::VecDeque, time::Duration};

use crate::route::{Offence, Opponent};

/// Repairs of the same thing against the same opponent that make a quarrel, if they fall into [`WINDOW`].
pub(super) const REPAIRS: usize = 5;
/// See [`REPAIRS`]. A quarrel is over when so much time has passed without a repair.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Least time between two reports of the same quarrel.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(600);
/// Least time between two lines about repairs of the same thing.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(1);
/// Most quarrels that are remembered. There are few programs that manage routes.
const MOST: usize = 32;

/// What is quarrelled about, and with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matter {
    pub(super) offence: Offence,
    pub(super) family: Family,
    pub(super) with: Opponent,
}

/// What is to be said about a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Log a line: so many repairs were made since the last one, this one included. None: too soon.
    pub(super) line: Option<u64>,
    /// Report a quarrel.
    pub(super) quarrel: bool,
}

/// A matter in which repairs were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quarrel {
    pub(super) matter: Matter,
    /// Repairs since [`Quarrel::since`].
    pub(super) repairs: u64,
    /// The first repair after [`WINDOW`] without any.
    pub(super) since: Time,
    /// The last [`REPAIRS`] ones.
    recent: VecDeque<Time>,
    /// [`REPAIRS`] of them have fallen into [`WINDOW`].
    recognized: bool,
    reported: Option<Time>,
    /// When the last line was logged, and repairs since.
    logged: Option<Time>,
    unlogged: u64,
}

impl Quarrel {
    fn new(matter: Matter, now: Time) -> Self {
        Quarrel {
            matter,
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

    fn repaired(&mut self, now: Time) -> Told {
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
        let quarrel = self.recognized && due(self.reported, REPORT_EVERY);
        if quarrel {
            self.reported = Some(now);
        }
        let line = due(self.logged, LINE_EVERY).then(|| std::mem::take(&mut self.unlogged));
        if line.is_some() {
            self.logged = Some(now);
        }
        Told { line, quarrel }
    }

    /// Whether it was recognized and goes on.
    fn goes_on(&self, now: Time) -> bool {
        self.recognized && !self.rests(now)
    }
}

/// All quarrels of late.
#[derive(Debug, Default)]
pub(super) struct Quarrels(Vec<Quarrel>);

impl Quarrels {
    /// Takes note of a repair. Everything that was put right at one time in one matter is one repair.
    pub(super) fn repaired(&mut self, matter: &Matter, now: Time) -> Told {
        // Whoever was reported is remembered so long that it is not reported again too soon.
        self.0
            .retain(|quarrel| now.since(quarrel.last()) <= REPORT_EVERY);
        let known = self.0.iter().position(|quarrel| quarrel.matter == *matter);
        let position = known.unwrap_or_else(|| {
            if self.0.len() == MOST {
                let oldest = (0..MOST).min_by_key(|position| self.0[*position].last());
                self.0.swap_remove(oldest.unwrap_or(0));
            }
            self.0.push(Quarrel::new(matter.clone(), now));
            self.0.len() - 1
        });
        self.0[position].repaired(now)
    }

    /// Those that go on.
    pub(super) fn ongoing(&self, now: Time) -> impl Iterator<Item = &Quarrel> {
        self.0.iter().filter(move |quarrel| quarrel.goes_on(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn matter(protocol: u8) -> Matter {
        Matter {
            offence: Offence::Outbid,
            family: Family::V4,
            with: Opponent::Protocol(protocol),
        }
    }

    fn at(seconds: u64) -> Time {
        Time(Duration::from_secs(seconds))
    }

    #[test]
    fn a_quarrel_is_reported_once_and_again_after_ten_minutes() {
        let mut quarrels = Quarrels::default();
        let reports: Vec<u64> = (0..1300)
            .filter(|second| quarrels.repaired(&matter(16), at(*second)).quarrel)
            .collect();
        assert_eq!(reports, [4, 604, 1204]);
        let quarrel = quarrels.ongoing(at(1300)).next().unwrap();
        assert_eq!((quarrel.repairs, quarrel.since), (1300, at(0)));
    }

    #[test]
    fn repairs_now_and_then_are_no_quarrel() {
        let mut quarrels = Quarrels::default();
        // Four within a minute, then the fifth a second too late.
        for second in [0, 20, 40, 60, 61, 82, 103, 124] {
            let told = quarrels.repaired(&matter(16), at(second));
            assert!(!told.quarrel || second == 61, "at {second}");
        }
        let mut quarrels = Quarrels::default();
        for second in [0, 16, 32, 48, 64, 80, 96] {
            assert!(!quarrels.repaired(&matter(16), at(second)).quarrel);
        }
        assert_eq!(quarrels.ongoing(at(96)).count(), 0);
    }

    #[test]
    fn a_quarrel_ends_and_may_begin_anew() {
        let mut quarrels = Quarrels::default();
        for second in 0..5 {
            quarrels.repaired(&matter(16), at(second));
        }
        assert_eq!(quarrels.ongoing(at(64)).count(), 1);
        assert_eq!(quarrels.ongoing(at(65)).count(), 0, "a minute of peace");
        for second in 100..104 {
            quarrels.repaired(&matter(16), at(second));
            assert_eq!(quarrels.ongoing(at(second)).count(), 0);
        }
        // Recognized, but it was reported less than ten minutes ago.
        assert!(!quarrels.repaired(&matter(16), at(104)).quarrel);
        let again = quarrels.ongoing(at(104)).next().unwrap();
        assert_eq!((again.repairs, again.since), (5, at(100)));
    }

    #[test]
    fn lines_are_limited_and_count_what_they_leave_out() {
        let mut quarrels = Quarrels::default();
        let tenth = |tenths: u64| Time(Duration::from_millis(100 * tenths));
        let lines: Vec<_> = (0..=20)
            .filter_map(|tenths| quarrels.repaired(&matter(16), tenth(tenths)).line)
            .collect();
        assert_eq!(lines, [1, 10, 10]);
        let other = quarrels.repaired(&matter(3), tenth(20));
        assert_eq!(other.line, Some(1), "another matter");
    }

    proptest! {
        #[test]
        fn whatever_happens(
            repairs in vec((0u8..40, prop_oneof![0u64..2_000, 10_000u64..20_000, 0u64..700_000]), 1..400),
        ) {
            let mut quarrels = Quarrels::default();
            let mut now = 0;
            let mut history: Vec<(u8, u64, Told)> = Vec::new();
            for (who, pause) in repairs {
                now += pause;
                let time = Time(Duration::from_millis(now));
                let told = quarrels.repaired(&matter(who), time);
                prop_assert!(quarrels.0.len() <= MOST);

                let earlier = || history.iter().rev().filter(|(other, ..)| *other == who);
                let known = quarrels.0.iter().any(|quarrel| quarrel.matter == matter(who));
                prop_assert!(known);
                // Reported: five in a minute at some time, and not twice in ten minutes (more than 32 opponents may push one out).
                if told.quarrel {
                    let times: Vec<u64> = std::iter::once(now).chain(earlier().map(|(_, at, _)| *at)).collect();
                    prop_assert!(times.windows(REPAIRS).any(|five| five[0] - five[REPAIRS - 1] <= 60_000));
                }
                let fewer = history.iter().map(|(who, ..)| *who).collect::<std::collections::HashSet<_>>().len() < MOST;
                if fewer {
                    let reported = earlier().find(|(_, _, told)| told.quarrel);
                    if told.quarrel && let Some((_, at, _)) = reported {
                        prop_assert!(now - at >= 600_000);
                    }
                    let logged = earlier().find(|(_, _, told)| told.line.is_some());
                    prop_assert_eq!(told.line.is_some(), logged.is_none_or(|(_, at, _)| now - at >= 1_000));
                    let five_ago = earlier().nth(REPAIRS - 2);
                    if five_ago.is_some_and(|(_, at, _)| now - at <= 60_000) {
                        let goes_on = quarrels.ongoing(time).any(|quarrel| quarrel.matter == matter(who));
                        prop_assert!(goes_on);
                        prop_assert!(told.quarrel || reported.is_some_and(|(_, at, _)| now - at < 600_000));
                    }
                }
                history.push((who, now, told));
            }
        }
    }
}
