//! Edge: the kernel's routing. Learns what is there, prepares a routing table and rules for each uplink, switches the
//! default route, and gives everything back.
//!
//! Ownership: every route of ours bears `route.protocol`, every rule that number and a priority from
//! `route.rule_priority` on (192 of them), every nexthop object that number and an id from `route.table` on.
//! Nothing else is ever changed or removed, with two exceptions. Default routes of the uplinks whose metric beats or ties with
//! ours, and those of withdrawn uplinks, are *displaced*: recorded first, removed only when ours stand confirmed, and put
//! back by [`Router::restore`] or [`reset`]. So is the kernel's multipath hash policy, as soon as there is a balance group.
//!
//! `sync.rs` is the door: how links are taken over and everything is brought in line with them.
//!
//! | folder | concern |
//! |---|---|
//! | `wire` | netlink messages to plain types, and back |
//! | `learn` | what is there: interfaces, addresses, the uplinks' egress paths |
//! | `watch` | the kernel's notifications: what wakes the agent, and who made a change |
//! | `install` | what is wanted, and how it gets into the kernel and out again |
//!
//! Files use those of folders above their own only: `wire`, then `learn` and `watch` beside each other, then `install`. What
//! the router is made of comes together in `router.rs`.

mod error;
mod install;
mod learn;
mod link;
mod numbers;
mod router;
mod sync;
mod watch;
mod wire;

pub(crate) use self::learn::{inspect, lookup, others};
pub use self::{
    install::{
        foreign::{Effect, ForeignDefault},
        neighbour::Neighbour,
        report::{Confirmed, Report},
        restore::reset,
    },
    link::{EgressPath, Link, Template},
    router::Router,
    sync::{Aligned, Scan, Started},
    watch::{
        actor::{Actor, Origin, protocol_name},
        change::Change,
        observe::Observer,
    },
    wire::done::{Done, Object, Verb},
};
