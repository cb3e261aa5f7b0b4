//! What a change of the kernel's routing came to.

use std::time::Duration;

#[cfg(doc)]
use crate::route::Router;
use crate::route::wire::done::Done;

/// A switch that has been read back from the kernel. Durations count from the call of [`Router::activate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// From here on new connections leave by the new uplink: the kernel has accepted its route, and one with a better metric,
    /// if the old uplink had one, is gone. The latter is after [`Confirmed::confirmed`].
    pub routed: Duration,
    /// The new routes have been read back.
    pub confirmed: Duration,
    /// Superfluous and displaced routes are gone.
    pub settled: Duration,
    /// Others' routes had to make way: scan again. Between the nexthops of an IPv6 multipath route may be one without a gateway, which the
    /// kernel does not list as long as they stand (`fib6_dump_node` in `net/ipv6/ip6_fib.c` goes on behind the last nexthop).
    pub displaced: bool,
    /// What was changed.
    pub changes: Vec<Done>,
    /// What could not be done without endangering the switch itself, one line each: a standby whose interface is down, a group
    /// that the kernel does not take (reported once).
    pub problems: Vec<String>,
}

/// What was done, and what could not be done, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Done.
    pub changes: Vec<Done>,
    /// Not done, and why.
    pub problems: Vec<String>,
    /// Displaced routes that cannot come back, because what they led to is gone: nothing that could be done.
    pub obsolete: Vec<String>,
    /// As [`Confirmed::displaced`].
    pub displaced: bool,
}
