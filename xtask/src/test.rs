//! `cargo xtask test`: the checks, then the tests, then the counts.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    beside,
    cargo::{self, Executable},
    harness::{self, Root},
    libtest::{Report, Skip},
    setup,
    survey::Scope,
};

/// Runs everything, or with a filter only the tests with such names. All steps run, also after
/// one that fails.
///
/// # Errors
/// When the set-up fails, before anything was tested.
pub(crate) fn test(filter: Option<&str>, jobs: usize) -> Result<ExitCode> {
    setup::ensure(Scope::Everything)?;
    let mut parts = vec![checks(filter)];
    let mut executables = Vec::new();
    parts.push(part("build", |_| {
        vec![step("the agent and the tests", || {
            executables = build()?;
            Ok(passed())
        })]
    }));
    let (namespace, unit): (Vec<_>, Vec<_>) = executables
        .into_iter()
        .partition(|executable| executable.kind == "test");
    let root = Root::find();

    parts.push(programs("unit tests", &unit, |program| {
        harness::unit_tests(program, filter, &root)
    }));
    if !unit.is_empty() {
        parts.push(part("doc tests", |kind| {
            vec![step(kind, || harness::doc_tests(filter))]
        }));
    }
    parts.push(match &root {
        Root::Absent(obstacle) => programs("namespace tests", &namespace, |program| {
            harness::without_root(program, filter, obstacle)
        }),
        Root::Here | Root::Sudo => namespace_tests(&namespace, filter, jobs),
    });
    Ok(summary(&parts))
}

/// One line of the summary.
struct Part {
    kind: &'static str,
    report: Report,
    took: Duration,
}

/// A check: its name, cargo's arguments, and variables to set.
type Check = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

const CHECKS: [Check; 4] = [
    ("formatting", &["fmt", "--all", "--check"], &[]),
    (
        "lints",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    ),
    (
        "lints of the eBPF programs",
        &[
            "clippy",
            "--package=failover-ebpf",
            "--target=bpfel-unknown-none",
            "-Zbuild-std=core",
            // Elsewhere the variable below would make cargo build everything again each time.
            "--target-dir=target/bpf-clippy",
            "--",
            "-D",
            "warnings",
        ],
        // Unlocks -Zbuild-std on a stable toolchain, as failover-agent/build.rs does.
        &[("RUSTC_BOOTSTRAP", "1")],
    ),
    (
        "documentation",
        &["doc", "--workspace", "--no-deps"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    ),
];

fn checks(filter: Option<&str>) -> Part {
    part("checks", |_| {
        let check = |(name, args, variables): Check| {
            if filter.is_some() {
                let reason = "a filter was given".into();
                return Report {
                    skipped: vec![Skip {
                        name: name.into(),
                        reason,
                    }],
                    ..Report::default()
                };
            }
            step(name, || {
                let status = cargo::command()
                    .args(args)
                    .envs(variables.iter().copied())
                    .status()?;
                Ok(if status.success() { passed() } else { failed() })
            })
        };
        CHECKS.into_iter().map(check).collect()
    })
}

/// Builds the agent, which the scenarios start and a build of the tests does not include, and the
/// tests.
fn build() -> Result<Vec<Executable>> {
    cargo::executables(&["build", "--package", "failover-agent"])?;
    let mut executables = cargo::executables(&["test", "--workspace", "--no-run"])?;
    executables.retain(|executable| executable.harness);
    if executables.is_empty() {
        bail!("cargo built no tests");
    }
    Ok(executables)
}

/// Runs test programs of one kind.
fn programs(
    kind: &'static str,
    programs: &[Executable],
    run: impl Fn(&Executable) -> Result<Report>,
) -> Part {
    let title = |program: &Executable| match program.kind.as_str() {
        "test" => format!("{kind}: {}", program.name),
        other => format!("{kind}: {} ({other})", program.name),
    };
    part(kind, |_| {
        programs
            .iter()
            .map(|program| step(&title(program), || run(program)))
            .collect()
    })
}

/// Runs the namespace tests as root: `jobs` at a time, and those that must run alone one at a time.
fn namespace_tests(programs: &[Executable], filter: Option<&str>, jobs: usize) -> Part {
    part("namespace tests", |kind| {
        let tests = match beside::tests(programs, filter) {
            Ok(tests) => tests,
            Err(error) => return vec![step(kind, || Err(error))],
        };
        let batches = beside::batches(tests, jobs).into_iter();
        let steps = batches.map(|batch| {
            let width = match batch.width {
                1 => "one".to_owned(),
                width => width.to_string(),
            };
            step(&format!("{kind}, {width} at a time"), || beside::run(batch))
        });
        steps.collect()
    })
}

fn part(kind: &'static str, run: impl FnOnce(&'static str) -> Vec<Report>) -> Part {
    let started = Instant::now();
    let mut report = Report::default();
    run(kind).into_iter().for_each(|step| report.add(step));
    Part {
        kind,
        report,
        took: started.elapsed(),
    }
}

/// Runs one named step, and tells its name before, and its outcome and duration after.
fn step(name: &str, action: impl FnOnce() -> Result<Report>) -> Report {
    println!("==> {name}");
    let started = Instant::now();
    let report = action().unwrap_or_else(|error| {
        eprintln!("    {error:#}");
        failed()
    });
    println!(
        "    {}, {:.1} s",
        outcome(&report),
        started.elapsed().as_secs_f64()
    );
    report
}

/// e.g. `ok, 30 passed, 1 skipped`; just `ok` for a single check.
fn outcome(report: &Report) -> String {
    let counts = [
        (report.passed, "passed"),
        (report.failed, "failed"),
        (report.skipped.len(), "skipped"),
    ];
    let mut text = if report.failed == 0 { "ok" } else { "FAILED" }.to_owned();
    if counts.iter().map(|(count, _)| count).sum::<usize>() > 1 {
        for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

fn passed() -> Report {
    Report {
        passed: 1,
        ..Report::default()
    }
}

fn failed() -> Report {
    Report {
        failed: 1,
        ..Report::default()
    }
}

/// Prints the counts, with the total as the last line.
fn summary(parts: &[Part]) -> ExitCode {
    let mut total = Report::default();
    println!(
        "\n{:16} {:>6} {:>6} {:>7} {:>8}",
        "", "passed", "failed", "skipped", "time"
    );
    for Part { kind, report, took } in parts {
        let Report {
            passed,
            failed,
            skipped,
        } = report;
        println!(
            "{kind:16} {passed:>6} {failed:>6} {:>7} {:>6.1} s",
            skipped.len(),
            took.as_secs_f64()
        );
        total.add(report.clone());
    }
    for Part { kind, report, .. } in parts {
        for (reason, names) in by_reason(&report.skipped) {
            println!("{kind} skipped, {reason}: {}", names.join(", "));
        }
    }
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed,
        total.failed,
        total.skipped.len()
    );
    if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Names of what was skipped, grouped by the reason.
fn by_reason(skipped: &[Skip]) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for skip in skipped {
        groups
            .entry(skip.reason.as_str())
            .or_default()
            .push(skip.name.as_str());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(name: &str, reason: &str) -> Skip {
        Skip {
            name: name.into(),
            reason: reason.into(),
        }
    }

    #[test]
    fn skips_are_grouped_by_reason() {
        let skipped = [
            skip("a", "needs root"),
            skip("b", "no IPv6"),
            skip("c", "needs root"),
        ];
        let groups = by_reason(&skipped);
        assert_eq!(groups["needs root"], ["a", "c"]);
        assert_eq!(groups["no IPv6"], ["b"]);
    }

    #[test]
    fn an_outcome_tells_what_happened() {
        assert_eq!(outcome(&passed()), "ok");
        assert_eq!(outcome(&failed()), "FAILED");
        let report = Report {
            passed: 3,
            failed: 1,
            skipped: vec![skip("a", "b")],
        };
        assert_eq!(outcome(&report), "FAILED, 3 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_step_that_cannot_be_taken_has_failed() {
        assert_eq!(step("impossible", || bail!("no such program")), failed());
        let part = part("steps", |_| vec![passed(), failed(), passed()]);
        assert_eq!((part.report.passed, part.report.failed), (2, 1));
    }

    #[test]
    fn one_failure_is_enough_for_the_exit_code() {
        let part = |report| Part {
            kind: "unit tests",
            report,
            took: Duration::ZERO,
        };
        assert_eq!(summary(&[part(passed())]), ExitCode::SUCCESS);
        assert_eq!(
            summary(&[part(passed()), part(failed())]),
            ExitCode::FAILURE
        );
    }
}
