//! The outcome of a run: what survived, what did not, and what was left out.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    phase::{Phase, Setting},
    plan::{Injection, Recorded},
};

/// What does not fail here, and why.
pub(super) const LEFT_OUT: [(&str, &str); 8] = [
    (
        "mmap, futex, epoll, eventfd, timers, clocks",
        "plumbing of the program itself: without memory and locks no program goes on",
    ),
    (
        "socketpair and what passes its halves, pipes",
        "how the runtime wakes itself, made before anything is changed; standard output and error are among the calls",
    ),
    ("close", "its errors leave nothing to decide"),
    ("the dynamic loader's files", "the program has not begun"),
    (
        "EEXIST, ENOENT, ESRCH, ENODEV, and ENETUNREACH of a route",
        "they would tell something about the kernel's state that is not true",
    ),
    (
        "a netlink answer that never comes",
        "the kernel answers within send(2), or send(2) fails",
    ),
    (
        "a call of a later setting that an earlier one makes in the same phase",
        "it has failed there",
    ),
    (
        "other architectures than x86_64",
        "the registers of a system call are read and written",
    ),
];

/// What came of one injection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// All is as it must be; the process may have ended with this code in between, and was restarted.
    Survived(Option<i32>),
    /// The first try failed, the second did not: looked at, but not counted as a failure.
    Wavered(String),
    Failed(String),
    /// The call was not made in this run.
    NotReached,
}

#[derive(Debug, Serialize)]
pub(super) struct Result {
    pub(super) injection: Injection,
    pub(super) verdict: Verdict,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) recorded: Vec<Recorded>,
    pub(super) results: Vec<Result>,
    pub(super) took: Duration,
    pub(super) seed: Option<u64>,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    calls: usize,
    kinds: usize,
    injections: usize,
    survived: usize,
    /// Of those that survived.
    ended: usize,
    /// Of those that survived.
    wavered: usize,
    failed: usize,
    not_reached: usize,
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        self.injections += 1;
        match verdict {
            Verdict::Survived(ended) => {
                self.survived += 1;
                self.ended += usize::from(ended.is_some());
            }
            Verdict::Wavered(_) => {
                self.survived += 1;
                self.wavered += 1;
            }
            Verdict::Failed(_) => self.failed += 1,
            Verdict::NotReached => self.not_reached += 1,
        }
    }

    fn sum(self, other: Counts) -> Counts {
        Counts {
            calls: self.calls + other.calls,
            kinds: self.kinds + other.kinds,
            injections: self.injections + other.injections,
            survived: self.survived + other.survived,
            ended: self.ended + other.ended,
            wavered: self.wavered + other.wavered,
            failed: self.failed + other.failed,
            not_reached: self.not_reached + other.not_reached,
        }
    }
}

impl Report {
    fn counts(&self) -> BTreeMap<(Phase, Setting), Counts> {
        let mut counts: BTreeMap<_, Counts> = BTreeMap::new();
        for recorded in &self.recorded {
            let line = counts
                .entry((recorded.phase, recorded.setting))
                .or_default();
            line.kinds = recorded.calls.len();
            line.calls = recorded.calls.iter().map(|seen| seen.count).sum();
        }
        for Result { injection, verdict } in &self.results {
            let line = counts.entry((injection.phase, injection.setting));
            line.or_default().add(verdict);
        }
        counts
    }

    pub(super) fn failed(&self) -> impl Iterator<Item = (&Injection, &str)> {
        self.results
            .iter()
            .filter_map(|result| match &result.verdict {
                Verdict::Failed(why) => Some((&result.injection, why.as_str())),
                _ => None,
            })
    }

    pub(super) fn render(&self) -> String {
        let counts = self.counts();
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "Phase",
            "Setting",
            "Calls",
            "Kinds",
            "Injected",
            "Survived",
            "Ended",
            "Wavered",
            "Failed",
            "Not reached",
        ]);
        let row = |table: &mut Table, names: [String; 2], c: Counts| {
            let numbers = [
                c.calls,
                c.kinds,
                c.injections,
                c.survived,
                c.ended,
                c.wavered,
                c.failed,
                c.not_reached,
            ];
            let numbers = numbers.map(|number| number.to_string());
            table.add_row(names.into_iter().chain(numbers));
        };
        let mut total = Counts::default();
        for ((phase, setting), line) in counts {
            row(&mut table, [phase.to_string(), setting.to_string()], line);
            total = total.sum(line);
        }
        row(&mut table, ["all".to_owned(), String::new()], total);
        for column in 2..10 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = format!("{table}\n");
        // Writing to a String cannot fail.
        writeln!(
            text,
            "ended: with an error, in an orderly way, and restarted; wavered: failed once and not again"
        )
        .ok();
        for Result { injection, verdict } in &self.results {
            match verdict {
                Verdict::Wavered(why) => writeln!(text, "\nwavered {injection}\n{why}").ok(),
                Verdict::Failed(why) => writeln!(
                    text,
                    "\nFAILED {injection}\n{why}\n  again: cargo xtask inject --only '{injection}'"
                )
                .ok(),
                Verdict::NotReached => writeln!(text, "\nnot reached {injection}").ok(),
                Verdict::Survived(_) => None,
            };
        }
        writeln!(text, "\nleft out:").ok();
        for (what, why) in LEFT_OUT {
            writeln!(text, "  {what}: {why}").ok();
        }
        if let Some(seed) = self.seed {
            writeln!(text, "seed {seed}").ok();
        }
        writeln!(
            text,
            "{} injected, {} survived, {} failed, {} not reached, in {:.0?}",
            total.injections, total.survived, total.failed, total.not_reached, self.took
        )
        .ok();
        text
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let counts = self.counts().into_iter().map(|((phase, setting), counts)| {
            serde_json::json!({ "phase": phase, "setting": setting, "counts": counts })
        });
        let left_out = LEFT_OUT
            .iter()
            .map(|(what, why)| serde_json::json!({ "what": what, "why": why }));
        serde_json::json!({
            "phases": counts.collect::<Vec<_>>(),
            "results": self.results,
            "left_out": left_out.collect::<Vec<_>>(),
            "seed": self.seed,
            "took_s": self.took.as_secs_f64(),
        })
    }
}
