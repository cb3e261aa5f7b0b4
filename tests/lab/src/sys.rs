//! The laboratory's only unsafe code: what neither the standard library nor nix offers safely.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

/// Makes `command` enter a network namespace between fork and exec.
pub(super) fn enter_before_exec(command: &mut Command, namespace: Arc<File>) {
    let enter = move || setns(&*namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed. It makes one
    // system call on a descriptor that the closure keeps open, and its error conversion does not allocate.
    unsafe { command.pre_exec(enter) };
}

nix::ioctl_write_ptr_bad!(
    /// TUNSETIFF: `_IOW('T', 202, int)` in linux/if_tun.h, although it takes a `struct ifreq`.
    tun_set_interface,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);
nix::ioctl_write_ptr!(
    /// TUNSETCARRIER: linux/if_tun.h, Linux 5.0.
    tun_set_carrier,
    b'T',
    226,
    libc::c_int
);

nix::ioctl_readwrite!(
    /// FITHAW: linux/fs.h. Does not use its argument.
    file_system_thaw,
    b'X',
    120,
    libc::c_int
);

/// Thaws the file system that is mounted where this directory is.
pub(super) fn thaw(mounted: BorrowedFd) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: FITHAW takes a pointer to an int, which outlives the call.
    unsafe { file_system_thaw(mounted.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Makes a tun device (L3, no packet information header) in the calling thread's network namespace. It lives as long as
/// the returned descriptor, which does not block.
pub(super) fn open_tun(name: &str) -> io::Result<OwnedFd> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: ifreq is plain integers and arrays of them, for which all-zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    unsafe { tun_set_interface(device.as_raw_fd(), &raw const request) }?;
    Ok(device.into())
}

/// Gives a tun device carrier, or takes it away.
pub(super) fn set_carrier(tun: BorrowedFd, up: bool) -> io::Result<()> {
    let carrier = libc::c_int::from(up);
    // SAFETY: TUNSETCARRIER reads one int, which outlives the call.
    unsafe { tun_set_carrier(tun.as_raw_fd(), &raw const carrier) }?;
    Ok(())
}

/// Where [`on_signal`] writes.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = u8::try_from(signal).unwrap_or_default();
    let errno = Errno::last_raw();
    // SAFETY: the descriptor was given to this handler for good by `signals_to`, so nobody closes it; write is
    // async-signal-safe, and the interrupted code's errno is put back.
    unsafe {
        libc::write(
            SIGNAL_PIPE.load(Ordering::Relaxed),
            (&raw const byte).cast(),
            1,
        );
    }
    Errno::set_raw(errno);
}

/// From now on SIGINT and SIGTERM do nothing but write their number, as one byte, to `pipe`.
pub(super) fn signals_to(pipe: impl IntoRawFd) -> io::Result<()> {
    SIGNAL_PIPE.store(pipe.into_raw_fd(), Ordering::Relaxed);
    let action = SigAction::new(
        SigHandler::Handler(on_signal),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler makes only async-signal-safe calls, and the pipe it uses is set.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}
