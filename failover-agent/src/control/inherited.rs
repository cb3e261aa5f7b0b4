//! Descriptors that the previous program in this process left open for this one. The control edge's only unsafe code.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

/// Standard input, output and error.
const STANDARD: RawFd = 2;

/// The descriptor that was left open for the same file as `file`; `None` if there is none. It is closed on the next `execve` again.
///
/// # Errors
///
/// `/proc` is not mounted, or the kernel refuses.
pub(super) fn find(file: &File) -> io::Result<Option<File>> {
    let wanted = file.metadata()?;
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // A descriptor that another thread has closed meanwhile is skipped.
        let Ok(found) = fs::metadata(format!("/proc/self/fd/{number}")) else {
            continue;
        };
        let same = (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
        if !same || number <= STANDARD || number == file.as_raw_fd() || closes_on_exec(number)? {
            continue;
        }
        // SAFETY: the descriptor is open. Everything that this program opens closes on exec, so nothing in it owns this descriptor; from
        // here on, the file does.
        let left = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl(&left, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        return Ok(Some(File::from(left)));
    }
    Ok(None)
}

/// Whether the descriptor closes on exec, from `/proc/self/fdinfo`, where the flags are octal.
fn closes_on_exec(number: RawFd) -> io::Result<bool> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    Ok(flags.is_none_or(|flags| flags & OFlag::O_CLOEXEC.bits() != 0))
}
