//! The kernel's notifications.
//!
//! | file | concern |
//! |---|---|
//! | `observe.rs` | the stream of them: subscription, overruns, failures |
//! | `filter.rs` | which of them wake the agent |
//! | `notification.rs` | what one of them changes |
//! | `change.rs` | a change, as a plain value |
//! | `actor.rs` | who made a change |

pub(crate) mod actor;
pub(crate) mod change;
pub(crate) mod filter;
mod notification;
pub(crate) mod observe;
