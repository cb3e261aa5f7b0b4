//! What the connections of multipath routes are distinguished by: the host's setting.

use std::{fs, io};

use failover_policy::Family;

/// The setting of a family as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashSetting {
    /// 0 and 2 look at addresses only, 1 at ports, too, 3 at what an administrator has chosen.
    pub(crate) value: u32,
    /// Whether it can be set: not in most containers.
    pub(crate) settable: bool,
}

impl HashSetting {
    /// Reads it; None where there is none (a kernel without IPv6).
    pub(crate) fn of(family: Family) -> Option<HashSetting> {
        let value = read(family).ok()?;
        // Opening it changes nothing.
        let settable = fs::OpenOptions::new()
            .write(true)
            .open(path(family))
            .is_ok();
        Some(HashSetting { value, settable })
    }
}

/// `/proc/sys/net` is that of the calling thread's network namespace.
pub(crate) fn path(family: Family) -> &'static str {
    match family {
        Family::V4 => "/proc/sys/net/ipv4/fib_multipath_hash_policy",
        Family::V6 => "/proc/sys/net/ipv6/fib_multipath_hash_policy",
    }
}

/// The setting's value.
///
/// # Errors
/// There is none, or it is no number.
pub(crate) fn read(family: Family) -> io::Result<u32> {
    let text = fs::read_to_string(path(family))?;
    text.trim().parse().map_err(io::Error::other)
}
