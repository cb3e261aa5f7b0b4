//! What the scenarios of `tests/` share: [`scene`]. On x86_64 `inject` lets single system calls of the agent fail.
#[cfg(target_arch = "x86_64")]
pub mod inject;
pub mod scene;
