//! Edge: the eBPF programs and their maps. The only place that knows aya.
//!
//! Everything that must outlive the agent lives in the kernel and is pinned below one directory of a BPF file system:
//!
//! ```text
//! <bpf-dir>/uplinks            gates, hooks and sources, by interface index     bpftool map dump pinned <bpf-dir>/uplinks
//! <bpf-dir>/counters           what was counted, by interface index and CPU
//! <bpf-dir>/exempt             prefixes that pass closed gates
//! <bpf-dir>/settings           lease, marks, ABI version
//! <bpf-dir>/addresses          the uplinks' addresses, and the interface index of each one's uplink
//! <bpf-dir>/flows              which side opened a connection, on uplinks that keep inbound ones
//! <bpf-dir>/limits             token buckets of ICMP errors and events, by interface index
//! <bpf-dir>/probes             the agent's probe sockets
//! <bpf-dir>/echoes             interfaces and identifiers of its echo requests
//! <bpf-dir>/links/3-egress     TCX links, by interface index (a name may hold dots, which a BPF file system refuses)
//! ```
//!
//! A restarted agent adopts all of it: maps are reused with their contents, and the program behind each link is replaced in one step, so
//! that no packet passes uncounted or ungated.

mod addresses;
mod attach;
mod clsact;
mod counters;
mod events;
mod exempt;
mod filters;
mod gates;
mod limits;
mod link;
mod load;
mod log;
mod pins;
mod probes;
mod programs;
mod raw;
mod refused;
mod requirements;
mod test_run;
mod verify;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Result, bail};
pub use failover_ebpf::{Answer, Counters, CutMode, Gate, Hook, Inbound, LinkLayer, Reason};
use failover_policy::{Family, PerFamily};
use ipnet::IpNet;

pub use self::{
    attach::Attached,
    events::{EndedFlow, Events},
    log::Log,
    pins::{Removal, end_lease, remove_pins},
    probes::{ProbeSockets, Registration},
    programs::{Program, has_tcx, on_interface as programs_on},
    requirements::check_requirements,
    test_run::{Direction, TestPacket, TestRun, Verdict},
};
use crate::config::AttachMode;

/// How to open the datapath.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where maps and links are pinned; made if missing. Must lie on a BPF file system.
    pub bpf_dir: PathBuf,
    /// How programs are attached.
    pub attach: AttachMode,
    /// `SO_MARK` of the agent's own probes. The programs check the sockets of packets with this mark even while the gate is open, to count
    /// probes. 0: they check none.
    pub probe_mark: u32,
}

/// The loaded programs and their maps.
///
/// Dropping it changes nothing in the kernel: the programs stay attached, and gates open once the lease is past.
pub struct Datapath {
    options: Options,
    ebpf: aya::Ebpf,
    uplinks: gates::Uplinks,
    settings: gates::Settings,
    counters: counters::Map,
    exempt: exempt::Trie,
    addresses: addresses::Map,
    limits: limits::Map,
    probes: ProbeSockets,
    loaded: verify::Loaded,
    /// By interface index: why an uplink has no programs.
    unattached: BTreeMap<u32, String>,
}

impl Datapath {
    /// Loads the programs, with new maps or, after a restart, with the pinned ones and their contents.
    ///
    /// Pins of another ABI version, and pins that cannot be read, are removed with a warning.
    ///
    /// # Errors
    ///
    /// [`Failure::NoBpfFs`](crate::failure::Failure::NoBpfFs), [`Failure::Privilege`](crate::failure::Failure::Privilege)
    /// and [`Failure::Kernel`](crate::failure::Failure::Kernel), before anything is changed; other errors of the kernel.
    pub fn open(options: &Options) -> Result<Datapath> {
        check_requirements(options)?;
        load::open(options)
    }

    /// Attaches the programs to an interface, or adopts them there. A new uplink's gates are open, its cut mode is [`CutMode::Drop`], and
    /// inbound connections are cut; an adopted uplink keeps its settings.
    ///
    /// # Errors
    ///
    /// The interface does not exist, there is no room for another uplink, or the kernel refuses. Then nothing stays attached, and the gates
    /// are open.
    pub fn attach(&mut self, ifindex: u32, link_layer: LinkLayer) -> Result<Attached> {
        let attached = attach::attach(self, ifindex, link_layer);
        match &attached {
            Ok(_) => self.unattached.remove(&ifindex),
            Err(error) => self.unattached.insert(ifindex, format!("{error:#}")),
        };
        attached
    }

    /// Detaches the programs from an interface, opens its gates, and remembers `obstacle` as the reason.
    pub fn give_up(&mut self, ifindex: u32, obstacle: String) {
        if !self.unattached.contains_key(&ifindex)
            && let Err(error) = attach::undo(self, ifindex)
        {
            tracing::warn!(ifindex, "incomplete programs stay attached: {error:#}");
        }
        self.unattached.insert(ifindex, obstacle);
    }

    /// Why packets of an interface meet no programs; `None`: they do, as of the last check.
    pub fn obstacle(&self, ifindex: u32) -> Option<&str> {
        self.unattached.get(&ifindex).map(String::as_str)
    }

    /// Asks the kernel what is missing of an uplink's programs and of what they need; `None`: nothing.
    ///
    /// # Errors
    ///
    /// The interface does not exist, or the kernel refuses.
    pub fn missing(&self, ifindex: u32) -> Result<Option<String>> {
        match self.unattached.get(&ifindex) {
            Some(obstacle) => Ok(Some(obstacle.clone())),
            None => verify::missing(self, ifindex),
        }
    }

    /// How the programs of an uplink are attached; `None`: they are not.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn hook(&self, ifindex: u32) -> Result<Option<Hook>> {
        if self.unattached.contains_key(&ifindex) {
            return Ok(None);
        }
        Ok(self.uplinks.get(ifindex)?.map(|uplink| uplink.hook))
    }

    /// Pins maps again whose pins are gone.
    ///
    /// # Errors
    ///
    /// All errors of the kernel together.
    pub fn pin_maps(&self) -> Result<()> {
        verify::pin_maps(self)
    }

    /// Where probe sockets are registered.
    pub fn probe_sockets(&self) -> ProbeSockets {
        self.probes.clone()
    }

    /// Detaches and removes every uplink that is not in `ifindexes`. An interface that is gone is no error.
    ///
    /// # Errors
    ///
    /// All errors of the kernel together, after everything that can be removed has been.
    pub fn retain(&mut self, ifindexes: &[u32]) -> Result<()> {
        let mut errors = pins::Errors::default();
        self.unattached
            .retain(|ifindex, _| ifindexes.contains(ifindex));
        for ifindex in self.uplinks.ifindexes()? {
            if !ifindexes.contains(&ifindex) {
                errors.note(attach::detach(self, ifindex));
            }
        }
        errors.into_result()
    }

    /// Opens or closes one gate.
    ///
    /// # Errors
    ///
    /// The uplink is not attached; the kernel refuses.
    pub fn set_gate(&mut self, ifindex: u32, family: Family, gate: Gate) -> Result<()> {
        if gate == Gate::Closed
            && let Some(obstacle) = self.obstacle(ifindex)
        {
            bail!("{obstacle}");
        }
        self.uplinks.set_gate(ifindex, family, gate)
    }

    /// The gates of an uplink; open for an interface that is not an uplink.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn gates(&self, ifindex: u32) -> Result<PerFamily<Gate>> {
        if self.unattached.contains_key(&ifindex) {
            return Ok(PerFamily::both(Gate::Open));
        }
        self.uplinks.gates(ifindex)
    }

    /// Sets how to treat a family's packets that must not leave by an uplink, because its gate is closed or because they are stale.
    ///
    /// # Errors
    ///
    /// The uplink is not attached; the kernel refuses.
    pub fn set_cut_mode(&mut self, ifindex: u32, family: Family, mode: CutMode) -> Result<()> {
        self.uplinks.set_cut_mode(ifindex, family, mode)
    }

    /// Sets whether the closed gates of an uplink spare connections that came in by it. The programs remember those from the moment that
    /// this is set: set it when the uplink is attached, long before its gates close.
    ///
    /// # Errors
    ///
    /// The uplink is not attached; the kernel refuses.
    pub fn set_inbound(&mut self, ifindex: u32, inbound: Inbound) -> Result<()> {
        self.uplinks
            .change(ifindex, |uplink| uplink.inbound = inbound)
    }

    /// Replaces the addresses of an uplink. Packets with one of them as source are cut when they leave by another uplink, whatever its
    /// gates, unless several uplinks have the address or the lease is past. Packets with an address that it had before are cut on all
    /// uplinks, until an uplink has that address again, or until [`Datapath::release_addresses`] or [`Datapath::expire_addresses`].
    /// Link-local addresses are ignored.
    ///
    /// # Errors
    ///
    /// More than [`failover_ebpf::MAX_ADDRESSES`] in all; the kernel refuses.
    pub fn set_addresses(&mut self, ifindex: u32, addresses: &[IpAddr]) -> Result<()> {
        // First: an address that is no longer the uplink's own must be looked up from now on, even if the next step fails.
        self.uplinks.set_sources(ifindex, addresses)?;
        self.addresses.set(ifindex, addresses)
    }

    /// The addresses that uplinks have lost, and for which packets are cut.
    pub fn lost_addresses(&self) -> Vec<IpAddr> {
        self.addresses.lost()
    }

    /// Stops cutting packets for the lost addresses with which no packet has left for an hour, and returns these addresses. `now` is the
    /// time of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn expire_addresses(&mut self, now: Duration) -> Result<Vec<IpAddr>> {
        self.addresses.expire(now)
    }

    /// Stops cutting packets for lost addresses that are in `present`, which this host has or which are routed elsewhere, unless an uplink
    /// has them.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn release_addresses(&mut self, present: &[IpAddr]) -> Result<()> {
        self.addresses.release(present)
    }

    /// Stops cutting packets for the addresses of this interface, and for those that any uplink has lost.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn forget_addresses(&mut self, ifindex: u32) -> Result<()> {
        self.uplinks.set_sources(ifindex, &[])?;
        self.addresses.forget(ifindex)
    }

    /// Replaces the marks (`SO_MARK`) whose packets pass closed gates. 0 is none.
    ///
    /// # Errors
    ///
    /// More than [`failover_ebpf::MAX_MARKS`]; the kernel refuses.
    pub fn set_allow_marks(&mut self, marks: &[u32]) -> Result<()> {
        self.settings.set_allow_marks(marks)
    }

    /// Keeps closed gates closed for `lease` from now.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn renew_lease(&mut self, lease: Duration) -> Result<()> {
        self.settings.renew_lease(lease)
    }

    /// Time from `now_ns` nanoseconds of `CLOCK_MONOTONIC` to the end of the lease; `None`: there never was one.
    pub fn lease_remaining(&self, now_ns: u64) -> Option<Duration> {
        self.settings.lease_remaining(now_ns)
    }

    /// Replaces the prefixes that pass the closed gates of one uplink, or of all with `ifindex` 0. A prefix that
    /// is in both the old and the new set passes all the time. The prefixes of an uplink are its on-link networks: packets from them do not
    /// count as signs of life from beyond the link.
    ///
    /// # Errors
    ///
    /// More than [`failover_ebpf::MAX_PREFIXES`] in all; the kernel refuses.
    pub fn set_exempt(&mut self, ifindex: u32, prefixes: &[IpNet]) -> Result<()> {
        self.exempt.set(ifindex, prefixes)
    }

    /// What the programs have counted on an uplink since it was first attached, summed over CPUs; zeros for an interface that is not an
    /// uplink.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn counters(&self, ifindex: u32) -> Result<Counters> {
        self.counters.sum(ifindex)
    }

    /// The programs' messages, once; a later call fails.
    ///
    /// Messages go to the `log` crate's logger as it is now: set up tracing first.
    ///
    /// # Errors
    ///
    /// It was called before.
    pub fn take_log(&mut self) -> Result<Log> {
        Log::new(&mut self.ebpf)
    }

    /// The programs' events, once. Needs a tokio runtime with I/O, and panics without one, as all of tokio does.
    ///
    /// # Errors
    ///
    /// It was called before, or the kernel refuses.
    pub fn take_events(&mut self) -> Result<Events> {
        Events::new(load::take(&mut self.ebpf, failover_ebpf::maps::EVENTS)?)
    }

    /// Detaches and unpins everything, and removes the directory; continues after each failure.
    pub fn remove(self) -> Removal {
        let bpf_dir = self.options.bpf_dir.clone();
        drop(self);
        remove_pins(&bpf_dir)
    }

    /// Runs a program on a crafted packet `repeat` times, without an interface. Counters count such packets too.
    ///
    /// # Errors
    ///
    /// The kernel refuses the packet: it requires an Ethernet header, an IP header if the Ethernet type is IP, at most a page, and an
    /// existing interface.
    pub fn test_run(
        &self,
        direction: Direction,
        packet: &TestPacket<'_>,
        repeat: u32,
    ) -> Result<TestRun> {
        test_run::run(&self.ebpf, direction, packet, repeat)
    }
}
