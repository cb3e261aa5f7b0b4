//! Which programs run on an interface's packets, whoever attached them. Reads only.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::{
    SchedClassifier,
    links::{FdLink, PinnedLink},
};
use rtnetlink::{
    packet_core::NlasIterator,
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcHandle, TcMessage},
    },
    sys::protocols::NETLINK_ROUTE,
};

use super::{Direction, clsact, pins, requirements};
use crate::netlink::Netlink;

/// A program (TCX) or filter (clsact) on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// On which side.
    pub direction: Direction,
    /// Whether an agent with this `bpf_dir` attached it.
    pub ours: bool,
    /// What it is, in the words of `bpftool` or `tc`.
    pub what: String,
}

/// Whether programs can be attached as TCX links.
pub fn has_tcx() -> bool {
    requirements::has_tcx()
}

/// The programs on an interface in the order in which they run: TCX before clsact, first egress, then ingress.
///
/// # Errors
///
/// No such interface; the kernel refuses.
pub fn on_interface(bpf_dir: &Path, ifindex: u32, name: &str) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for direction in Direction::ALL {
        if requirements::has_tcx() {
            programs.extend(tcx(bpf_dir, ifindex, name, direction)?);
        }
        programs.extend(filters(ifindex, direction)?);
    }
    Ok(programs)
}

fn tcx(bpf_dir: &Path, ifindex: u32, name: &str, direction: Direction) -> Result<Vec<Program>> {
    let (_, programs) = SchedClassifier::query_tcx(name, direction.into())
        .with_context(|| format!("listing the {direction} programs of {name}"))?;
    let ours = pinned_program(&pins::link(bpf_dir, ifindex, direction));
    let programs = programs.iter().map(|program| Program {
        direction,
        ours: Some(program.id()) == ours,
        what: format!(
            "TCX program {} (id {})",
            program.name_as_str().unwrap_or_default(),
            program.id()
        ),
    });
    Ok(programs.collect())
}

/// Id of the program behind a pinned link; None if nothing (or something else) is pinned there.
fn pinned_program(pin: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    Some(link.info().ok()?.program_id())
}

/// `struct tcmsg` (include/uapi/linux/rtnetlink.h): family, interface, handle, parent, and info with the priority in its
/// upper half.
const HEADER: usize = 20;
/// `TCA_KIND`.
const KIND: u16 = 1;

/// The filters of a clsact qdisc. Only what all kinds have in common is read.
fn filters(ifindex: u32, direction: Direction) -> Result<Vec<Program>> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let mut request = TcMessage::with_index(i32::try_from(ifindex)?);
    request.header.parent = TcHandle {
        major: 0xffff,
        minor: clsact::parent_minor(direction),
    };
    let request = RouteNetlinkMessage::GetTrafficFilter(request);
    let mut filters = netlink
        .dump(&request, |payload| {
            let Some((header, attributes)) = payload.split_first_chunk::<HEADER>() else {
                return Ok(None);
            };
            let number = |at: usize| {
                u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            let (handle, priority) = (number(8), number(16) >> 16);
            // The first message of each priority is its chain, not a filter.
            if handle == 0 {
                return Ok(None);
            }
            let kind = NlasIterator::new(attributes)
                .flatten()
                .find(|attribute| attribute.kind() == KIND)
                .map(|kind| {
                    let text = kind.value();
                    String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned()
                });
            Ok(Some(Program {
                direction,
                ours: priority == u32::from(clsact::PRIORITY)
                    && handle == u32::from(clsact::HANDLE),
                what: format!(
                    "clsact filter {} (pref {priority})",
                    kind.unwrap_or_default()
                ),
            }))
        })
        .with_context(|| format!("listing the {direction} filters of interface {ifindex}"))?;
    // Some kinds (u32) list their parts.
    filters.dedup();
    Ok(filters)
}
