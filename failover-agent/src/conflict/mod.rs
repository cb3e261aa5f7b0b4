//! Route conflicts: another program repeatedly undoes what the agent has done to routes and rules.
//!
//! | file | concern |
//! |---|---|
//! | `contender.rs` | which program it is, and the remedy: the setting that makes it leave ours alone |
//! | `history.rs` | how often it happened, when that is a conflict, and how often it is reported: pure |

mod contender;
mod history;

pub use self::contender::{ConflictKind, Contender};
pub(crate) use self::history::{ConflictKey, Conflicts};
