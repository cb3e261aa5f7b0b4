//! Reading what a test program prints.
//!
//! The text is the one interface that the stable test harness has. Counts are taken from the
//! `test result:` line, names and reasons from the lines before it.
//!
//! A test that needs root bears `#[ignore = "needs root"]`: without root it does not run, and the
//! harness says so. With root it runs by `--include-ignored`.

/// What test programs of one kind told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Tests that ran and passed.
    pub(crate) passed: usize,
    /// Tests that failed, and programs that ended without a result.
    pub(crate) failed: usize,
    /// Tests that did not run.
    pub(crate) skipped: Vec<Skip>,
}

/// A test that did not run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Report {
    pub(crate) fn add(&mut self, other: Report) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }
}

/// What a line means to the reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A test ended: its name and `ok`, `FAILED` or `ignored`.
    Ended(&'a str, &'a str),
    /// Part of what failed tests printed, or the program's own words: worth showing.
    Show,
    /// Of no interest.
    Quiet,
}

/// Reads the output line by line.
#[derive(Default)]
pub(crate) struct Reader {
    report: Report,
    /// What failed tests printed is being read.
    failures: bool,
    results: usize,
}

impl Reader {
    /// Takes the next line, without its end.
    pub(crate) fn line<'a>(&mut self, line: &'a str) -> Event<'a> {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.result(result);
            return Event::Quiet;
        }
        self.failures |= line == "failures:";
        if self.failures {
            Event::Show
        } else {
            self.running(line)
        }
    }

    /// The report, after the last line. `success` is the program's: one that fails without telling
    /// of a failed test (it crashed, say) counts as failed itself.
    pub(crate) fn end(mut self, success: bool) -> Report {
        if self.report.failed == 0 && (!success || self.results == 0) {
            self.report.failed = 1;
        }
        self.report
    }

    fn running<'a>(&mut self, line: &'a str) -> Event<'a> {
        let ended = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "));
        let Some((name, outcome)) = ended else {
            let harness = line.is_empty() || line.starts_with("running ");
            return if harness { Event::Quiet } else { Event::Show };
        };
        if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.strip_prefix(", ").unwrap_or("marked #[ignore]");
            self.skip(name, reason);
            return Event::Ended(name, "ignored");
        }
        Event::Ended(name, outcome)
    }

    fn skip(&mut self, name: &str, reason: &str) {
        self.report.skipped.push(Skip {
            name: name.to_owned(),
            reason: reason.trim().to_owned(),
        });
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn result(&mut self, result: &str) {
        let number = |what: &str| {
            result
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<usize>().ok())
        };
        self.report.passed += number("passed").unwrap_or(0);
        self.report.failed += number("failed").unwrap_or(0);
        self.results += 1;
        // `cargo test --doc` runs one program after another.
        self.failures = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test a ... ok
test m::b ... ignored, needs root
test c ... FAILED
test d ... ignored

failures:

---- c stdout ----
thread 'c' panicked at src/lib.rs:1:1:
ignored: not this one


failures:
    c

test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    fn read(output: &str, success: bool) -> Report {
        let mut reader = Reader::default();
        for line in output.lines() {
            reader.line(line);
        }
        reader.end(success)
    }

    fn skip(name: &str, reason: &str) -> Skip {
        Skip {
            name: name.into(),
            reason: reason.into(),
        }
    }

    #[test]
    fn a_skipped_test_has_not_passed() {
        assert_eq!(
            read(OUTPUT, false),
            Report {
                passed: 1,
                failed: 1,
                skipped: vec![skip("m::b", "needs root"), skip("d", "marked #[ignore]")],
            }
        );
    }

    #[test]
    fn only_failures_and_foreign_lines_are_shown() {
        let mut reader = Reader::default();
        let shown: Vec<_> = OUTPUT
            .lines()
            .filter(|line| reader.line(line) == Event::Show)
            .collect();
        assert_eq!(shown.first(), Some(&"failures:"));
        assert!(shown.contains(&"thread 'c' panicked at src/lib.rs:1:1:"));
        assert!(!shown.contains(&"test a ... ok"));
        let mut reader = Reader::default();
        assert_eq!(reader.line("test x::y ... ok"), Event::Ended("x::y", "ok"));
        assert_eq!(reader.line("a word from the program"), Event::Show);
    }

    #[test]
    fn a_program_that_ends_without_a_result_has_failed() {
        assert_eq!(read("running 1 test\n", false).failed, 1, "killed");
        assert_eq!(read("", true).failed, 1, "exited early with code 0");
        assert_eq!(
            read("test result: ok. 0 passed; 0 failed; 0 ignored;", true),
            Report::default()
        );
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let twice = format!("{OUTPUT}{OUTPUT}");
        let report = read(&twice, false);
        assert_eq!(
            (report.passed, report.failed, report.skipped.len()),
            (2, 2, 4)
        );
    }
}
