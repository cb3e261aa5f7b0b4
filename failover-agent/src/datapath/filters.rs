//! The qdisc of kind clsact or ingress on an interface, and all its filters, ours and others. Reads only.

use anyhow::{Context as _, Result};
use aya_obj::generated::TCA_BPF_ID;
use nix::libc::{TCA_KIND, TCA_OPTIONS};
use rtnetlink::{
    packet_core::NlasIterator,
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcHandle, TcMessage},
    },
};

use super::{Direction, clsact};
use crate::netlink::Netlink;

/// `struct tcmsg` (include/uapi/linux/rtnetlink.h): family, interface, handle, parent, and info with the priority in its
/// upper half.
const HEADER: usize = 20;
const IFINDEX_AT: usize = 4;
const HANDLE_AT: usize = 8;
const PARENT_AT: usize = 12;
const INFO_AT: usize = 16;

/// A filter. Only the fields that all kinds share are read, and the program of one of kind `bpf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) priority: u32,
    handle: u32,
    pub(super) kind: String,
    /// Id of its program.
    pub(super) program: Option<u32>,
}

impl Filter {
    /// Whether an agent added it.
    pub(super) fn is_ours(&self) -> bool {
        self.priority == u32::from(clsact::PRIORITY) && self.handle == u32::from(clsact::HANDLE)
    }
}

/// The kind of the qdisc on an interface that has clsact's handle: `clsact`, `ingress`, or `None`.
///
/// The kernel lists the qdiscs of all interfaces; its answer for one interface would be sent to all listeners.
pub(super) fn qdisc(ifindex: u32) -> Result<Option<String>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(0));
    let wanted = (ifindex, u32::from(TcHandle::CLSACT));
    let kinds = Netlink::open_route()?.dump(&request, |payload| {
        let Some((header, attributes)) = payload.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let found = (number(header, IFINDEX_AT), number(header, PARENT_AT));
        Ok(kind(attributes).filter(|_| found == wanted))
    });
    let kinds = kinds.context("listing qdiscs")?;
    Ok(kinds.into_iter().next())
}

/// The filters on one side of a clsact qdisc. An `ingress` qdisc returns the same ones for both sides.
pub(super) fn list(ifindex: u32, direction: Direction) -> Result<Vec<Filter>> {
    let mut request = TcMessage::with_index(i32::try_from(ifindex)?);
    request.header.parent = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: match direction {
            Direction::Ingress => TcHandle::MIN_INGRESS,
            Direction::Egress => TcHandle::MIN_EGRESS,
        },
    };
    let request = RouteNetlinkMessage::GetTrafficFilter(request);
    let filters = Netlink::open_route()?.dump(&request, |payload| Ok(read(payload)));
    let mut filters = filters
        .with_context(|| format!("listing the {direction} filters of interface {ifindex}"))?;
    // Some kinds (u32) list their parts, each with a handle of its own.
    filters.dedup_by(|part, filter| {
        (part.priority, &part.kind) == (filter.priority, &filter.kind) && part.program.is_none()
    });
    Ok(filters)
}

fn read(payload: &[u8]) -> Option<Filter> {
    let (header, attributes) = payload.split_first_chunk::<HEADER>()?;
    let (handle, priority) = (number(header, HANDLE_AT), number(header, INFO_AT) >> 16);
    // The first message of each priority is its chain, not a filter.
    if handle == 0 {
        return None;
    }
    let kind = kind(attributes).unwrap_or_default();
    // Each kind numbers its options in its own way.
    let options = attribute(attributes, TCA_OPTIONS).filter(|_| kind == "bpf");
    let program = options.and_then(|options| {
        let id = attribute(&options, u16::try_from(TCA_BPF_ID).ok()?)?;
        Some(u32::from_ne_bytes(*id.first_chunk()?))
    });
    Some(Filter {
        priority,
        handle,
        kind,
        program,
    })
}

fn number(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

fn kind(attributes: &[u8]) -> Option<String> {
    let text = attribute(attributes, TCA_KIND)?;
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The value of the first attribute of this type.
fn attribute(attributes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut all = NlasIterator::new(attributes).flatten();
    let found = all.find(|attribute| attribute.kind() == wanted)?;
    Some(found.value().to_vec())
}
