//! Pinned TCX links: which interface and program they hold.
//!
//! A pin is named by the index that its interface had. The interface may have gone since and its index been given to another, or it may
//! have moved to another network namespace and come back with another index. Only the kernel knows what a link holds.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, SchedClassifier};
use tracing::{debug, warn};

use super::{Direction, pins, raw};

/// A TCX link.
pub(super) struct Link {
    fd: OwnedFd,
    /// Index of its interface in that interface's network namespace; 0: the interface is gone.
    pub(super) ifindex: u32,
    /// Id of its program.
    pub(super) program: u32,
}

impl Link {
    /// The link pinned at `pin`; `None` if there is none. A pin that is not a TCX link is removed.
    pub(super) fn open(pin: &Path) -> Result<Option<Link>> {
        let fd = match raw::open_pin(pin) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("opening {}", pin.display())),
        };
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let info = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let Some((ifindex, program)) = read(&info) else {
            warn!(pin = %pin.display(), "removing a pin that is no TCX link");
            pins::unpin(pin)?;
            return Ok(None);
        };
        Ok(Some(Link {
            fd,
            ifindex,
            program,
        }))
    }

    /// Whether its program is on this interface of the current network namespace.
    pub(super) fn is_on(&self, name: &str, ifindex: u32, direction: Direction) -> Result<bool> {
        Ok(self.ifindex == ifindex && programs(name, direction)?.contains(&self.program))
    }

    /// Detaches its program from whatever interface has it, and removes its pin.
    pub(super) fn remove(self, pin: &Path) -> Result<()> {
        if let Err(error) = raw::detach(&self.fd) {
            debug!(pin = %pin.display(), "a TCX link could not be detached: {error}");
        }
        pins::unpin(pin).map(drop)
    }
}

/// Index of the interface and id of the program, from the kernel's information about the descriptor of a TCX link (`bpf_link_show_fdinfo`
/// in kernel/bpf/syscall.c, `tcx_link_fdinfo` in kernel/bpf/tcx.c).
fn read(info: &str) -> Option<(u32, u32)> {
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(":\t"));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    if field("link_type")? != "tcx" {
        return None;
    }
    Some((
        field("ifindex")?.parse().ok()?,
        field("prog_id")?.parse().ok()?,
    ))
}

/// Ids of the TCX programs on an interface.
pub(super) fn programs(name: &str, direction: Direction) -> Result<Vec<u32>> {
    let (_, programs) = SchedClassifier::query_tcx(name, direction.into())
        .with_context(|| format!("listing the {direction} programs of {name}"))?;
    Ok(programs.iter().map(ProgramInfo::id).collect())
}

/// Removes the links whose interface has another index than their pin says: it is gone, or was in another namespace meanwhile.
pub(super) fn remove_strays(bpf_dir: &Path) -> Result<()> {
    let dir = pins::links(bpf_dir);
    let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    for pin in entries.flatten().map(|entry| entry.path()) {
        let Some(named) = pins::link_ifindex(&pin) else {
            continue;
        };
        if let Some(link) = Link::open(&pin)?
            && link.ifindex != named
        {
            debug!(pin = %pin.display(), ifindex = link.ifindex, "removing the TCX link of an interface that has gone or moved");
            link.remove(&pin)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_of_a_tcx_link_is_understood() {
        let info = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t2069\nlink_type:\ttcx\nlink_id:\t7\nprog_tag:\t3f2a\n\
                    prog_id:\t44\nifindex:\t3\nattach_type:\t47\n";
        assert_eq!(read(info), Some((3, 44)));
        assert_eq!(read(&info.replace("tcx", "xdp")), None);
        assert_eq!(read("pos:\t0\nmap_type:\t1\n"), None);
    }
}
