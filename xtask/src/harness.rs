//! Starting test programs, and showing what they do.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    beside::Test,
    cargo::{self, Executable},
    libtest::{Event, Reader, Report},
    privilege, programs,
};

/// The exit code with which the harness tells that a test failed.
const TESTS_FAILED: i32 = 101;

/// Why a test that needs root does not run without: the reason in its `#[ignore]`.
const NEEDS_ROOT: &str = "needs root";

/// How tests that need root can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    /// We are root.
    Here,
    /// By sudo, which does not ask.
    Sudo,
    /// Not at all, for this reason.
    Absent(String),
}

impl Root {
    pub(crate) fn find() -> Self {
        match privilege::obstacle() {
            Some(obstacle) => Self::Absent(obstacle),
            None if privilege::is_root() => Self::Here,
            None => Self::Sudo,
        }
    }
}

/// Runs a program's unit tests as the user; those that need root run through sudo, if that works.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn unit_tests(
    program: &Executable,
    filter: Option<&str>,
    root: &Root,
) -> Result<Report> {
    let Some(chosen) = choice(program, filter)? else {
        return Ok(Report::default());
    };
    if *root == Root::Here {
        let mut command = as_root(program)?;
        return run(command.arg("--include-ignored").args(chosen), print);
    }
    let mut report = run(as_user(program)?.args(chosen), print)?;
    match root {
        Root::Absent(obstacle) => explain(&mut report, obstacle),
        Root::Here | Root::Sudo => {
            let (again, skipped): (Vec<_>, Vec<_>) = report
                .skipped
                .into_iter()
                .partition(|skip| skip.reason == NEEDS_ROOT);
            report.skipped = skipped;
            if !again.is_empty() {
                let mut command = as_root(program)?;
                command
                    .args(["--ignored", "--exact"])
                    .args(again.iter().map(|skip| &skip.name));
                report.add(run(&mut command, print)?);
            }
        }
    }
    Ok(report)
}

/// Runs those of a program's namespace tests that need no root; the others are skipped.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn without_root(
    program: &Executable,
    filter: Option<&str>,
    obstacle: &str,
) -> Result<Report> {
    let Some(chosen) = choice(program, filter)? else {
        return Ok(Report::default());
    };
    let mut report = run(as_user(program)?.args(chosen), print)?;
    explain(&mut report, obstacle);
    Ok(report)
}

/// The arguments by which a program runs the tests that have the filter in their titles, or all; `None` when it has no such test.
fn choice(program: &Executable, filter: Option<&str>) -> Result<Option<Vec<String>>> {
    let Some(filter) = filter else {
        return Ok(Some(Vec::new()));
    };
    let mut arguments = program.tests(&[filter])?;
    if arguments.is_empty() {
        return Ok(None);
    }
    arguments.push("--exact".to_owned());
    Ok(Some(arguments))
}

/// Runs one test as root. What it has to say goes to `show`, line by line.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn single(test: &Test<'_>, show: impl FnMut(&str)) -> Result<Report> {
    let mut command = as_root(test.program)?;
    command.args(["--include-ignored", "--exact", &test.name]);
    run(&mut command, show)
}

/// Says of tests that need root why there is none.
fn explain(report: &mut Report, obstacle: &str) {
    for skip in &mut report.skipped {
        if skip.reason == NEEDS_ROOT {
            obstacle.clone_into(&mut skip.reason);
        }
    }
}

/// Compiles and runs the examples in the documentation.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn doc_tests(filter: Option<&str>) -> Result<Report> {
    let mut command = cargo::command();
    command
        .args(["test", "--workspace", "--doc", "--"])
        .args(filter);
    run(&mut command, print)
}

/// A test program as the user.
fn as_user(program: &Executable) -> Result<Command> {
    let mut command = Command::new(&program.path);
    // What is tested in here is finding programs on the user's PATH.
    if program.name != "xtask" {
        command.env("PATH", programs::laboratory_path()?);
    }
    Ok(prepare(command, program))
}

/// A test program as root.
fn as_root(program: &Executable) -> Result<Command> {
    let command = if program.name == "xtask" {
        privilege::as_root(&program.path)
    } else {
        privilege::in_laboratory(&program.path)
    };
    Ok(prepare(command?, program))
}

/// What `cargo test` would set for a test program.
fn prepare(mut command: Command, program: &Executable) -> Command {
    command
        .current_dir(&program.package_dir)
        .env("CARGO_MANIFEST_DIR", &program.package_dir);
    command
}

fn print(line: &str) {
    println!("    {line}");
}

fn run(command: &mut Command, mut show: impl FnMut(&str)) -> Result<Report> {
    let shown = format!("{command:?}");
    let mut child = command
        // Or what tests print would come between the lines that are read.
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
    for line in BufReader::new(stdout).split(b'\n') {
        // Bytes, because a test may print what is not UTF-8.
        let line = line.with_context(|| format!("cannot read from {shown}"))?;
        let line = String::from_utf8_lossy(&line);
        if reader.line(&line) == Event::Show {
            show(&line);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtest::Skip;

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
        let report = run(&mut program, print).unwrap();
        assert_eq!((report.passed, report.failed), (0, 1));
    }

    #[test]
    fn a_real_test_program_is_read() {
        let absent = Root::Absent("no sudo".into());
        for filter in ["libtest::tests::results", "xtask::libtest::tests::results"] {
            let report = unit_tests(&this_program(), Some(filter), &absent).unwrap();
            assert_eq!(
                report,
                Report {
                    passed: 1,
                    ..Report::default()
                }
            );
        }
        let other = Some("uplinks::libtest::tests::results");
        let report = unit_tests(&this_program(), other, &absent).unwrap();
        assert_eq!(report, Report::default());
    }

    /// Run by the next test, without root whoever that is: then it must not run.
    #[test]
    #[ignore = "needs root"]
    fn one_that_needs_root() {
        assert!(nix::unistd::geteuid().is_root());
    }

    #[test]
    fn a_test_that_needs_root_is_skipped_without_and_told_why() {
        let obstacle = "needs root: no sudo";
        let absent = Root::Absent(obstacle.into());
        let (program, filter) = (this_program(), Some("one_that_needs_root"));
        for report in [
            unit_tests(&program, filter, &absent),
            without_root(&program, filter, obstacle),
        ] {
            let report = report.unwrap();
            let name = "harness::tests::one_that_needs_root".to_owned();
            let reason = obstacle.to_owned();
            assert_eq!(report.skipped, [Skip { name, reason }]);
            assert_eq!((report.passed, report.failed), (0, 0));
        }
    }
}
