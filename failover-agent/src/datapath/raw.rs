//! System calls that aya does not offer. The datapath's only unsafe code.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::bpf_cmd;
use nix::libc;
use tokio::io::{Interest, unix::AsyncFd};

/// Lets the runtime wait until `ring` has something to read.
///
/// # Errors
///
/// The runtime cannot watch it.
pub(super) fn readable<T: AsRawFd>(ring: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: everything passed here owns its map, and with it the descriptor, until the AsyncFd drops it.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Opens the object that is pinned at `path`, whatever its kind.
///
/// # Errors
///
/// Nothing is pinned there; the kernel refuses.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that the command reads.
    #[repr(C)]
    struct Attributes {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes {
        pathname: path.as_ptr().expose_provenance() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the attributes live until the call returns, and so does the path that they point to.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &attributes) }?;
    // SAFETY: the kernel has just opened the descriptor for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link's program from its interface at once; the link then refers to no interface.
///
/// # Errors
///
/// It is not a link, or the kernel refuses.
pub(super) fn detach(link: &OwnedFd) -> io::Result<()> {
    /// The part of `union bpf_attr` that the command reads.
    #[repr(C)]
    struct Attributes {
        link_fd: RawFd,
    }
    let attributes = Attributes {
        link_fd: link.as_raw_fd(),
    };
    // SAFETY: the attributes live until the call returns, and the descriptor is open.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &attributes) }.map(drop)
}

/// `bpf(2)`.
///
/// # Safety
///
/// `attributes` must be the part of `union bpf_attr` that the command reads, and its pointers must be valid.
unsafe fn bpf<T>(command: bpf_cmd, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the caller's promise; the kernel reads no more than the size that it is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    RawFd::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}
