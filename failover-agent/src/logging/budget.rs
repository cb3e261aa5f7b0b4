//! How many lines of one kind are written per second: neither packets of outsiders nor a repeated failure may fill a disk.
//!
//! A kind is the place in the program that logs the line. Lines above the budget are counted. Once a second, one line for each such kind
//! reports how many were left out, with the first of them as an example.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// The target of the lines that report left-out lines; they are paced separately.
const OWN: &str = "failover_agent::logging";

/// What comes through the `log` crate has this target, and its own in the field [`LOG_TARGET`].
const LOG: &str = "log";
const LOG_TARGET: &str = "log.target";

/// Places whose lines are about single packets, which any host can send.
const PACKETS: [&str; 2] = ["failover_agent::agent::events", "failover_ebpf"];

/// How often left-out lines are reported.
const PERIOD: Duration = Duration::from_secs(1);

/// Greatest length of an example in bytes.
const EXAMPLE: usize = 200;

/// Lines per second, and lines at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    fn of(target: &str, level: Level) -> Rate {
        let (per_second, burst) = if level > Level::INFO {
            // The user asked for these with `-v`.
            (200, 4000)
        } else if PACKETS.iter().any(|place| is_in(target, place)) {
            (10, 20)
        } else {
            // At a start, all uplinks and families log at once.
            (20, 400)
        };
        Rate { per_second, burst }
    }
}

fn is_in(target: &str, place: &str) -> bool {
    let rest = target.strip_prefix(place);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Place(Identifier),
    /// The target of a line that came through `log`.
    Log(String),
}

/// One kind's budget: a token bucket, stored as the time at which it would be full again.
#[derive(Debug)]
struct Bucket {
    full: Instant,
    /// Lines left out since the last report, and the first of them.
    left_out: u64,
    example: String,
}

/// The lines of one kind that were left out within about a second.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) lines: u64,
    pub(super) example: String,
}

/// The budgets of all kinds: as many as the program has places that log.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Spent>);

#[derive(Debug, Default)]
struct Spent {
    buckets: HashMap<Kind, Bucket>,
    /// When left-out lines are to be reported; `None` while there are none.
    due: Option<Instant>,
    /// All lines that were left out.
    left_out: u64,
}

impl Budget {
    /// How many lines were left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.lock().left_out
    }

    /// The lines that were left out since the last call.
    pub(super) fn take(&self) -> Vec<LeftOut> {
        let mut spent = self.lock();
        spent.due = None;
        let buckets = spent.buckets.values_mut();
        buckets
            .filter(|bucket| bucket.left_out > 0)
            .map(|bucket| LeftOut {
                lines: std::mem::take(&mut bucket.left_out),
                example: std::mem::take(&mut bucket.example),
            })
            .collect()
    }

    /// Whether one more line may be written at `now`. If not, and it is the first left out since the last [`Budget::take`]: when to call
    /// that.
    fn spend(
        &self,
        kind: Kind,
        rate: Rate,
        now: Instant,
        example: impl FnOnce() -> String,
    ) -> Result<(), Option<Instant>> {
        let line = Duration::from_secs(1) / rate.per_second;
        let mut spent = self.lock();
        let bucket = spent.buckets.entry(kind).or_insert_with(|| Bucket {
            full: now,
            left_out: 0,
            example: String::new(),
        });
        let full = bucket.full.max(now) + line;
        if full <= now + line * rate.burst {
            bucket.full = full;
            return Ok(());
        }
        if bucket.left_out == 0 {
            bucket.example = example();
        }
        bucket.left_out += 1;
        spent.left_out += 1;
        match spent.due {
            Some(_) => Err(None),
            None => {
                spent.due = Some(now + PERIOD);
                Err(spent.due)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks every line against its budget; `due` is called with the time at which [`Budget::take`] must be called.
pub(super) struct Limit<D> {
    pub(super) budget: &'static Budget,
    pub(super) due: D,
}

impl<S: Subscriber, D: Fn(Instant) + 'static> Layer<S> for Limit<D> {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata: &Metadata<'_> = event.metadata();
        let level = *metadata.level();
        let (kind, rate) = match metadata.target() {
            OWN => return true,
            LOG => {
                let target = text(event, LOG_TARGET);
                let rate = Rate::of(&target, level);
                (Kind::Log(target), rate)
            }
            target => (Kind::Place(metadata.callsite()), Rate::of(target, level)),
        };
        let example = || text(event, "message");
        match self.budget.spend(kind, rate, Instant::now(), example) {
            Ok(()) => true,
            Err(due) => {
                if let Some(due) = due {
                    (self.due)(due);
                }
                false
            }
        }
    }
}

/// The beginning of a field's text.
fn text(event: &Event<'_>, field: &'static str) -> String {
    let mut found = Text {
        field,
        text: String::new(),
    };
    event.record(&mut found);
    let Text { mut text, .. } = found;
    text.truncate(text.floor_char_boundary(EXAMPLE));
    text
}

struct Text {
    field: &'static str,
    text: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.field {
            value.clone_into(&mut self.text);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.field {
            self.text = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(budget: &Budget, kind: &str, rate: Rate, now: Instant) -> bool {
        let example = || format!("a line of {kind}");
        budget
            .spend(Kind::Log(kind.to_owned()), rate, now, example)
            .is_ok()
    }

    #[test]
    fn each_kind_has_a_burst_and_then_its_rate() {
        let (budget, start) = (Budget::default(), Instant::now());
        let rate = Rate {
            per_second: 10,
            burst: 20,
        };
        let written = |kind: &str, from: u64, to: u64| {
            let times = (from..to).map(|ms| start + Duration::from_millis(ms));
            times.filter(|now| spend(&budget, kind, rate, *now)).count()
        };
        assert_eq!(written("a", 0, 1000), 20 + 9);
        assert_eq!(written("b", 999, 1009), 10, "another kind has its own");
        let mut reported = budget.take();
        assert_eq!(
            reported.pop(),
            Some(LeftOut {
                lines: 971,
                example: "a line of a".to_owned()
            })
        );
        assert_eq!((reported, budget.take()), (vec![], vec![]));
        assert_eq!(written("a", 1000, 5000), 40);
        assert_eq!(budget.left_out(), 971 + 3960);
        // After a quiet time there is the burst again.
        assert_eq!(written("a", 60_000, 60_050), 20);
    }

    #[test]
    fn the_first_line_that_is_left_out_says_when_to_tell() {
        let (budget, now) = (Budget::default(), Instant::now());
        let rate = Rate {
            per_second: 1,
            burst: 1,
        };
        let spend = || budget.spend(Kind::Log(String::new()), rate, now, String::new);
        assert_eq!(spend(), Ok(()));
        assert_eq!(spend(), Err(Some(now + PERIOD)));
        assert_eq!(spend(), Err(None));
        assert_eq!(budget.take().len(), 1);
        assert_eq!(
            budget.spend(Kind::Log(String::new()), rate, now, String::new),
            Err(Some(now + PERIOD))
        );
    }

    #[test]
    fn what_outsiders_cause_has_less_and_what_is_asked_for_more() {
        let per_second = |target, level| Rate::of(target, level).per_second;
        assert_eq!(per_second("failover_ebpf", Level::INFO), 10);
        assert_eq!(per_second("failover_ebpf::log", Level::INFO), 10);
        assert_eq!(per_second("failover_agent::agent::events", Level::INFO), 10);
        assert_eq!(per_second("failover_agent::agent::sync", Level::WARN), 20);
        assert_eq!(per_second("failover_agent::agent::sync", Level::DEBUG), 200);
    }
}
