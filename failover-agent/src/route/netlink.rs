//! A `NETLINK_ROUTE` socket: requests, answers, dumps.
//!
//! Blocking on purpose. The kernel works a request off inside `send`, and its answer lies in the receive queue when
//! `send` returns: there is nothing to wait for. So a switch is a handful of system calls in a row, without a
//! wake-up of the runtime in between.

use std::io;

use anyhow::{Context, Result, bail};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
        NetlinkBuffer, NetlinkMessage, NlasIterator, Parseable,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteHeader, RouteMessage},
        rule::{RuleHeader, RuleMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use thiserror::Error;

use crate::policy::Family;

/// The kernel fills dumps in pieces of at most 32 KiB (`netlink_dump` in `net/netlink/af_netlink.c`).
pub(super) const RECEIVE_BUFFER: usize = 64 * 1024;
/// A dump that changed while it was read is read again, at most this often.
const DUMP_ATTEMPTS: usize = 8;
/// `struct nlmsghdr` (`include/uapi/linux/netlink.h`).
const HEADER_LEN: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words for what was wrong.
const ERROR_MESSAGE: u16 = 1;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const ESRCH: i32 = 3;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;

/// The kernel refused a request.
#[derive(Debug, Error)]
#[error("{}{}", io::Error::from_raw_os_error(*errno), message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
pub(super) struct Refused {
    /// Positive error number.
    pub(super) errno: i32,
    /// What the kernel says about it.
    pub(super) message: Option<String>,
}

impl Refused {
    /// What was to be added is there already.
    pub(super) fn exists(&self) -> bool {
        self.errno == EEXIST
    }

    /// What was to be removed is not there (any more).
    pub(super) fn missing(&self) -> bool {
        self.errno == ESRCH || self.errno == ENOENT
    }

    /// A routing table that nobody has put anything into yet, or a family that the kernel does not have.
    fn nothing_to_list(&self) -> bool {
        matches!(self.errno, ENOENT | EOPNOTSUPP | EAFNOSUPPORT)
    }
}

/// A change to ask of the kernel: the message and its `NLM_F_*` flags besides REQUEST and ACK.
pub(super) type Request = (RouteNetlinkMessage, u16);

/// The socket.
pub(super) struct Netlink {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Netlink> {
        let open = || -> io::Result<(Socket, u32)> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            let port = socket.bind_auto()?.port_number();
            socket.connect(&SocketAddr::new(0, 0))?;
            // Refusals with words, and without a copy of what was asked.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            // Let the kernel filter dumps, so that a full routing table is not copied to us.
            socket.set_netlink_get_strict_chk(true)?;
            Ok((socket, port))
        };
        let (socket, port) = open().context("cannot open a NETLINK_ROUTE socket")?;
        Ok(Netlink {
            socket,
            port,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// The socket's address; notifications of changes that were made through it bear this number.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Asks for all of `requests` in one system call. The kernel works them off in order and answers each, whatever
    /// became of the ones before.
    pub(super) fn commit(&mut self, requests: Vec<Request>) -> Result<Vec<Result<(), Refused>>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut answers: Vec<Option<Result<(), Refused>>> = Vec::new();
        for (message, flags) in requests {
            self.append(&mut bytes, message, flags | NLM_F_ACK);
            answers.push(None);
        }
        self.send(&bytes)?;
        while answers.iter().any(Option::is_none) {
            self.receive()?;
            for message in messages(&self.buffer) {
                let message = message?;
                let index = message.sequence_number().wrapping_sub(first);
                let Some(slot) = usize::try_from(index)
                    .ok()
                    .and_then(|index| answers.get_mut(index))
                else {
                    continue; // a leftover of a dump that was given up
                };
                if message.message_type() == NLMSG_ERROR {
                    *slot = Some(answer(message.payload(), HEADER_LEN)?);
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Asks for a list. `decode` gets type and payload of each entry and may skip it.
    pub(super) fn dump<T>(
        &mut self,
        request: &RouteNetlinkMessage,
        decode: impl Fn(&[u8]) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(entries) = self.dump_once(request.clone(), &decode)? {
                return Ok(entries);
            }
        }
        bail!("the kernel's list changes faster than it can be read")
    }

    fn dump_once<T>(
        &mut self,
        request: RouteNetlinkMessage,
        decode: impl Fn(&[u8]) -> Result<Option<T>>,
    ) -> Result<Option<Vec<T>>> {
        let mut bytes = Vec::new();
        let sequence = self.append(&mut bytes, request, NLM_F_DUMP);
        self.send(&bytes)?;
        let mut entries = Vec::new();
        let mut intact = true;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                let message = message?;
                if message.sequence_number() != sequence {
                    continue;
                }
                intact &= message.flags() & NLM_F_DUMP_INTR == 0;
                // A dump that fails on the way ends with DONE and an error number, one that cannot start with ERROR.
                let result = match message.message_type() {
                    NLMSG_DONE => answer(message.payload(), 0)?,
                    NLMSG_ERROR => answer(message.payload(), HEADER_LEN)?,
                    _ => {
                        entries.extend(decode(message.payload())?);
                        continue;
                    }
                };
                return match result {
                    Err(refused) if refused.nothing_to_list() => Ok(Some(Vec::new())),
                    result => {
                        result?;
                        Ok(intact.then_some(entries))
                    }
                };
            }
        }
    }

    /// Routes of one family. `filter`'s table, protocol and type are matched by the kernel (0: any); `keep` looks at
    /// the header only, so that skipping an entry of a full routing table costs next to nothing.
    pub(super) fn routes(
        &mut self,
        family: Family,
        filter: &RouteHeader,
        keep: impl Fn(&RouteHeader) -> bool,
    ) -> Result<Vec<RouteMessage>> {
        let mut request = RouteMessage::default();
        request.header = RouteHeader {
            address_family: address_family(family),
            ..filter.clone()
        };
        self.dump(&RouteNetlinkMessage::GetRoute(request), |payload| {
            let header = RouteHeader::parse(payload)?;
            if header.address_family != address_family(family) || !keep(&header) {
                return Ok(None);
            }
            Ok(Some(RouteMessage::parse(payload)?))
        })
        .with_context(|| format!("cannot list {family} routes"))
    }

    /// Rules of one family.
    pub(super) fn rules(&mut self, family: Family) -> Result<Vec<RuleMessage>> {
        let mut request = RuleMessage::default();
        request.header.family = address_family(family);
        self.dump(&RouteNetlinkMessage::GetRule(request), |payload| {
            let header = RuleHeader::parse(payload)?;
            if header.family != address_family(family) {
                return Ok(None);
            }
            Ok(Some(RuleMessage::parse(payload)?))
        })
        .with_context(|| format!("cannot list {family} rules"))
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let sent = self.socket.send(bytes, 0).context("netlink: send")?;
        if sent != bytes.len() {
            bail!("netlink: sent {sent} of {} bytes", bytes.len());
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    result.context("netlink: receive")?;
                    return Ok(());
                }
            }
        }
    }
}

/// The kernel's number for a family.
pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The messages in a datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        Some(match NetlinkBuffer::new_checked(bytes) {
            Ok(message) => {
                // Each message starts at a multiple of 4 (NLMSG_ALIGN).
                let length = usize::try_from(message.length())
                    .unwrap_or(usize::MAX)
                    .next_multiple_of(4);
                bytes = bytes.get(length..).unwrap_or_default();
                Ok(message)
            }
            Err(error) => {
                bytes = &[];
                Err(error).context("netlink: malformed message")
            }
        })
    })
}

/// Reads the payload of `NLMSG_ERROR` or `NLMSG_DONE`: the negative error number (0: done), the header of what was asked
/// (ERROR only), attributes.
fn answer(payload: &[u8], header_len: usize) -> Result<Result<(), Refused>> {
    let (code, rest) = payload
        .split_first_chunk::<4>()
        .context("netlink: answer too short")?;
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Ok(Ok(()));
    }
    let message = NlasIterator::new(rest.get(header_len..).unwrap_or_default())
        .flatten()
        .find(|attribute| attribute.kind() == ERROR_MESSAGE)
        .map(|attribute| {
            let text = attribute.value();
            String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned()
        });
    Ok(Err(Refused {
        errno: -code,
        message,
    }))
}
