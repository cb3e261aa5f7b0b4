//! What the observer reports.

use std::net::IpAddr;

use failover_policy::Family;

use super::actor::{Actor, Origin};
use crate::route::wire::done::Object;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The kernel reports an uplink's interface. Its carrier may be what it was: the owner of the links knows whether that is news. The kernel
    /// reports a carrier late, and not at all of one that came back in the meantime (`linkwatch_schedule_work` in
    /// `net/core/link_watch.c`): a scan may have seen it gone, and its return must be news.
    Link {
        /// Interface index.
        ifindex: u32,
        /// Interface name.
        name: String,
        /// Whether it is up and has carrier.
        carrier: bool,
        /// Whether it is gone (removed, renamed, or moved to another namespace).
        gone: bool,
        /// Whether it has appeared, is another one than before, or went: what was let pass of it begins here.
        replaced: bool,
    },
    /// An uplink got or lost an address, or one became usable or deprecated.
    Address {
        /// Interface index.
        ifindex: u32,
        /// The address's family.
        family: Family,
    },
    /// Another program added, replaced or removed a route to something on an uplink's link, by which a gateway may be reached.
    Near {
        /// Interface index.
        ifindex: u32,
        /// The route's family.
        family: Family,
    },
    /// Another program added, replaced or removed a default route, in any table, or a route that bears our protocol number.
    Route {
        /// The route's family.
        family: Family,
        /// Whether it bears our protocol number.
        ours: bool,
        /// Whether it was removed.
        removed: bool,
        /// Who did it.
        by: Actor,
        /// The route.
        object: Object,
    },
    /// Another program removed a rule with our protocol number.
    Rule {
        /// The rule's family.
        family: Family,
        /// Who did it.
        by: Actor,
        /// The rule.
        object: Object,
    },
    /// Another program removed a nexthop object with our protocol number. The IPv4 routes by it go with it, without a notification of
    /// their own (`fib_table_flush` in `net/ipv4/fib_trie.c`).
    Nexthop {
        /// Who did it.
        by: Actor,
        /// The object.
        object: Object,
    },
    /// A neighbour on an uplink does not answer: the kernel has given up asking for its link-layer address (`NUD_FAILED`).
    Neighbour {
        /// Interface index.
        ifindex: u32,
        /// The neighbour's address.
        address: IpAddr,
    },
    /// Another program removed a qdisc or a filter from an uplink's interface.
    Programs {
        /// Interface index.
        ifindex: u32,
        /// Who did it.
        by: Origin,
    },
    /// Notifications were lost: anything may have changed.
    Resync,
}
