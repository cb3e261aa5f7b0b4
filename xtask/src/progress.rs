//! Long commands: one line of progress while they run, all of their output if they fail.

use std::{
    io::{BufRead, BufReader, IsTerminal, Write, pipe, stderr},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How often a log, which keeps every line, hears that work goes on.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Columns of a progress line: it must not wrap, or it could not be overwritten.
const WIDTH: usize = 76;

/// Runs a command, showing the elapsed seconds and its latest line of output on stderr.
///
/// # Errors
/// When it cannot be started or fails; then everything it said has been shown.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let (reader, writer) = pipe().context("cannot make a pipe")?;
    command
        .stdin(Stdio::inherit())
        .stdout(writer.try_clone().context("cannot share a pipe")?)
        .stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    // The command holds the pipe's writing end too, and the reader below would never see its end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut line = Line::start();
    let mut output = Vec::new();
    for text in BufReader::new(reader).lines() {
        let text = text.with_context(|| format!("cannot read the output of {program}"))?;
        line.show(&text);
        output.push(text);
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {program}"))?;
    line.end(status.success());
    if !status.success() {
        for text in output {
            eprintln!("    {text}");
        }
        bail!("{program} failed ({status})");
    }
    Ok(())
}

struct Line {
    started: Instant,
    terminal: bool,
    next_log: Duration,
}

impl Line {
    fn start() -> Self {
        Self {
            started: Instant::now(),
            terminal: stderr().is_terminal(),
            next_log: LOG_EVERY,
        }
    }

    fn show(&mut self, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let elapsed = self.started.elapsed();
        let line: String = format!("    {:>3} s  {text}", elapsed.as_secs())
            .chars()
            .take(WIDTH)
            .collect();
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            // Progress that cannot be shown must not stop the work.
            drop(stderr().flush());
        } else if elapsed >= self.next_log {
            self.next_log = elapsed + LOG_EVERY;
            eprintln!("{line}");
        }
    }

    fn end(&self, success: bool) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let word = if success { "done" } else { "FAILED" };
        eprintln!(
            "{clear}    {word} in {:.1} s",
            self.started.elapsed().as_secs_f64()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::process::Command;

    #[test]
    fn the_exit_code_decides() {
        assert!(run(&mut Command::new("true")).is_ok());
        let error = run(Command::new("sh").args(["-c", "echo why; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sh failed") && error.contains('3'),
            "{error}"
        );
        let error = run(&mut Command::new("/nonexistent/program"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot start"), "{error}");
    }
}
