//! What is not the agent's: other programs' default routes and rule sets, the disk, and who reads the log.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use failover_agent::policy::Family;
use failover_tests::{
    lab::{Lab, wait_for},
    scene::SOON,
};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use crate::events::Disk;

/// Metrics of VPNs: of the agent's active route and of its standby ones, with each of the configurations.
pub(super) const METRICS: [u32; 5] = [80, 5000, 5001, 5002, 201];

/// Metrics of routes that let nothing through: between the active route and the standby ones, and behind all of them.
pub(super) const BEHIND: [u32; 2] = [90, 20_000];

/// The VPN's interface, which leads nowhere.
const VPN: &str = "vpn0";

/// A disk for the state that a few files fill.
const DISK: &str = "size=128k,mode=0700";

/// What has happened around the agent and is not undone.
pub(super) struct Around {
    vpn: BTreeSet<(usize, u32)>,
    kill_switch: BTreeSet<(usize, u32)>,
    marks: bool,
    unread: bool,
    disk: Disk,
    state: PathBuf,
}

impl Around {
    pub(super) fn new(lab: &Lab) -> Result<Around> {
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
        // What the kernel does when the links come up takes a moment: it is there before anybody takes a picture of it.
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
        let state = lab.agent_dirs().state.clone();
        let tmpfs = Some("tmpfs");
        mount(tmpfs, &state, tmpfs, MsFlags::empty(), Some(DISK))
            .with_context(|| format!("cannot mount a disk on {}", state.display()))?;
        Ok(Around {
            vpn: BTreeSet::new(),
            kill_switch: BTreeSet::new(),
            marks: false,
            unread: false,
            disk: Disk::Fine,
            state,
        })
    }

    pub(super) fn disk_is_fine(&self) -> bool {
        self.disk == Disk::Fine
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// Whether nobody reads the log from now on.
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

    pub(super) fn set_disk(&mut self, disk: Disk) -> Result<()> {
        let ballast = self.state.join("ballast");
        if self.disk == Disk::ReadOnly {
            self.remount(MsFlags::empty())?;
        }
        if self.disk == Disk::Full {
            fs::remove_file(&ballast)?;
        }
        self.disk = disk;
        match disk {
            Disk::Fine => Ok(()),
            Disk::Full => {
                // Until nothing more fits.
                let mut file = File::create(&ballast)?;
                while file.write_all(&[0; 512]).is_ok() {}
                Ok(())
            }
            Disk::ReadOnly => self.remount(MsFlags::MS_RDONLY),
        }
    }

    /// A file system on which a file is being written just now cannot become read-only.
    fn remount(&self, flags: MsFlags) -> Result<()> {
        let none = None::<&Path>;
        wait_for("another mode of the disk", SOON, || {
            let flags = MsFlags::MS_REMOUNT | flags;
            match mount(none, &self.state, none, flags, Some(DISK)) {
                Err(error @ Errno::EBUSY) => Err(error),
                other => Ok(other),
            }
        })?
        .with_context(|| format!("cannot remount {}", self.state.display()))
    }

    /// All of it is undone, but for who reads the log.
    pub(super) fn calm_down(&mut self, lab: &Lab) -> Result<()> {
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

impl Drop for Around {
    fn drop(&mut self) {
        // The laboratory's own clean-up would do it too.
        umount2(&self.state, MntFlags::MNT_DETACH).ok();
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
