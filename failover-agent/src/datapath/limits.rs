//! The token buckets of ICMP errors and events. The programs fill and empty them.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use failover_ebpf::Limits;

/// The map of buckets, by interface index.
pub(super) struct Map(HashMap<MapData, u32, Limits>);

impl Map {
    pub(super) fn new(map: aya::maps::Map) -> Result<Map> {
        Ok(Map(map.try_into()?))
    }

    /// Creates an uplink's buckets, or empties them: the programs fill them within a second.
    pub(super) fn ensure(&mut self, ifindex: u32) -> Result<()> {
        self.0
            .insert(ifindex, Limits::default(), 0)
            .with_context(|| format!("making the limits of interface {ifindex}"))
    }

    pub(super) fn forget(&mut self, ifindex: u32) -> Result<()> {
        match self.0.remove(&ifindex) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("removing the limits of interface {ifindex}"))
            }
        }
    }
}
