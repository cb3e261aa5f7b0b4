//! Gates and their lease.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use failover_ebpf::{ABI_VERSION, CutMode, Gate, MAX_MARKS, Uplink};
use nix::time::{ClockId, clock_gettime};

use failover_policy::{Family, PerFamily};

/// The map of uplinks, by interface index.
pub(super) struct Uplinks(HashMap<MapData, u32, Uplink>);

impl Uplinks {
    pub(super) fn new(map: Map) -> Result<Uplinks> {
        Ok(Uplinks(map.try_into()?))
    }

    pub(super) fn get(&self, ifindex: u32) -> Result<Option<Uplink>> {
        match self.0.get(&ifindex, 0) {
            Ok(uplink) => Ok(Some(uplink)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("reading the gates of interface {ifindex}"))
            }
        }
    }

    pub(super) fn set(&mut self, ifindex: u32, uplink: Uplink) -> Result<()> {
        self.0
            .insert(ifindex, uplink, 0)
            .with_context(|| format!("setting the gates of interface {ifindex}"))
    }

    pub(super) fn forget(&mut self, ifindex: u32) -> Result<()> {
        match self.0.remove(&ifindex) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("removing the gates of interface {ifindex}"))
            }
        }
    }

    pub(super) fn ifindexes(&self) -> Result<Vec<u32>> {
        self.0
            .keys()
            .collect::<Result<_, _>>()
            .context("listing the uplinks")
    }

    pub(super) fn set_gate(&mut self, ifindex: u32, family: Family, gate: Gate) -> Result<()> {
        self.change(ifindex, |uplink| {
            *match family {
                Family::V4 => &mut uplink.gate_ipv4,
                Family::V6 => &mut uplink.gate_ipv6,
            } = gate;
        })
    }

    pub(super) fn set_cut_mode(
        &mut self,
        ifindex: u32,
        family: Family,
        mode: CutMode,
    ) -> Result<()> {
        self.change(ifindex, |uplink| {
            *match family {
                Family::V4 => &mut uplink.cut_mode_ipv4,
                Family::V6 => &mut uplink.cut_mode_ipv6,
            } = mode;
        })
    }

    /// Changes some of what the programs know about an attached uplink.
    pub(super) fn change(&mut self, ifindex: u32, change: impl FnOnce(&mut Uplink)) -> Result<()> {
        let before = self
            .get(ifindex)?
            .with_context(|| format!("interface {ifindex} is not attached"))?;
        let mut uplink = before;
        change(&mut uplink);
        if uplink == before {
            return Ok(());
        }
        self.set(ifindex, uplink)
    }

    /// Stores the first address of each family as the uplink's own source, if it is attached. Link-local IPv6 addresses do not count: every
    /// link has them, and few packets leave with them.
    pub(super) fn set_sources(&mut self, ifindex: u32, addresses: &[IpAddr]) -> Result<()> {
        let Some(before) = self.get(ifindex)? else {
            return Ok(());
        };
        let ipv4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        });
        let ipv6 = addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address.octets()),
            _ => None,
        });
        let uplink = Uplink {
            source_ipv4: ipv4.unwrap_or_default(),
            source_ipv6: ipv6.unwrap_or_default(),
            ..before
        };
        if uplink == before {
            return Ok(());
        }
        self.set(ifindex, uplink)
    }

    pub(super) fn gates(&self, ifindex: u32) -> Result<PerFamily<Gate>> {
        let uplink = self.get(ifindex)?;
        Ok(uplink.map_or(PerFamily::both(Gate::Open), |uplink| {
            PerFamily::new(uplink.gate_ipv4, uplink.gate_ipv6)
        }))
    }
}

/// The map of settings. The agent is its only writer, and remembers what it wrote.
pub(super) struct Settings {
    map: Array<MapData, failover_ebpf::Settings>,
    current: failover_ebpf::Settings,
}

impl Settings {
    /// Keeps the lease that an adopted map holds.
    pub(super) fn new(map: Map, probe_mark: u32) -> Result<Settings> {
        let map: Array<MapData, failover_ebpf::Settings> = map.try_into()?;
        let current = failover_ebpf::Settings {
            probe_mark,
            abi_version: ABI_VERSION,
            ..map.get(&0, 0).context("reading the settings")?
        };
        let mut settings = Settings { map, current };
        settings.write()?;
        Ok(settings)
    }

    pub(super) fn renew_lease(&mut self, lease: Duration) -> Result<()> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        // 584 years from now is for ever.
        self.current.lease_until_ns =
            u64::try_from(now.saturating_add(lease).as_nanos()).unwrap_or(u64::MAX);
        self.write()
    }

    pub(super) fn set_allow_marks(&mut self, marks: &[u32]) -> Result<()> {
        let mut allow_marks = [0; MAX_MARKS];
        allow_marks
            .get_mut(..marks.len())
            .with_context(|| format!("more than {MAX_MARKS} marks"))?
            .copy_from_slice(marks);
        self.current.allow_marks = allow_marks;
        self.write()
    }

    /// Time from `now_ns` nanoseconds of `CLOCK_MONOTONIC` to the end of the lease; `None`: there never was one.
    pub(super) fn lease_remaining(&self, now_ns: u64) -> Option<Duration> {
        let until = self.current.lease_until_ns;
        (until != 0).then(|| Duration::from_nanos(until.saturating_sub(now_ns)))
    }

    fn write(&mut self) -> Result<()> {
        self.map
            .set(0, self.current, 0)
            .context("writing the settings")
    }
}
