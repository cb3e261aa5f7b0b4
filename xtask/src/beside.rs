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
        "endurance",
        "a day is as long as what happens in it: load changes what meets what",
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
        format!("{}::{}", self.program.name, self.name)
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

/// The programs' tests: first those that may run side by side, then those that run alone.
///
/// # Errors
/// When a program cannot be started, or does not list its tests.
pub(crate) fn tests<'a>(
    programs: &'a [Executable],
    filter: Option<&str>,
) -> Result<[Vec<Test<'a>>; 2]> {
    let mut groups = [Vec::new(), Vec::new()];
    for program in programs {
        for name in program.tests(filter)? {
            let test = Test { program, name };
            groups[usize::from(test.is_alone())].push(test);
        }
    }
    Ok(groups)
}

/// Runs tests as root, `width` of them at a time, and tells of each as it ends.
///
/// # Errors
/// When one of the programs could not be started.
pub(crate) fn run(tests: Vec<Test<'_>>, width: usize) -> Result<Report> {
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
    fn a_worker_that_cannot_start_a_program_says_so() {
        let absent = program("absent", "/nonexistent");
        let name = "test".into();
        let program = &absent;
        let error = run(vec![Test { program, name }], 2).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
