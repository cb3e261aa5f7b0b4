//! Attaching the programs to interfaces, and adopting those that an earlier run attached.

use std::{io, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use failover_ebpf::{CutMode, Gate, Hook, Inbound, LinkLayer, Uplink};
use nix::errno::Errno;
use tracing::warn;

use super::{Datapath, Direction, clsact, load, pins, requirements};
use crate::{config::AttachMode, interface};

/// How the programs came to be on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The hook they are on.
    pub hook: Hook,
    /// Whether both were there before, and have only been replaced.
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
        && let Err(error) = detach(datapath, ifindex)
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
    let hook = if tcx {
        Hook::Tcx
    } else {
        clsact::ensure_qdisc(name, before.map(|uplink| uplink.hook))?
    };
    // Before the programs: whatever happens next, a later run knows what to look for.
    let uplink = before.unwrap_or(Uplink {
        gate_ipv4: Gate::Open,
        gate_ipv6: Gate::Open,
        link_layer,
        hook,
        cut_mode: CutMode::Drop,
        inbound: Inbound::Cut,
        source_ipv4: [0; 4],
        source_ipv6: [0; 16],
    });
    datapath.counters.ensure(ifindex)?;
    datapath.limits.ensure(ifindex)?;
    datapath.uplinks.set(
        ifindex,
        Uplink {
            link_layer,
            hook,
            ..uplink
        },
    )?;

    let mut adopted = true;
    for direction in Direction::ALL {
        let program = load::program(&mut datapath.ebpf, direction)?;
        adopted &= match hook {
            Hook::Tcx => {
                let pin = pins::link(&datapath.options.bpf_dir, ifindex, direction);
                attach_tcx(program, name, direction, &pin)
            }
            Hook::Clsact | Hook::ClsactOwned => clsact::attach(program, name, direction),
        }
        .with_context(|| format!("{direction} program"))?;
    }
    Ok(Attached { hook, adopted })
}

/// Detaches the programs and forgets the uplink.
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
    for direction in Direction::ALL {
        pins::unpin(&pins::link(&datapath.options.bpf_dir, ifindex, direction))?;
    }
    clsact::detach(ifindex, hook).map(drop)
}

/// Attaches by a pinned link; true if the link was there and only its program was replaced.
fn attach_tcx(
    program: &mut SchedClassifier,
    name: &str,
    direction: Direction,
    pin: &Path,
) -> Result<bool> {
    if let Some(link) = pinned(pin)? {
        match program.attach_to_link(link) {
            Ok(id) => {
                drop(program.take_link(id)?);
                return Ok(true);
            }
            // The interface that the link was made for is gone.
            Err(ProgramError::SyscallError(error)) if is(&error.io_error, Errno::ENOLINK) => {
                pins::unpin(pin)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(name, direction.into(), options)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    // The pin keeps the link: neither the end of this function nor that of the agent detaches the program.
    drop(
        link.pin(pin)
            .with_context(|| format!("pinning {}", pin.display()))?,
    );
    Ok(false)
}

/// The link pinned at `pin`; None if there is none. A pin that is no TCX link is removed.
fn pinned(pin: &Path) -> Result<Option<SchedClassifierLink>> {
    let link = match PinnedLink::from_pin(pin) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(anyhow!(error).context(format!("opening {}", pin.display()))),
    };
    match link.try_into() {
        Ok(link) => Ok(Some(link)),
        Err(LinkError::InvalidLink) => {
            warn!(pin = %pin.display(), "removing a pin that is no TCX link");
            pins::unpin(pin)?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// The name of an interface: aya wants one.
pub(super) fn interface_name(ifindex: u32) -> Result<String> {
    interface::name(ifindex).with_context(|| format!("no interface with index {ifindex}"))
}
