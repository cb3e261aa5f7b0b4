//! Starting test programs, and showing what they do.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{self, Executable},
    libtest::{Event, Reader, Report, Skip},
    privilege,
};

/// How much of a running test program is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// What failed.
    Failures,
    /// Every test as it ends, with its duration: for tests that run one after another.
    Each,
}

/// The exit code with which the harness tells that a test failed.
const TESTS_FAILED: i32 = 101;

/// Runs a program's unit tests as the user; those that are skipped because they need root run
/// once more through sudo, if that works.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn unit_tests(program: &Executable, filter: Option<&str>, sudo: bool) -> Result<Report> {
    let mut report = run(
        prepare(Command::new(&program.path), program).args(filter),
        Show::Failures,
    )?;
    if sudo {
        let (again, skipped): (Vec<_>, Vec<_>) = report
            .skipped
            .into_iter()
            .partition(|skip| skip.reason.starts_with("needs root"));
        report.skipped = skipped;
        if !again.is_empty() {
            let mut command = prepare(privilege::as_root(&program.path)?, program);
            command
                .arg("--exact")
                .args(again.iter().map(|skip| &skip.name));
            report.add(run(&mut command, Show::Failures)?);
        }
    }
    Ok(report)
}

/// Runs a program's namespace tests as root, one after another: each measures times, and has
/// relays and clients of its own.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn namespace_tests(program: &Executable, filter: Option<&str>) -> Result<Report> {
    let mut command = prepare(privilege::as_root(&program.path)?, program);
    run(command.arg("--test-threads=1").args(filter), Show::Each)
}

/// Compiles and runs the examples in the documentation.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn doc_tests(filter: Option<&str>) -> Result<Report> {
    let mut command = cargo::command();
    command
        .args(["test", "--workspace", "--doc", "--", "--show-output"])
        .args(filter);
    run(&mut command, Show::Failures)
}

/// A program's tests, all counted as skipped for one reason.
///
/// # Errors
/// When the program does not list its tests.
pub(crate) fn skipped(program: &Executable, filter: Option<&str>, reason: &str) -> Result<Report> {
    let skip = |name| Skip {
        name,
        reason: reason.to_owned(),
    };
    Ok(Report {
        skipped: list(program, filter)?.into_iter().map(skip).collect(),
        ..Report::default()
    })
}

/// What `cargo test` would set for a test program.
fn prepare(mut command: Command, program: &Executable) -> Command {
    command
        .current_dir(&program.package_dir)
        .env("CARGO_MANIFEST_DIR", &program.package_dir)
        .arg("--show-output");
    command
}

fn run(command: &mut Command, show: Show) -> Result<Report> {
    let shown = format!("{command:?}");
    let mut child = command
        // Skips are read from what the harness captures.
        .env_remove("RUST_TEST_NOCAPTURE")
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
        // Bytes, because a test may print what is not UTF-8.
        let line = line.with_context(|| format!("cannot read from {shown}"))?;
        let line = String::from_utf8_lossy(&line);
        match reader.line(&line) {
            Event::Ended(name, outcome) if show == Show::Each => {
                println!(
                    "    {outcome:7} {:>6.2} s  {name}",
                    last.elapsed().as_secs_f64()
                );
                last = Instant::now();
            }
            Event::Ended(..) | Event::Quiet => {}
            Event::Show => println!("    {line}"),
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

fn list(program: &Executable, filter: Option<&str>) -> Result<Vec<String>> {
    let path = program.path.display();
    let output = Command::new(&program.path)
        .args(["--list", "--format=terse"])
        .args(filter)
        .output()
        .with_context(|| format!("cannot start {path}"))?;
    ensure!(output.status.success(), "{path} does not list its tests");
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_program() -> Executable {
        Executable {
            name: "xtask".into(),
            kind: "bin".into(),
            harness: true,
            path: std::env::current_exe().unwrap(),
            package_dir: ".".into(),
        }
    }

    #[test]
    fn a_test_program_that_is_killed_has_failed() {
        let mut program = Command::new("sh");
        program.args(["-c", "echo 'running 1 test'; kill -SEGV $$"]);
        let report = run(&mut program, Show::Failures).unwrap();
        assert_eq!((report.passed, report.failed), (0, 1));
    }

    #[test]
    fn a_real_test_program_is_read() {
        let report = unit_tests(&this_program(), Some("libtest::tests::results"), false).unwrap();
        assert_eq!(
            report,
            Report {
                passed: 1,
                ..Report::default()
            }
        );
    }

    #[test]
    fn tests_that_cannot_run_are_skipped_by_name() {
        let report = skipped(&this_program(), Some("tests_that_cannot_run"), "needs root").unwrap();
        let name = "harness::tests::tests_that_cannot_run_are_skipped_by_name".to_owned();
        assert_eq!(
            report.skipped,
            [Skip {
                name,
                reason: "needs root".into()
            }]
        );
        assert_eq!((report.passed, report.failed), (0, 0));
    }
}
