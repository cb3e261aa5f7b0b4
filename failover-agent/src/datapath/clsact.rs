//! Filters on a clsact qdisc, for kernels without TCX.
//!
//! Filters stay in the kernel without a pin. They are found again by a priority and handle of our own, and replaced in one step.

use anyhow::{Context as _, Result, bail};
use aya::programs::{
    Link as _, ProgramError, SchedClassifier,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use failover_ebpf::Hook;
use nix::errno::Errno;
use rtnetlink::packet_route::{RouteNetlinkMessage, tc::TcHandle as QdiscHandle, tc::TcMessage};

use super::{Direction, filters};
use crate::{
    interface,
    netlink::{Netlink, Refused},
};

/// Before other programs' filters: one of them that accepts a packet ends the run.
pub(super) const PRIORITY: u16 = 1;
/// A handle that neither `tc` nor the kernel would choose by itself.
pub(super) const HANDLE: TcHandle = TcHandle::new(0xfa11, 0x0001);

/// The kind of qdisc that has an ingress and an egress side.
pub(super) const CLSACT: &str = "clsact";

/// Adds the clsact qdisc if it is missing; returns whether it is ours. `before`: whose it was in an earlier run.
pub(super) fn ensure_qdisc(name: &str, ifindex: u32, before: Option<Hook>) -> Result<Hook> {
    match tc::qdisc_add_clsact(name) {
        Ok(()) => return Ok(Hook::ClsactOwned),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
        }
        Err(error) => return Err(error).context("adding a clsact qdisc"),
    }
    // An `ingress` qdisc has the same handle and no egress side: it answers for both with its only list of filters.
    match filters::qdisc(ifindex)?.as_deref() {
        // It is ours, unless another program has removed ours and added its own: a filter of ours proves that it is ours.
        Some(CLSACT) if before == Some(Hook::ClsactOwned) && has_ours(ifindex)? => {
            Ok(Hook::ClsactOwned)
        }
        Some(CLSACT) => Ok(Hook::Clsact),
        Some(kind) => bail!(
            "there can be no egress program beside the qdisc `{kind}` on {name}: replace it by clsact, whose ingress side takes the same \
             filters (tc qdisc del dev {name} {kind}; tc qdisc add dev {name} clsact), or use Linux 6.6 or newer with TCX"
        ),
        None => bail!("the qdisc that stood in the way of clsact on {name} has just gone"),
    }
}

/// Attaches by a filter that outlives the agent; true if ours was there and only its program was replaced.
pub(super) fn attach(
    program: &mut SchedClassifier,
    name: &str,
    direction: Direction,
) -> Result<bool> {
    let (id, adopted) = match program.attach_to_link(filter(name, direction)?) {
        Ok(id) => (id, true),
        Err(error) if is_missing(&error) => {
            let options = NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            };
            let id = program.attach_with_options(
                name,
                direction.into(),
                TcAttachOptions::Netlink(options),
            )?;
            (id, false)
        }
        Err(error) => return Err(error.into()),
    };
    // Its Drop would remove the filter.
    std::mem::forget(program.take_link(id)?);
    Ok(adopted)
}

/// Removes our filters, and the qdisc if we added it and no other program uses it now. Returns what was removed. An interface that is gone
/// took everything with it; so did a program that has replaced our qdisc by another.
pub(super) fn detach(ifindex: u32, hook: Hook) -> Result<Vec<String>> {
    let mut done = Vec::new();
    if hook == Hook::Tcx {
        return Ok(done);
    }
    let Some(name) = interface::name(ifindex) else {
        return Ok(done);
    };
    if filters::qdisc(ifindex)?.as_deref() != Some(CLSACT) {
        return Ok(done);
    }
    for direction in Direction::ALL {
        match filter(&name, direction)?.detach() {
            Ok(()) => done.push(format!("{direction} filter on {name}")),
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("removing the {direction} filter on {name}"));
            }
        }
    }
    if hook == Hook::ClsactOwned
        && is_unused(ifindex)?
        && delete_qdisc(ifindex).with_context(|| format!("removing the clsact qdisc on {name}"))?
    {
        done.push(format!("clsact qdisc on {name}"));
    }
    Ok(done)
}

/// Our filter, whether it exists or not.
fn filter(name: &str, direction: Direction) -> Result<SchedClassifierLink> {
    SchedClassifierLink::attached(name, direction.into(), PRIORITY, HANDLE, None)
        .with_context(|| format!("no interface {name}"))
}

/// Whether the kernel says that there is no such filter, chain or qdisc.
fn is_missing(error: &ProgramError) -> bool {
    let code = match error {
        ProgramError::NetlinkError(error) | ProgramError::TcError(TcError::NetlinkError(error)) => {
            error.raw_os_error()
        }
        _ => None,
    };
    [Errno::ENOENT, Errno::EINVAL]
        .into_iter()
        .any(|errno| code == Some(errno as i32))
}

/// Whether one of our filters is left.
fn has_ours(ifindex: u32) -> Result<bool> {
    for direction in Direction::ALL {
        let filters = filters::list(ifindex, direction)?;
        if filters.iter().any(filters::Filter::is_ours) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether no filter at all is left on either side of the clsact qdisc.
fn is_unused(ifindex: u32) -> Result<bool> {
    for direction in Direction::ALL {
        if !filters::list(ifindex, direction)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// False if it is already gone.
fn delete_qdisc(ifindex: u32) -> Result<bool> {
    let mut request = TcMessage::with_index(i32::try_from(ifindex)?);
    request.header.handle = QdiscHandle {
        major: 0xffff,
        minor: 0,
    };
    request.header.parent = QdiscHandle::CLSACT;
    let request = RouteNetlinkMessage::DelQueueDiscipline(request);
    let answers = Netlink::open_route()?.commit(vec![(request, 0)])?;
    match answers.into_iter().collect::<Result<Vec<()>, Refused>>() {
        Ok(_) => Ok(true),
        Err(refused) if refused.missing() || refused.errno == Errno::EINVAL as i32 => Ok(false),
        Err(refused) => Err(refused.into()),
    }
}
