//! The kernel's notifications.
//!
//! | file | concern |
//! |---|---|
//! | `observe.rs`, `change.rs` | the notifications, as plain values |
//! | `filter.rs` | which of them wake the agent |
//! | `actor.rs` | who made a change |

pub(crate) mod actor;
pub(crate) mod change;
pub(crate) mod filter;
pub(crate) mod observe;
