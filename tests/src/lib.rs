//! What the scenarios of `tests/` share: [`fixtures`]. On x86_64 `inject` lets single system calls of the agent fail.
pub mod fixtures;
#[cfg(target_arch = "x86_64")]
pub mod inject;
