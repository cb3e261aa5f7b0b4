//! Netlink messages to plain types, and back.
//!
//! | file | concern |
//! |---|---|
//! | `list.rs` | lists of routes, rules and others |
//! | `message.rs` | reading and building route messages |
//! | `interface.rs` | altnames and VRFs of interfaces |
//! | `nexthop.rs` | nexthop objects |
//! | `done.rs` | what was done, as a value |

pub(crate) mod done;
pub(crate) mod interface;
pub(crate) mod list;
pub(crate) mod message;
pub(crate) mod nexthop;
