//! An XDP program that lets everything pass, loaded by hand: aya loads only what a compiler has made.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::{libc, net::if_::if_nametoindex};

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// include/uapi/linux/if_link.h: without the driver's help.
const XDP_FLAGS_SKB_MODE: u32 = 2;

/// `r0 = XDP_PASS; exit`
static PROGRAM: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
static LICENSE: &core::ffi::CStr = c"GPL";

/// The first fields of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes the rest for zeros.
#[repr(C)]
struct Load {
    kind: u32,
    length: u32,
    instructions: u64,
    license: u64,
}

/// The same for BPF_LINK_CREATE.
#[repr(C)]
struct Create {
    program: i32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches the program to an interface of the calling thread's namespace, until the link is dropped.
pub(crate) fn attach(interface: &str) -> Result<OwnedFd> {
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        length: u32::try_from(PROGRAM.len())?,
        instructions: PROGRAM.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
    };
    // SAFETY: the pointers in `load` lead to statics of the lengths that it says.
    let program = unsafe { bpf(BPF_PROG_LOAD, &load) }.context("loading an XDP program")?;
    let create = Create {
        program: program.as_raw_fd(),
        ifindex: if_nametoindex(interface)?,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_SKB_MODE,
    };
    // SAFETY: there are no pointers in `create`.
    unsafe { bpf(BPF_LINK_CREATE, &create) }.context("attaching an XDP program")
}

/// A command that makes something.
///
/// # Safety
/// Pointers in `attributes` must be good for what the command does with them.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attributes`; for pointers in there our caller answers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        // SAFETY: a descriptor that the kernel has just made for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
