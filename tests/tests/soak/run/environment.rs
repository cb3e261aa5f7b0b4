//! What is not the agent's: other programs' default routes and rule sets, the disk, the time of day, and the reader of the log.

use std::collections::BTreeSet;

use anyhow::Result;
use failover_lab::{Disk as FileDisk, Lab, WallClock, wait_for};
use failover_policy::Family;
use failover_tests::fixtures::SOON;

use crate::events::Disk;

/// Metrics of VPNs: of the agent's active route and of its standby ones, with each of the configurations.
pub(super) const METRICS: [u32; 5] = [80, 5000, 5001, 5002, 201];

/// Metrics of routes that let nothing through: between the active route and the standby ones, and behind all of them.
pub(super) const BEHIND: [u32; 2] = [90, 20_000];

/// The VPN's interface, which leads nowhere.
const VPN: &str = "vpn0";

/// By how many seconds the time of day may be wrong: not at all, a year, an hour.
pub(super) const AHEAD: [i64; 5] = [0, -31_536_000, 31_536_000, -3600, 3600];

/// What has changed around the agent and is not undone.
pub(super) struct Environment {
    vpn: BTreeSet<(usize, u32)>,
    kill_switch: BTreeSet<(usize, u32)>,
    marks: bool,
    unread: bool,
    /// The agent's.
    pub(super) clock: WallClock,
    state: Disk,
    /// Where the state is.
    disk: FileDisk,
}

impl Environment {
    pub(super) fn new(lab: &Lab) -> Result<Environment> {
        let host = lab.host().namespace();
        host.ip_batch(&format!(
            "link add {VPN} type veth peer name {VPN}p\n\
             link set {VPN} addrgenmode none\n\
             link set {VPN}p addrgenmode none\n\
             link set {VPN}p up\n\
             link set {VPN} up\n\
             address add 10.99.0.2/24 dev {VPN}\n\
             address add fd99::2/64 dev {VPN} nodad\n\
             neighbour replace 10.99.0.1 lladdr 02:00:00:00:00:99 dev {VPN}\n\
             neighbour replace fd99::1 lladdr 02:00:00:00:00:99 dev {VPN}\n"
        ))?;
        // While an uplink has lost its only address and nothing else works, the kernel sends by its IPv6 route from an address of another
        // interface. This one's belong to no uplink: the provider does not count them as another uplink's.
        for uplink in lab.uplinks() {
            uplink.provider().nft(
                "table inet vpn { chain sources {
                     type filter hook prerouting priority raw - 10
                     iifname customer ip saddr 10.99.0.2 drop
                     iifname customer ip6 saddr fd99::2 drop
                 }
                 }",
            )?;
        }
        // What the kernel does when the links come up takes a moment: it is there before the snapshot is taken.
        wait_for("the VPN's interface", SOON, || {
            let table = ["-6", "route", "show", "table", "local"];
            let routes = (host.exec("ip", &table)).map_err(|error| format!("{error:#}"))?;
            let there = |what: &str, dev: &str| {
                let mut lines = routes.lines();
                lines.any(|line| line.contains(what) && line.contains(dev))
            };
            let both = [VPN.to_owned(), format!("{VPN}p")];
            let there = there("fd99::2", VPN)
                && both
                    .iter()
                    .all(|dev| there("ff00::/8", &format!("dev {dev} ")));
            there.then_some(()).ok_or(routes)
        })?;
        let dirs = lab.agent_dirs();
        let disk = FileDisk::in_file(&dirs.state, &dirs.scratch.join("image"))?;
        Ok(Environment {
            vpn: BTreeSet::new(),
            kill_switch: BTreeSet::new(),
            marks: false,
            unread: false,
            clock: WallClock::new(lab)?,
            state: Disk::Fine,
            disk,
        })
    }

    pub(super) fn disk_is_fine(&self) -> bool {
        self.state == Disk::Fine
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// Returns whether the log is unread from now on.
    pub(super) fn toggle_reader(&mut self) -> bool {
        self.unread = !self.unread;
        self.unread
    }

    pub(super) fn toggle_vpn(&mut self, lab: &Lab, family: Family, metric: u32) -> Result<()> {
        let way = match family {
            Family::V4 => format!("default via 10.99.0.1 dev {VPN}"),
            Family::V6 => format!("default via fd99::1 dev {VPN}"),
        };
        toggle(lab, &mut self.vpn, &way, family, metric)
    }

    pub(super) fn toggle_kill_switch(
        &mut self,
        lab: &Lab,
        family: Family,
        metric: u32,
    ) -> Result<()> {
        let way = "unreachable default";
        toggle(lab, &mut self.kill_switch, way, family, metric)
    }

    pub(super) fn toggle_marks(&mut self, lab: &Lab) -> Result<()> {
        self.marks = !self.marks;
        let host = lab.host().namespace();
        match self.marks {
            true => host.nft(
                "table inet rewrite { chain output {
                     type filter hook output priority mangle
                     meta mark set ct mark
                 }
                 }",
            ),
            false => host.nft("delete table inet rewrite"),
        }
    }

    pub(super) fn set_disk(&mut self, state: Disk) -> Result<()> {
        match self.state {
            Disk::Full => self.disk.make_room(),
            Disk::ReadOnly => self.disk.make_writable(),
            Disk::Frozen => self.disk.thaw(),
            Disk::Fine => Ok(()),
        }?;
        // Whatever becomes of the next step.
        self.state = Disk::Fine;
        match state {
            Disk::Full => self.disk.fill(),
            Disk::ReadOnly => self.disk.make_read_only(),
            Disk::Frozen => self.disk.freeze(),
            Disk::Fine => Ok(()),
        }?;
        self.state = state;
        Ok(())
    }

    /// Undoes all of it; that the log is read again is up to the caller.
    pub(super) fn restore(&mut self, lab: &Lab) -> Result<()> {
        for (family, metric) in self.vpn.clone() {
            self.toggle_vpn(lab, Family::ALL[family], metric)?;
        }
        for (family, metric) in self.kill_switch.clone() {
            self.toggle_kill_switch(lab, Family::ALL[family], metric)?;
        }
        if self.marks {
            self.toggle_marks(lab)?;
        }
        self.unread = false;
        self.set_disk(Disk::Fine)
    }
}

/// Appends a default route, as NetworkManager and VPN clients do, or removes it.
fn toggle(
    lab: &Lab,
    standing: &mut BTreeSet<(usize, u32)>,
    way: &str,
    family: Family,
    metric: u32,
) -> Result<()> {
    let host = lab.host().namespace();
    let flag = if family == Family::V4 { "-4" } else { "-6" };
    let verb = match standing.insert((family as usize, metric)) {
        true => "append",
        false => {
            standing.remove(&(family as usize, metric));
            "del"
        }
    };
    let command = format!("{flag} route {verb} {way} metric {metric}");
    let arguments: Vec<&str> = command.split(' ').collect();
    match (verb, host.exec("ip", &arguments)) {
        // The laboratory's own router advertisements replace whatever has their metric.
        ("append", Err(error)) => Err(error),
        _ => Ok(()),
    }
}
