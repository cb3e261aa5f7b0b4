//! failover-agent keeps a Linux host or router online over several uplinks.
pub mod clock;
pub mod config;
pub mod datapath;
pub mod failure;
pub mod policy;
pub mod probe;
pub mod route;
