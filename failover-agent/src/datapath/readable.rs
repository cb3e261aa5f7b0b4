//! Waiting for ring buffers. The datapath's one place with unsafe code.

use std::{io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Lets the runtime wait until `ring` has something to read.
///
/// # Errors
///
/// The runtime cannot watch it.
pub(super) fn readable<T: AsRawFd>(ring: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: all that is passed here owns its map, and with it the descriptor, until the AsyncFd drops it.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
