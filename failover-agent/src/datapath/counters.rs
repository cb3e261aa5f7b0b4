//! What the programs have counted.

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapError, PerCpuHashMap, PerCpuValues};
use failover_ebpf::Counters;

/// The map of counters, by interface index.
pub(super) struct Map(PerCpuHashMap<MapData, u32, Counters>);

impl Map {
    pub(super) fn new(map: aya::maps::Map) -> Result<Map> {
        Ok(Map(map.try_into()?))
    }

    /// Creates an uplink's counters; existing ones stay.
    pub(super) fn ensure(&mut self, ifindex: u32) -> Result<()> {
        if self.get(ifindex)?.is_some() {
            return Ok(());
        }
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| error)
            .context("counting the CPUs")?;
        let zeros = PerCpuValues::try_from(vec![Counters::default(); cpus])?;
        self.0
            .insert(ifindex, zeros, 0)
            .with_context(|| format!("making the counters of interface {ifindex}"))
    }

    /// Whether the programs have counters for an interface; without them they pass everything.
    pub(super) fn has(&self, ifindex: u32) -> Result<bool> {
        Ok(self.get(ifindex)?.is_some())
    }

    pub(super) fn forget(&mut self, ifindex: u32) -> Result<()> {
        match self.0.remove(&ifindex) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("removing the counters of interface {ifindex}"))
            }
        }
    }

    pub(super) fn sum(&self, ifindex: u32) -> Result<Counters> {
        let values = self.get(ifindex)?;
        Ok(values
            .iter()
            .flat_map(|values| values.iter())
            .fold(Counters::default(), add))
    }

    fn get(&self, ifindex: u32) -> Result<Option<PerCpuValues<Counters>>> {
        match self.0.get(&ifindex, 0) {
            Ok(values) => Ok(Some(values)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("reading the counters of interface {ifindex}"))
            }
        }
    }
}

fn add(sum: Counters, cpu: &Counters) -> Counters {
    Counters {
        tx_packets: sum.tx_packets + cpu.tx_packets,
        tx_bytes: sum.tx_bytes + cpu.tx_bytes,
        rx_packets: sum.rx_packets + cpu.rx_packets,
        rx_bytes: sum.rx_bytes + cpu.rx_bytes,
        cut_packets: sum.cut_packets + cpu.cut_packets,
        cut_bytes: sum.cut_bytes + cpu.cut_bytes,
        probes_passed: sum.probes_passed + cpu.probes_passed,
        probes_cut: sum.probes_cut + cpu.probes_cut,
        last_rx_ns: sum.last_rx_ns.max(cpu.last_rx_ns),
        cut_logged_ns: sum.cut_logged_ns.max(cpu.cut_logged_ns),
        resets_sent: sum.resets_sent + cpu.resets_sent,
        icmp_sent: sum.icmp_sent + cpu.icmp_sent,
        dropped: sum.dropped + cpu.dropped,
        stale_cut: sum.stale_cut + cpu.stale_cut,
    }
}
