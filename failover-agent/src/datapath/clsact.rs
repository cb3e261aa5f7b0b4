//! Filters on a clsact qdisc, for kernels without TCX.
//!
//! Filters live in the kernel without any pin. They are found again by a priority and handle of our own, and replaced
//! in one step.

use std::io;

use anyhow::{Context as _, Result};
use aya::programs::{
    Link as _, ProgramError, SchedClassifier,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use failover_ebpf::Hook;
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage},
    packet_route::{RouteNetlinkMessage, tc::TcHandle as QdiscHandle, tc::TcMessage},
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::Direction;
use crate::interface;

/// Before the filters of others: one of them that accepts a packet ends the run.
pub(super) const PRIORITY: u16 = 1;
/// Unlike any that `tc` or the kernel would choose by itself.
pub(super) const HANDLE: TcHandle = TcHandle::new(0xfa11, 0x0001);

/// Adds the clsact qdisc if it is missing; says whether it is ours. `before`: whose it was in an earlier run.
pub(super) fn ensure_qdisc(name: &str, before: Option<Hook>) -> Result<Hook> {
    match tc::qdisc_add_clsact(name) {
        Ok(()) => Ok(Hook::ClsactOwned),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
            Ok(if before == Some(Hook::ClsactOwned) {
                Hook::ClsactOwned
            } else {
                Hook::Clsact
            })
        }
        Err(error) => Err(error).context("adding a clsact qdisc"),
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

/// Removes our filters, and the qdisc if we added it and nobody else uses it now. Says what it removed.
/// An interface that is gone took everything with it.
pub(super) fn detach(ifindex: u32, hook: Hook) -> Result<Vec<String>> {
    let mut done = Vec::new();
    if hook == Hook::Tcx {
        return Ok(done);
    }
    let Some(name) = interface::name(ifindex) else {
        return Ok(done);
    };
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
    if hook == Hook::ClsactOwned && is_unused(ifindex)? {
        delete_qdisc(ifindex).with_context(|| format!("removing the clsact qdisc on {name}"))?;
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

/// Whether no filter of anybody is left on either side of the clsact qdisc.
fn is_unused(ifindex: u32) -> Result<bool> {
    for direction in Direction::ALL {
        let mut request = TcMessage::with_index(i32::try_from(ifindex)?);
        request.header.parent = QdiscHandle {
            major: 0xffff,
            minor: parent_minor(direction),
        };
        let filters = exchange(RouteNetlinkMessage::GetTrafficFilter(request), NLM_F_DUMP)
            .context("listing filters")?;
        if filters > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Minor number of a side of clsact, include/uapi/linux/pkt_sched.h: TC_H_MIN_INGRESS, TC_H_MIN_EGRESS.
pub(super) fn parent_minor(direction: Direction) -> u16 {
    match direction {
        Direction::Ingress => 0xfff2,
        Direction::Egress => 0xfff3,
    }
}

fn delete_qdisc(ifindex: u32) -> Result<()> {
    let mut request = TcMessage::with_index(i32::try_from(ifindex)?);
    request.header.handle = QdiscHandle {
        major: 0xffff,
        minor: 0,
    };
    // TC_H_CLSACT, the same number as TC_H_INGRESS.
    request.header.parent = QdiscHandle {
        major: 0xffff,
        minor: 0xfff1,
    };
    exchange(RouteNetlinkMessage::DelQueueDiscipline(request), NLM_F_ACK).map(drop)
}

/// Sends one request; says how many messages answered it before the end.
///
/// Only their headers are read (include/uapi/linux/netlink.h): filters of others come in kinds that nobody here knows.
fn exchange(request: RouteNetlinkMessage, flags: u16) -> Result<usize> {
    const HEADER: usize = 16;
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answers = 0;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Some((&[a, b, c, d, e, f, ..], body)) = rest.split_at_checked(HEADER) {
            match u16::from_ne_bytes([e, f]) {
                NLMSG_DONE => return Ok(answers),
                NLMSG_ERROR => {
                    let code = body.first_chunk().map(|code| i32::from_ne_bytes(*code));
                    return match code.context("a netlink answer is cut short")? {
                        0 => Ok(answers),
                        code => Err(io::Error::from_raw_os_error(-code).into()),
                    };
                }
                _ => answers += 1,
            }
            let length = usize::try_from(u32::from_ne_bytes([a, b, c, d]))?.next_multiple_of(4);
            rest = rest.get(length.max(HEADER)..).unwrap_or_default();
        }
    }
}
