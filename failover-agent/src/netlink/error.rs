//! What can go wrong.

use std::io;

use nix::libc::{EEXIST, ENOENT, ESRCH};
use rtnetlink::packet_core::DecodeError;
use thiserror::Error;

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The kernel has heard what was asked, and does not do it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A system call failed: the kernel may have carried out what it was asked, or not.
    #[error("netlink: {call}")]
    Io {
        /// What was called.
        call: &'static str,
        source: io::Error,
    },
    /// The kernel took a part of the requests only.
    #[error("netlink: sent {sent} of {length} bytes")]
    Truncated {
        /// In bytes.
        sent: usize,
        /// Of all requests, in bytes.
        length: usize,
    },
    /// What the kernel has sent cannot be read.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// A list was another one each time that it was read.
    #[error("the kernel's list changes faster than it can be read")]
    Unsteady,
}

impl Error {
    /// The kernel's refusal; None if netlink itself has failed.
    pub(crate) fn refused(&self) -> Option<&Refused> {
        match self {
            Error::Refused(refused) => Some(refused),
            _ => None,
        }
    }
}

/// The kernel refused a request.
#[derive(Debug, Error)]
#[error("{}{}", io::Error::from_raw_os_error(*errno), message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
pub(crate) struct Refused {
    /// Positive error number.
    pub(crate) errno: i32,
    /// What the kernel says about it.
    pub(crate) message: Option<String>,
}

impl Refused {
    /// What was to be added is there already.
    pub(crate) fn exists(&self) -> bool {
        self.errno == EEXIST
    }

    /// What was to be removed is not there (any more).
    pub(crate) fn missing(&self) -> bool {
        self.errno == ESRCH || self.errno == ENOENT
    }
}
