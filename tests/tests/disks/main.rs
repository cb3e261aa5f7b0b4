//! Disks that are full, read-only, frozen, and files that are not what they should be: a failover happens all the same, and a stop gives
//! everything back.

mod fixtures;
mod hanging;
mod records;
mod refusing;
