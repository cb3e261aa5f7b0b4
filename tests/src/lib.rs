//! The laboratory in which failover-agent is tried out: a host with several uplinks, their providers, an
//! internet and a client, all in network namespaces of one machine.
//!
//! The scenario tests, the demonstration and the benchmark are written with it. See [`lab`], [`scene`], [`demo`] and [`mod@bench`].
//! On x86_64 `inject` lets single system calls of the agent fail in it.
pub mod bench;
pub mod demo;
#[cfg(target_arch = "x86_64")]
pub mod inject;
pub mod lab;
pub mod scene;
