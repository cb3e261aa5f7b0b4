//! A program's output is logged line by line, up to a number of lines and a length; the rest is counted. Reading it never blocks the agent.

use std::time::Duration;

use tokio::{io::AsyncReadExt as _, net::unix::pipe};
use tracing::{info, warn};

/// Lines of one run that are logged.
pub(super) const MAX_LINES: u64 = 200;

/// Bytes of a line that are logged.
pub(super) const MAX_LINE: usize = 500;

/// Bytes per read: what a pipe holds.
const CHUNK: usize = 64 * 1024;

/// Pause between two reads of output that is only counted: a program that writes as fast as it can must not take the processor from the
/// probes.
const PAUSE: Duration = Duration::from_millis(2);

/// The reading end of a program's standard output and error.
pub(super) struct Output {
    name: String,
    pipe: pipe::Receiver,
    buffer: Box<[u8]>,
    lines: Lines,
}

impl Output {
    /// The output of the program called `name`. Must be called within a tokio runtime.
    pub(super) fn new(name: &str, pipe: std::io::PipeReader) -> std::io::Result<Self> {
        Ok(Output {
            name: name.to_owned(),
            pipe: pipe::Receiver::from_owned_fd(pipe.into())?,
            buffer: vec![0; CHUNK].into(),
            lines: Lines::default(),
        })
    }

    /// Logs until no process has the writing end open.
    pub(super) async fn follow(&mut self) {
        loop {
            match self.pipe.read(&mut self.buffer).await {
                Ok(0) => return,
                Ok(length) => self.log(length),
                Err(error) => {
                    warn!("{}: its output cannot be read: {error}", self.name);
                    return;
                }
            }
            if self.lines.lines >= MAX_LINES {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Logs what is left, and how much was not logged.
    pub(super) fn finish(mut self) {
        // A process that has left the group may keep writing. One pipeful is all that the program itself can have left.
        if let Ok(length) = self.pipe.try_read(&mut self.buffer) {
            self.log(length);
        }
        let name = &self.name;
        self.lines.end(|line| log(name, line));
        let unlogged = self.lines.lines.saturating_sub(MAX_LINES);
        if unlogged > 0 {
            info!(
                hook = name,
                lines = self.lines.lines,
                bytes = self.lines.bytes,
                "{name}: {unlogged} more lines are not logged ({} bytes in all)",
                self.lines.bytes,
            );
        }
    }

    fn log(&mut self, length: usize) {
        let name = &self.name;
        self.lines
            .take(&self.buffer[..length], |line| log(name, line));
    }
}

fn log(name: &str, line: &str) {
    info!(hook = name, "{name}: {line}");
}

/// Splits bytes into lines of bounded length and number.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not been read yet.
    begun: Vec<u8>,
    /// Length of that line so far, in bytes.
    length: usize,
    lines: u64,
    bytes: u64,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut emit: impl FnMut(&str)) {
        self.bytes += bytes.len() as u64;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            if self.lines < MAX_LINES {
                let room = MAX_LINE.saturating_sub(self.begun.len());
                self.begun.extend_from_slice(&text[..text.len().min(room)]);
            }
            self.length += text.len();
            if ended {
                self.end_line(&mut emit);
            }
        }
    }

    /// Emits the last line, which may lack a line end.
    fn end(&mut self, mut emit: impl FnMut(&str)) {
        if self.length > 0 {
            self.end_line(&mut emit);
        }
    }

    fn end_line(&mut self, emit: &mut impl FnMut(&str)) {
        if self.lines < MAX_LINES {
            emit(&printable(&self.begun, self.length));
        }
        self.lines += 1;
        self.begun.clear();
        self.length = 0;
    }
}

/// A line as text without control characters, which could forge or garble the log. `length` is that of the whole line in bytes.
fn printable(line: &[u8], length: usize) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r').chars();
    let mut text: String = text
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect();
    if length > line.len() {
        text.push_str(&format!("… ({} bytes more)", length - line.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> (Vec<String>, Lines) {
        let (mut lines, mut emitted) = (Lines::default(), Vec::new());
        for part in parts {
            lines.take(part, |line| emitted.push(line.to_owned()));
        }
        lines.end(|line| emitted.push(line.to_owned()));
        (emitted, lines)
    }

    #[test]
    fn lines_are_put_together_and_made_printable() {
        let (emitted, _) = lines(&[b"one\ntw", b"o\r\n\n", b"a\tb\x1b[2J\xff\n", b"last"]);
        assert_eq!(
            emitted,
            ["one", "two", "", "a b\u{fffd}[2J\u{fffd}", "last"]
        );
    }

    #[test]
    fn a_long_line_is_cut_and_an_endless_one_is_not_kept() {
        let part = [b'x'; 3000];
        let mut cut = Lines::default();
        for _ in 0..10 {
            cut.take(&part, |line| panic!("{line}"));
        }
        assert_eq!(cut.begun.len(), MAX_LINE);
        let mut emitted = Vec::new();
        cut.take(b"\nnext\n", |line| emitted.push(line.to_owned()));
        let expected = format!("{}… (29500 bytes more)", "x".repeat(MAX_LINE));
        assert_eq!(emitted, [expected.as_str(), "next"]);
    }

    #[test]
    fn so_many_lines_are_emitted_and_all_are_counted() {
        let text = "line\n".repeat(1000);
        let (emitted, lines) = lines(&[text.as_bytes(), b"unended"]);
        assert_eq!(emitted.len() as u64, MAX_LINES);
        assert_eq!((lines.lines, lines.bytes), (1001, 5007));
        assert!(lines.begun.is_empty());
    }
}
