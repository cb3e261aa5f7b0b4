//! The routing edge against a real kernel, in network namespaces; read back with `ip`.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod discover;
mod learn;
mod neighbour;
mod netns;
mod observe;
mod restore;
mod scene;
mod switch;
