//! failover-agent keeps a Linux host or router online over several uplinks.
pub mod cli;
pub mod config;
pub mod control;
pub mod failure;
pub mod logging;
pub mod policy;
