//! What is wanted, and how it gets into the kernel and out again.
//!
//! | file | concern |
//! |---|---|
//! | `table.rs` | routing tables and rules of the uplinks |
//! | `plan.rs` | which default routes are wanted: pure |
//! | `own.rs` | our default routes as messages |
//! | `foreign.rs` | default routes of others that stay, and what they mean for ours |
//! | `transaction/` | the switch: make before break in the main table, with its undo |
//! | `place.rs` | how one of our routes gets its place there: pure |
//! | `group.rs` | balance groups, and the nexthop objects that they are made of |
//! | `hash.rs` | what a group's connections are distinguished by |
//! | `neighbour.rs` | the gateways' link-layer addresses, before they are needed |
//! | `displaced.rs`, `entry.rs` | the record of foreign routes that made way, and when it is outdated |
//! | `restore.rs` | giving everything back |
//! | `report.rs` | what a change came to |

pub(crate) mod displaced;
pub(crate) mod entry;
pub(crate) mod foreign;
pub(crate) mod group;
pub(crate) mod hash;
pub(crate) mod neighbour;
pub(crate) mod own;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod table;
mod transaction;
