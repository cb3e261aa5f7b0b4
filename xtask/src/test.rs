//! `cargo xtask test`: the checks, then the tests, then the counts.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    cargo::{self, Executable},
    libtest::{Event, Reader, Report, Skip},
    privilege,
    setup::{self, Scope},
};

/// Runs everything, or with a filter only the tests with such names.
///
/// # Errors
/// When the set-up fails, before anything was tested.
pub(crate) fn test(filter: Option<&str>) -> Result<ExitCode> {
    setup::ensure(Scope::Everything)?;
    let mut run = Run {
        filter,
        parts: Vec::new(),
    };
    run.checks();
    run.tests();
    Ok(run.summary())
}

/// One line of the summary.
struct Part {
    kind: &'static str,
    report: Report,
    took: Duration,
}

struct Run<'a> {
    filter: Option<&'a str>,
    parts: Vec<Part>,
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
            // The variable below would otherwise make cargo build the whole workspace anew each time.
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

impl Run<'_> {
    fn checks(&mut self) {
        let started = Instant::now();
        let mut report = Report::default();
        for (name, args, variables) in CHECKS {
            if self.filter.is_some() {
                report.skipped.push(Skip {
                    name: name.into(),
                    reason: "only tests are filtered by name".into(),
                });
                continue;
            }
            let ok = step(name, || {
                let status = cargo::command()
                    .args(args)
                    .envs(variables.iter().copied())
                    .status();
                status.is_ok_and(|status| status.success())
            });
            report.add(verdict(ok));
        }
        self.parts.push(Part {
            kind: "checks",
            report,
            took: started.elapsed(),
        });
    }

    fn tests(&mut self) {
        let started = Instant::now();
        let mut executables = Vec::new();
        let built = step("build of the agent and the tests", || {
            // The scenarios start the agent itself, which a build of the tests does not include.
            let agent = cargo::executables(&["build", "--package", "failover-agent"]);
            let tests = cargo::executables(&["test", "--workspace", "--no-run"]);
            match agent.and(tests) {
                Ok(found) => executables.extend(found.into_iter().filter(|found| found.harness)),
                Err(error) => eprintln!("{error:#}"),
            }
            !executables.is_empty()
        });
        self.parts.push(Part {
            kind: "build",
            report: verdict(built),
            took: started.elapsed(),
        });
        if !built {
            return;
        }
        let (namespace, unit): (Vec<_>, Vec<_>) = executables
            .into_iter()
            .partition(|executable| executable.kind == "test");

        self.part("unit tests", &unit, |executable| {
            Ok(Command::new(&executable.path))
        });
        self.doc_tests();
        match privilege::obstacle() {
            None => self.part("namespace tests", &namespace, |executable| {
                let mut command = privilege::as_root(&executable.path)?;
                // Each scenario measures times, and has relays and clients of its own.
                command.arg("--test-threads=1");
                Ok(command)
            }),
            Some(reason) => self.skip("namespace tests", &namespace, &reason),
        }
    }

    /// Runs test programs of one kind.
    fn part(
        &mut self,
        kind: &'static str,
        programs: &[Executable],
        command: impl Fn(&Executable) -> Result<Command>,
    ) {
        let started = Instant::now();
        let mut report = Report::default();
        for program in programs {
            let name = title(kind, program);
            step(&name, || {
                let told = command(program).and_then(|mut command| {
                    command
                        .current_dir(&program.package_dir)
                        .env("CARGO_MANIFEST_DIR", &program.package_dir);
                    command.arg("--show-output").args(self.filter);
                    run_tests(&mut command)
                });
                let told = told.unwrap_or_else(|error| {
                    eprintln!("{error:#}");
                    verdict(false)
                });
                let ok = told.failed == 0;
                report.add(told);
                ok
            });
        }
        self.parts.push(Part {
            kind,
            report,
            took: started.elapsed(),
        });
    }

    fn doc_tests(&mut self) {
        let started = Instant::now();
        let mut report = Report::default();
        step("doc tests", || {
            let mut command = cargo::command();
            command
                .args(["test", "--workspace", "--doc", "--", "--show-output"])
                .args(self.filter);
            report = run_tests(&mut command).unwrap_or_else(|error| {
                eprintln!("{error:#}");
                verdict(false)
            });
            report.failed == 0
        });
        self.parts.push(Part {
            kind: "doc tests",
            report,
            took: started.elapsed(),
        });
    }

    /// Counts tests that cannot be run, each as skipped.
    fn skip(&mut self, kind: &'static str, programs: &[Executable], reason: &str) {
        let started = Instant::now();
        let mut report = Report::default();
        for program in programs {
            step(
                &format!("{}: {reason}", title(kind, program)),
                || match list(program, self.filter) {
                    Ok(names) => {
                        let skip = |name| Skip {
                            name,
                            reason: reason.to_owned(),
                        };
                        report.skipped.extend(names.into_iter().map(skip));
                        true
                    }
                    Err(error) => {
                        eprintln!("{error:#}");
                        report.failed += 1;
                        false
                    }
                },
            );
        }
        self.parts.push(Part {
            kind,
            report,
            took: started.elapsed(),
        });
    }

    /// Prints the counts; the last line is the total.
    fn summary(&self) -> ExitCode {
        let mut total = Report::default();
        println!(
            "\n{:16} {:>6} {:>6} {:>7} {:>8}",
            "", "passed", "failed", "skipped", "time"
        );
        for Part { kind, report, took } in &self.parts {
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
        for part in &self.parts {
            for (reason, names) in by_reason(&part.report.skipped) {
                println!("skipped {}, {reason}: {}", part.kind, names.join(", "));
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
}

/// Runs one named step, and tells its name before and its duration after.
fn step(name: &str, action: impl FnOnce() -> bool) -> bool {
    println!("==> {name}");
    let started = Instant::now();
    let ok = action();
    println!(
        "    {}, {:.1} s",
        if ok { "ok" } else { "FAILED" },
        started.elapsed().as_secs_f64()
    );
    ok
}

fn verdict(ok: bool) -> Report {
    Report {
        passed: usize::from(ok),
        failed: usize::from(!ok),
        skipped: Vec::new(),
    }
}

/// e.g. `unit tests: failover-agent (lib)`.
fn title(kind: &str, program: &Executable) -> String {
    match program.kind.as_str() {
        "test" => format!("{kind}: {}", program.name),
        other => format!("{kind}: {} ({other})", program.name),
    }
}

/// Runs a test program, shows each test's outcome as it comes, and what failed tests printed.
fn run_tests(command: &mut Command) -> Result<Report> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let stdout = child
        .stdout
        .take()
        .context("the test program's output is not piped")?;
    let mut reader = Reader::default();
    let mut last = Instant::now();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("cannot read from {shown}"))?;
        let line = String::from_utf8_lossy(&line);
        match reader.line(&line) {
            Event::Ended(name, outcome) => {
                println!(
                    "    {outcome:7} {:>6.2} s  {name}",
                    last.elapsed().as_secs_f64()
                );
                last = Instant::now();
            }
            Event::Show => println!("    {line}"),
            Event::Quiet => {}
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {shown}"))?;
    if !status.success() && status.code() != Some(TESTS_FAILED) {
        eprintln!("    the test program ended with {status}");
    }
    Ok(reader.end(status.success()))
}

/// The exit code with which the harness tells that a test failed.
const TESTS_FAILED: i32 = 101;

/// The names of a program's tests.
fn list(program: &Executable, filter: Option<&str>) -> Result<Vec<String>> {
    let output = Command::new(&program.path)
        .args(["--list", "--format=terse"])
        .args(filter)
        .output()
        .with_context(|| format!("cannot start {}", program.path.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} does not list its tests",
        program.path.display()
    );
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// Names of skipped tests, grouped by the reason.
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

    fn program(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_test_program_that_is_killed_has_failed() {
        let report = run_tests(&mut program("echo 'running 1 test'; kill -SEGV $$")).unwrap();
        assert_eq!((report.passed, report.failed), (0, 1));
    }

    #[test]
    fn skips_are_grouped_by_reason() {
        let skip = |name: &str, reason: &str| Skip {
            name: name.into(),
            reason: reason.into(),
        };
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
    fn this_very_program_lists_its_tests() {
        let this = Executable {
            name: "xtask".into(),
            kind: "bin".into(),
            harness: true,
            path: std::env::current_exe().unwrap(),
            package_dir: ".".into(),
        };
        let names = list(&this, Some("test::tests::this_very")).unwrap();
        assert_eq!(names, ["test::tests::this_very_program_lists_its_tests"]);
    }
}
