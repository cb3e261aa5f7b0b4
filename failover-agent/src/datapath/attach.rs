//! Attaching the programs to interfaces, and adopting those that an earlier run attached.

use std::{io, path::Path};

use anyhow::{Context as _, Result};
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLinkId, TcAttachOptions},
};
use failover_ebpf::{CutMode, Gate, Hook, Inbound, LinkLayer, Uplink};
use nix::errno::Errno;
use tracing::warn;

use super::{
    Datapath, Direction, clsact,
    link::{self, Link},
    load, pins, requirements,
};
use crate::{config::AttachMode, interface};

/// How the programs were attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The hook they are on.
    pub hook: Hook,
    /// Whether both were attached before, and were only replaced.
    pub adopted: bool,
}

impl From<Direction> for TcAttachType {
    fn from(direction: Direction) -> TcAttachType {
        match direction {
            Direction::Egress => TcAttachType::Egress,
            Direction::Ingress => TcAttachType::Ingress,
        }
    }
}

pub(super) fn attach(
    datapath: &mut Datapath,
    ifindex: u32,
    link_layer: LinkLayer,
) -> Result<Attached> {
    let name = interface_name(ifindex)?;
    let attached = try_attach(datapath, ifindex, &name, link_layer);
    if attached.is_err()
        && let Err(error) = undo(datapath, ifindex)
    {
        warn!(
            interface = name,
            "cannot clean up after a failed attach: {error:#}"
        );
    }
    attached.with_context(|| format!("attaching to {name}"))
}

fn try_attach(
    datapath: &mut Datapath,
    ifindex: u32,
    name: &str,
    link_layer: LinkLayer,
) -> Result<Attached> {
    let before = datapath.uplinks.get(ifindex)?;
    let tcx = match datapath.options.attach {
        AttachMode::Tcx => true,
        AttachMode::Clsact => false,
        AttachMode::Auto => requirements::has_tcx(),
    };
    if let Some(before) = before
        && (before.hook == Hook::Tcx) != tcx
    {
        detach_hook(datapath, ifindex, before.hook)?;
    }
    // Before the qdisc is added, since only the entry in the map of uplinks distinguishes it from another program's.
    datapath.counters.ensure(ifindex)?;
    datapath.limits.ensure(ifindex)?;
    let hook = if tcx {
        Hook::Tcx
    } else {
        clsact::ensure_qdisc(name, ifindex, before.map(|uplink| uplink.hook))?
    };
    // Before the programs are attached: whatever happens next, a later run knows where to look.
    let uplink = before.unwrap_or(Uplink {
        gate_ipv4: Gate::Open,
        gate_ipv6: Gate::Open,
        link_layer,
        hook,
        cut_mode_ipv4: CutMode::Drop,
        cut_mode_ipv6: CutMode::Drop,
        inbound: Inbound::Cut,
        source_ipv4: [0; 4],
        source_ipv6: [0; 16],
    });
    let entry = Uplink {
        link_layer,
        hook,
        ..uplink
    };
    if let Err(error) = datapath.uplinks.set(ifindex, entry) {
        if before.is_none()
            && let Err(left) = clsact::detach(ifindex, hook)
        {
            warn!(interface = name, "{name}: {left:#}");
        }
        return Err(error);
    }

    // A program without an entry of its own was left by a run whose maps could not be adopted.
    let mut adopted = before.is_some();
    for direction in Direction::ALL {
        let program = load::program(&mut datapath.ebpf, direction)?;
        adopted &= match hook {
            Hook::Tcx => attach_tcx(program, name, ifindex, direction, &datapath.options.bpf_dir),
            Hook::Clsact | Hook::ClsactOwned => clsact::attach(program, name, direction),
        }
        .with_context(|| format!("{direction} program"))?;
    }
    Ok(Attached { hook, adopted })
}

/// Leaves no program on the interface, and no gate that counts as closed.
pub(super) fn undo(datapath: &mut Datapath, ifindex: u32) -> Result<()> {
    let Some(uplink) = datapath.uplinks.get(ifindex)? else {
        return Ok(());
    };
    let mut errors = pins::Errors::default();
    errors.note(detach_hook(datapath, ifindex, uplink.hook));
    errors.note(datapath.uplinks.set(
        ifindex,
        Uplink {
            gate_ipv4: Gate::Open,
            gate_ipv6: Gate::Open,
            ..uplink
        },
    ));
    errors.into_result()
}

/// Detaches the programs and removes the uplink's entries.
pub(super) fn detach(datapath: &mut Datapath, ifindex: u32) -> Result<()> {
    let mut errors = pins::Errors::default();
    if let Some(uplink) = datapath.uplinks.get(ifindex)? {
        errors.note(detach_hook(datapath, ifindex, uplink.hook));
    }
    errors.note(datapath.uplinks.forget(ifindex));
    errors.note(datapath.counters.forget(ifindex));
    errors.note(datapath.limits.forget(ifindex));
    errors.note(datapath.exempt.set(ifindex, &[]));
    errors.note(datapath.addresses.retire(ifindex));
    errors.into_result()
}

fn detach_hook(datapath: &Datapath, ifindex: u32, hook: Hook) -> Result<()> {
    let mut errors = pins::Errors::default();
    for direction in Direction::ALL {
        let pin = pins::link(&datapath.options.bpf_dir, ifindex, direction);
        // Detached before it is unpinned: the kernel frees a link a moment later, and the programs may be attached again before that.
        errors.note(Link::open(&pin).and_then(|link| match link {
            Some(link) => link.remove(&pin),
            None => Ok(()),
        }));
    }
    errors.note(clsact::detach(ifindex, hook).map(drop));
    errors.into_result()
}

/// Attaches by a pinned link; true if the link was there and only its program was replaced.
fn attach_tcx(
    program: &mut SchedClassifier,
    name: &str,
    ifindex: u32,
    direction: Direction,
    bpf_dir: &Path,
) -> Result<bool> {
    let pin = pins::link(bpf_dir, ifindex, direction);
    if let Some(link) = Link::open(&pin)? {
        if link.is_on(name, ifindex, direction)? {
            let link = FdLink::from(PinnedLink::from_pin(&pin)?).try_into()?;
            let id = program.attach_to_link(link)?;
            drop(program.take_link(id)?);
            return Ok(true);
        }
        // The interface that had this index is gone, or is in another network namespace.
        link.remove(&pin)?;
    }
    let id = match attach_first(program, name, direction) {
        // Our program is already attached, by a link that was made when the interface had another index.
        Err(ProgramError::SyscallError(error)) if is(&error.io_error, Errno::EEXIST) => {
            link::remove_strays(bpf_dir)?;
            attach_first(program, name, direction)
        }
        attached => attached,
    }?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    // The pin keeps the link: neither the end of this function nor that of the agent detaches the program.
    drop(
        link.pin(&pin)
            .with_context(|| format!("pinning {}", pin.display()))?,
    );
    Ok(false)
}

/// Attaches before other programs.
fn attach_first(
    program: &mut SchedClassifier,
    name: &str,
    direction: Direction,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    program.attach_with_options(name, direction.into(), options)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// The name of an interface, which aya requires.
pub(super) fn interface_name(ifindex: u32) -> Result<String> {
    interface::name(ifindex).with_context(|| format!("no interface with index {ifindex}"))
}
