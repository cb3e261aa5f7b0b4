//! What the scenarios of all families share: how an agent is set up to decide quickly, and how to wait for what it is to do.
//!
//! Each file is about one thing that is looked at: the [`Status`](failover_agent::control::Status) in its types, the same as the
//! [`json`] that users see, the agent's log, the kernel's tables, the gates, and the files of scripts. What only one family needs stays there.

mod cut;
mod everything;
mod files;
pub mod json;
mod log;
mod probe;
mod process;
mod start;
mod status;
mod tables;
mod times;

use std::time::Duration;

pub use cut::{FORCED, ensure_cut};
pub use everything::Everything;
pub use files::{script, wait_for_file};
pub use log::{history, message, text, times, wait_for_history, wait_words};
pub use probe::{target, wait_for_probes};
pub use process::{stop, wait_sent};
pub use start::{start, start_with};
pub use status::{
    counters, gate, has_health, state, status, uplink, wait_for_active, wait_for_health,
    wait_for_status,
};
pub use tables::{OURS, default_routes, rule_sources};
pub use times::{BLUR, ensure_times, time};

/// Long enough for everything that is to happen, even on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
