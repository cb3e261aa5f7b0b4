//! Netlink messages: what they ask for, and having the kernel itself refuse one.
//!
//! A message that is to be refused gets a type that does not exist. The kernel skips it, works off the others that came with it, and
//! answers with an NLMSG_ERROR of the right sequence number; in that answer the error is replaced by the ordered one.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use nix::{errno::Errno, libc};

use super::kind::{Class, Kind};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
/// Where the type stands in a header, and in the copy that an NLMSG_ERROR has of it.
const TYPE: u64 = 4;
const TYPE_IN_ERROR: u64 = 24;
const ERROR: u64 = 16;

/// A message that the process is about to send.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// In the process's memory, where its header begins.
    pub(super) address: u64,
    sequence: u32,
    number: u16,
}

/// The messages in what is sent on a socket of this protocol from this address on.
pub(super) fn messages(protocol: &str, bytes: &[u8], address: u64) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..)
        && let (Some(length), Some(number), Some(flags), Some(sequence)) = (
            u32_at(rest, 0),
            u16_at(rest, 4),
            u16_at(rest, 6),
            u32_at(rest, 8),
        )
        && let Ok(length) = usize::try_from(length)
        && let Some(payload) = rest.get(HEADER..length.max(HEADER))
    {
        messages.push(Message {
            kind: kind(protocol, number, flags, payload),
            address: address + at as u64,
            sequence,
            number,
        });
        at += length.next_multiple_of(4);
    }
    messages
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn kind(protocol: &str, number: u16, flags: u16, payload: &[u8]) -> Kind {
    let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    let (class, what) = match protocol {
        "route" => routing(number, dump, payload),
        // SOCK_DESTROY (linux/sock_diag.h).
        "sock_diag" if number == 21 => (Class::SockDestroy, "SOCK_DESTROY".to_owned()),
        "sock_diag" => (Class::NetlinkDump, "SOCK_DIAG_BY_FAMILY".to_owned()),
        // IPCTNL_MSG_CT_* (linux/netfilter/nfnetlink_conntrack.h).
        "netfilter" => match number {
            0x100 => (Class::NetlinkChange, "IPCTNL_MSG_CT_NEW".to_owned()),
            0x101 => (Class::NetlinkDump, "IPCTNL_MSG_CT_GET".to_owned()),
            0x102 => (Class::NetlinkChange, "IPCTNL_MSG_CT_DELETE".to_owned()),
            other => (Class::NetlinkChange, format!("message {other:#x}")),
        },
        _ => (Class::NetlinkChange, format!("message {number}")),
    };
    let dump = if dump { " dump" } else { "" };
    Kind::new(class, format!("netlink {protocol} {what}{dump}"))
}

fn routing(number: u16, dump: bool, payload: &[u8]) -> (Class, String) {
    let family = match payload.first() {
        Some(2) => " v4",
        Some(10) => " v6",
        _ => "",
    };
    let object = match number / 4 {
        4 => "LINK",
        5 => "ADDR",
        6 => "ROUTE",
        7 => "NEIGH",
        8 => "RULE",
        9 => "QDISC",
        10 => "TCLASS",
        11 => "TFILTER",
        26 => "NEXTHOP",
        29 => "NEXTHOPBUCKET",
        _ => "",
    };
    let (class, verb) = match number % 4 {
        0 if object == "ROUTE" => (Class::NewRoute, "NEW"),
        0 => (Class::NetlinkChange, "NEW"),
        1 => (Class::NetlinkChange, "DEL"),
        2 if dump => (Class::NetlinkDump, "GET"),
        2 => (Class::NetlinkGet, "GET"),
        _ => (Class::NetlinkChange, "SET"),
    };
    let table = if object == "ROUTE" && verb != "GET" {
        table(payload)
    } else {
        ""
    };
    if object.is_empty() {
        return (class, format!("message {number}{family}"));
    }
    (class, format!("RTM_{verb}{object}{table}{family}"))
}

/// Main, or one of an uplink's own: RTA_TABLE, else what stands in the header.
fn table(payload: &[u8]) -> &'static str {
    /// `struct rtmsg`, and its `rtm_table`.
    const LENGTH: usize = 12;
    const TABLE: usize = 4;
    const RTA_TABLE: u16 = 15;
    let mut number = payload.get(TABLE).map(|table| u32::from(*table));
    let mut at = LENGTH;
    while let Some(attribute) = payload.get(at..)
        && let (Some(length), Some(kind)) = (u16_at(attribute, 0), u16_at(attribute, 2))
        && length >= 4
    {
        if kind == RTA_TABLE {
            number = u32_at(attribute, 4);
        }
        at += usize::from(length).next_multiple_of(4);
    }
    if number == Some(u32::from(libc::RT_TABLE_MAIN)) {
        " main"
    } else {
        " own"
    }
}

/// Refusals that are on their way.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Refusal>);

#[derive(Debug)]
struct Refusal {
    socket: String,
    sequence: u32,
    number: u16,
    errno: Errno,
}

impl Refusals {
    /// Has the kernel refuse a message that is about to be sent on a socket. Returns what is to be put back at its address.
    pub(super) fn spoil(
        &mut self,
        memory: &File,
        socket: &str,
        message: &Message,
        errno: Errno,
    ) -> io::Result<Vec<u8>> {
        let mut header = vec![0; HEADER];
        memory.read_exact_at(&mut header, message.address)?;
        // The least byte only: the upper one of a netfilter message names a module that the kernel would try to load.
        let no_such = (message.number & 0xff00) | 0xff;
        memory.write_all_at(&no_such.to_ne_bytes(), message.address + TYPE)?;
        self.0.push(Refusal {
            socket: socket.to_owned(),
            sequence: message.sequence,
            number: message.number,
            errno,
        });
        Ok(header)
    }

    /// Whether an answer to come on this socket is to be changed.
    pub(super) fn expects(&self, socket: &str) -> bool {
        self.0.iter().any(|refusal| refusal.socket == socket)
    }

    /// Puts the ordered errors into what has just been received.
    pub(super) fn answer(&mut self, memory: &File, socket: &str, buffer: u64, length: usize) {
        let mut bytes = vec![0; length];
        if memory.read_exact_at(&mut bytes, buffer).is_err() {
            return; // Killed meanwhile.
        }
        let mut at = 0;
        while let Some(rest) = bytes.get(at..)
            && let (Some(length), Some(number), Some(sequence)) =
                (u32_at(rest, 0), u16_at(rest, 4), u32_at(rest, 8))
            && let Ok(length) = usize::try_from(length)
            && length >= HEADER
        {
            let refused =
                |refusal: &&Refusal| refusal.socket == socket && refusal.sequence == sequence;
            if number == NLMSG_ERROR
                && let Some(refusal) = self.0.iter().find(refused)
            {
                let address = buffer + at as u64;
                let code = -(refusal.errno as i32);
                memory
                    .write_all_at(&code.to_ne_bytes(), address + ERROR)
                    .ok();
                let number = refusal.number.to_ne_bytes();
                memory.write_all_at(&number, address + TYPE_IN_ERROR).ok();
            }
            at += length.next_multiple_of(4);
        }
    }
}
