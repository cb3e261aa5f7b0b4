//! The injector's only unsafe code: what neither the standard library nor nix offers safely.

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::{
    libc,
    unistd::{Pid, getpid},
};

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// `AUDIT_ARCH_X86_64` (linux/audit.h).
const X86_64: u32 = 0xc000_003e;

/// Has `command` write its process number to `hello` before the program begins, wait for a byte from `go`, and stop at each of these
/// system calls from then on.
///
/// To be the last of the command's preparations: a stopping call without a tracer is refused with ENOSYS.
pub(super) fn trace_from_exec(
    command: &mut Command,
    calls: &[libc::c_long],
    mut hello: PipeWriter,
    mut go: PipeReader,
) -> io::Result<()> {
    let mut filter = stop_at(calls)?;
    let prepare = move || {
        hello.write_all(&getpid().as_raw().to_ne_bytes())?;
        go.read_exact(&mut [0])?;
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap_or(u16::MAX),
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the kernel copies the program during the call, and the vector that it lies in outlives the call.
        let set = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            )
        };
        if set == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed. It makes four system calls and
    // allocates nothing.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// The seccomp filter: tracer's stop for these calls, everything else passes.
fn stop_at(calls: &[libc::c_long]) -> io::Result<Vec<libc::sock_filter>> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let code = |code: u32| u16::try_from(code).map_err(invalid);
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS)?;
    let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K)?;
    let end = code(libc::BPF_RET | libc::BPF_K)?;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let count = u8::try_from(calls.len()).map_err(invalid)?;
    let mut filter = vec![
        step(load, ARCHITECTURE, 0, 0),
        step(equal, X86_64, 1, 0),
        step(end, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(load, NUMBER, 0, 0),
    ];
    for (place, call) in (0..count).zip(calls) {
        let number = u32::try_from(*call).map_err(invalid)?;
        // Over the remaining comparisons and the passing return.
        filter.push(step(equal, number, count - place, 0));
    }
    filter.push(step(end, libc::SECCOMP_RET_ALLOW, 0, 0));
    filter.push(step(end, libc::SECCOMP_RET_TRACE, 0, 0));
    Ok(filter)
}

/// A descriptor of a process, for [`duplicate`].
pub(super) fn open_process(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// The same open file as another process's descriptor.
pub(super) fn duplicate(process: &OwnedFd, descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_getfd takes three integers and touches no memory of ours.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, so no other owner closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
