//! What is not the agent's: other programs' rule sets, the disk, and who reads the log.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use failover_tests::{
    lab::{Lab, wait_for},
    scene::SOON,
};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use crate::events::Disk;

/// A disk for the state that a few files fill.
const DISK: &str = "size=128k,mode=0700";

/// What has happened around the agent and is not undone.
pub(super) struct Around {
    marks: bool,
    unread: bool,
    disk: Disk,
    state: PathBuf,
}

impl Around {
    pub(super) fn new(lab: &Lab) -> Result<Around> {
        let state = lab.agent_dirs().state.clone();
        let tmpfs = Some("tmpfs");
        mount(tmpfs, &state, tmpfs, MsFlags::empty(), Some(DISK))
            .with_context(|| format!("cannot mount a disk on {}", state.display()))?;
        Ok(Around {
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
