//! Standard output of the verbs that print an answer. If the reader closes the pipe (`| head`), the program ends as other programs do, by
//! `SIGPIPE`. Standard Rust ignores that signal, which the sockets of the control client rely on.

use std::{
    fmt,
    io::{self, Write as _},
    process,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, raise, sigaction,
};

/// The exit code that a shell reports for an end by `SIGPIPE`.
const BY_SIGPIPE: i32 = 128 + Signal::SIGPIPE as i32;

/// Writes a text as it is. Ends the process if the reader has closed the pipe.
///
/// # Errors
///
/// Writing fails for another reason, a full disk for example.
pub(crate) fn print(text: impl fmt::Display) -> Result<()> {
    let mut stdout = io::stdout();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => end(),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes a line, as [`print()`] does.
///
/// # Errors
///
/// As for [`print()`].
pub(crate) fn print_line(line: impl fmt::Display) -> Result<()> {
    print(format_args!("{line}\n"))
}

/// Writes a line if it can be written; an error is ignored, since the work that follows matters more.
pub(crate) fn try_line(line: impl fmt::Display) {
    writeln!(io::stdout(), "{line}").ok();
}

fn end() -> ! {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler of ours runs, since the default action is the kernel's.
    let restored = unsafe { sigaction(Signal::SIGPIPE, &default) };
    let unblocked = SigSet::from(Signal::SIGPIPE).thread_swap_mask(SigmaskHow::SIG_UNBLOCK);
    if restored.is_ok() && unblocked.is_ok() {
        raise(Signal::SIGPIPE).ok();
    }
    process::exit(BY_SIGPIPE)
}
