//! failover-agent in the laboratory of [`failover_lab`]: what the scenarios of `tests/` share ([`scene`]), the demonstration
//! ([`demo`]) and the benchmark ([`mod@bench`]). On x86_64 `inject` lets single system calls of the agent fail.
pub mod bench;
pub mod demo;
#[cfg(target_arch = "x86_64")]
pub mod inject;
pub mod scene;
