//! failover-agent keeps a Linux host or router online over several uplinks.
pub mod config;
pub mod failure;
pub mod policy;
pub mod route;
