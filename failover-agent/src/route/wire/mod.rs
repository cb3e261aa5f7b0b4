//! Netlink messages to plain types, and back.
//!
//! | file | concern |
//! |---|---|
//! | `list.rs` | lists of routes, rules and others |
//! | `message/` | route messages: read, built, compared, put into words |
//! | `address.rs` | addresses of interfaces |
//! | `interface.rs` | altnames and VRFs of interfaces |
//! | `rule.rs` | routing rules |
//! | `nexthop.rs` | nexthop objects |
//! | `hex.rs` | messages as the files hold them |
//! | `done.rs` | what was done, as a value |

pub(crate) mod address;
pub(crate) mod done;
pub(crate) mod hex;
pub(crate) mod interface;
pub(crate) mod list;
pub(crate) mod message;
pub(crate) mod nexthop;
pub(crate) mod rule;
