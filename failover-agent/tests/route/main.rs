//! The routing edge against a real kernel, in network namespaces; read back with `ip`.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod beside;
mod discover;
mod fixtures;
mod flows;
mod groups;
mod learn;
mod metrics;
#[path = "../common/namespaces.rs"]
mod namespaces;
mod neighbour;
mod netns;
mod observe;
mod poller;
mod restore;
mod slots;
mod states;
mod switch;
mod ways;
