//! Namespace tests, one or several at a time.
//!
//! Each has relays, clients and an agent of its own, and mostly waits. Every test runs in a process of its own, so its
//! duration is its own too, and what it prints stays together.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Result, anyhow};

use crate::{cargo::Executable, harness, libtest::Report};

/// What runs alone, and why: whole programs, or tests by the beginning of `program::test`.
pub(crate) const ALONE: &[(&str, &str)] = &[
    (
        "balance::refused",
        "a switch is ordered before the agent notices a lost address: a race that a busy machine loses",
    ),
    (
        "bench",
        "what it measures is what the machine can do when nothing else runs",
    ),
    (
        "cutoff",
        "new in the laboratory's namespaces: not yet seen side by side there",
    ),
    (
        "datapath",
        "new in the laboratory's namespaces: not yet seen side by side there",
    ),
    (
        "demo",
        "shows and compares times, and looks for leftovers of the laboratories of a process",
    ),
    (
        "soak",
        "a run is as long as what happens in it: load changes what meets what",
    ),
    (
        "inject",
        "lets system calls fail under two agents at a time already",
    ),
    (
        "lifecycle::output",
        "agents are started against a log that nobody reads, and have less time for it than elsewhere",
    ),
    (
        "logging",
        "reads what a process has logged when it has ended, which on a busy machine may be too soon",
    ),
    (
        "others::echoes",
        "a flood of packets takes a core, and the agent's CPU time beside it is limited",
    ),
    (
        "others::flood",
        "a flood of routes takes a core, and the agent's CPU time beside it is limited",
    ),
    (
        "others::scale",
        "how long a look at a full routing table takes is limited",
    ),
    (
        "route",
        "new in the laboratory's namespaces: not yet seen side by side there",
    ),
    (
        "uplinks::waiting",
        "reads the agent's log at once after its status, which is a moment ahead on a busy machine",
    ),
];

/// A test of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test<'a> {
    pub(crate) program: &'a Executable,
    pub(crate) name: String,
}

impl Test<'_> {
    /// e.g. `cut::local::a_stream_ends`.
    fn title(&self) -> String {
        self.program.title(&self.name)
    }

    fn is_alone(&self) -> bool {
        let title = self.title();
        ALONE.iter().any(|(beginning, _)| {
            title
                .strip_prefix(beginning)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    }
}

/// The programs' tests that have the filter in their titles, or all.
///
/// # Errors
/// When a program cannot be started, or does not list its tests.
pub(crate) fn tests<'a>(programs: &'a [Executable], filter: Option<&str>) -> Result<Vec<Test<'a>>> {
    let mut tests = Vec::new();
    for program in programs {
        let names = program.tests(filter.as_slice())?;
        tests.extend(names.into_iter().map(|name| Test { program, name }));
    }
    Ok(tests)
}

/// Tests that run one after another, each in one of `width` workers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch<'a> {
    pub(crate) tests: Vec<Test<'a>>,
    pub(crate) width: usize,
}

/// Where `jobs` tests may run side by side, those that must run alone come after the others; one by one, all are one batch.
pub(crate) fn batches(tests: Vec<Test<'_>>, jobs: usize) -> Vec<Batch<'_>> {
    let (alone, together): (Vec<_>, Vec<_>) = tests
        .into_iter()
        .partition(|test| jobs == 1 || test.is_alone());
    [(together, jobs), (alone, 1)]
        .into_iter()
        .filter(|(tests, _)| !tests.is_empty())
        .map(|(tests, width)| Batch { tests, width })
        .collect()
}

/// Runs a batch as root, and tells of each test as it ends.
///
/// # Errors
/// When one of the programs could not be started.
pub(crate) fn run(batch: Batch<'_>) -> Result<Report> {
    let Batch { tests, width } = batch;
    let queue = Mutex::new(VecDeque::from(tests));
    let total = Mutex::new(Ok(Report::default()));
    let next = || locked(&queue).pop_front();
    let work = || {
        while let Some(test) = next() {
            let mut shown = String::new();
            let started = Instant::now();
            let report = harness::single(&test, |line| shown += &format!("    {line}\n"));
            let took = started.elapsed().as_secs_f64();
            // Held while this is printed: lines of two tests do not mix.
            let mut total = locked(&total);
            match report {
                Ok(report) => {
                    println!("    {:7} {took:>6.2} s  {}", outcome(&report), test.title());
                    print!("{shown}");
                    if let Ok(total) = total.as_mut() {
                        total.add(report);
                    }
                }
                Err(error) => *total = Err(error),
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked")))
    })?;
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn locked<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn outcome(report: &Report) -> &'static str {
    match report {
        report if report.failed > 0 => "FAILED",
        report if report.passed > 0 => "ok",
        _ => "ignored",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, path: &str) -> Executable {
        Executable {
            name: name.into(),
            kind: "test".into(),
            harness: true,
            path: path.into(),
            package_dir: ".".into(),
        }
    }

    #[test]
    fn what_runs_alone_is_told_by_program_and_test() {
        let alone = |name: &str, test: &str| {
            let program = &program(name, "");
            let name = test.into();
            Test { program, name }.is_alone()
        };
        assert!(alone("bench", "figures_come_as_json"));
        assert!(!alone("bench_of_others", "figures_come_as_json"));
        assert!(!alone("cut", "bench::figures"));
        assert!(alone("others", "flood::foreign_routes"));
        assert!(!alone("others", "floods::foreign_routes"));
    }

    #[test]
    fn tests_are_chosen_by_program_and_test() {
        let this = std::env::current_exe().unwrap();
        let programs = ["cut", "uplinks"].map(|name| program(name, &this.to_string_lossy()));
        let chosen = |filter: &str| {
            let tests = tests(&programs, Some(filter)).unwrap();
            tests.iter().map(Test::title).collect::<Vec<_>>()
        };
        let one = "beside::tests::tests_are_chosen_by_program_and_test";
        assert_eq!(
            chosen(one),
            [format!("cut::{one}"), format!("uplinks::{one}")]
        );
        assert_eq!(
            chosen(&format!("uplinks::{one}")),
            [format!("uplinks::{one}")]
        );
        assert_eq!(chosen("lab::beside"), [""; 0]);
    }

    #[test]
    fn only_tests_side_by_side_need_a_batch_of_their_own() {
        let (bench, cut) = (program("bench", ""), program("cut", ""));
        let of = |program| {
            let name = "a_test".to_owned();
            Test { program, name }
        };
        let tests = || vec![of(&bench), of(&cut)];
        assert_eq!(
            batches(tests(), 1),
            [Batch {
                tests: tests(),
                width: 1
            }]
        );
        let [cut, bench] = [of(&cut), of(&bench)].map(|test| vec![test]);
        let (side_by_side, alone) = (
            Batch {
                tests: cut.clone(),
                width: 2,
            },
            Batch {
                tests: bench.clone(),
                width: 1,
            },
        );
        assert_eq!(batches(tests(), 2), [side_by_side, alone]);
        assert_eq!(
            batches(cut.clone(), 2),
            [Batch {
                tests: cut,
                width: 2
            }]
        );
        assert_eq!(
            batches(bench.clone(), 2),
            [Batch {
                tests: bench,
                width: 1
            }]
        );
        assert_eq!(batches(Vec::new(), 1), []);
    }

    #[test]
    fn a_worker_that_cannot_start_a_program_says_so() {
        let absent = program("absent", "/nonexistent");
        let name = "test".into();
        let program = &absent;
        let tests = vec![Test { program, name }];
        let error = run(Batch { tests, width: 2 }).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
