//! Local sockets, by `NETLINK_SOCK_DIAG` (`sock_diag(7)`, `include/uapi/linux/inet_diag.h`, `net/ipv4/inet_diag.c`).
//!
//! The kernel lists the sockets that hold an address, by a filter program of ours: all other sockets cost only the walk over the kernel's
//! tables. Each listed socket is then destroyed by its cookie, so that a later socket with the same ports is not affected.

use std::{collections::HashSet, fmt, net::IpAddr};

use anyhow::{Context, Result};
use nix::libc::ENOENT;
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;

use super::{AF_INET, AF_INET6, Ended, IPPROTO_TCP, IPPROTO_UDP, Refusals, Scope};
use crate::netlink::{Message, Netlink, Refused};

/// `include/uapi/linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `include/uapi/linux/inet_diag.h`.
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_COND: u8 = 7;
/// `struct inet_diag_bc_op`.
const OP: usize = 4;
/// Addresses in one filter; its jumps and length must fit into 16 bits.
const ADDRESSES: usize = 1000;

/// Each bit is a state of `include/net/tcp_states.h`. Without TIME_WAIT (6), CLOSE (7) and LISTEN (10); with NEW_SYN_RECV (12).
const TCP_STATES: u32 = (1 << 1)
    | (1 << 2)
    | (1 << 3)
    | (1 << 4)
    | (1 << 5)
    | (1 << 8)
    | (1 << 9)
    | (1 << 11)
    | (1 << 12);
const TCP_LISTEN: u32 = 1 << 10;
/// A connected UDP socket counts as ESTABLISHED.
const UDP_STATES: u32 = 1 << 1;
/// `idiag_timer` of a connection that the application has closed and of which the kernel keeps the rest (`inet_twsk_diag_fill`).
const TIMER_TIME_WAIT: u8 = 3;
/// Of sockets that share ports (SO_REUSEPORT) the kernel finds one at a time: each pass can reveal another.
const PASSES: usize = 16;

/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
type SocketId = [u8; 48];
/// A port as in that structure: big-endian.
type Port = [u8; 2];

/// The protocols whose sockets are destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn number(self) -> u8 {
        match self {
            Protocol::Tcp => IPPROTO_TCP,
            Protocol::Udp => IPPROTO_UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        })
    }
}

/// The protocols whose sockets the kernel can list and destroy. `missing` gets a line for each that it cannot.
pub(super) fn supported(missing: &mut Vec<String>) -> Vec<Protocol> {
    [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .filter(|&protocol| match try_out(protocol) {
            Ok(()) => true,
            Err(error) => {
                missing.push(format!(
                    "idle {protocol} sockets cannot be ended, this kernel has no CONFIG_INET_DIAG_DESTROY or its module is missing: {error:#}"
                ));
                false
            }
        })
        .collect()
}

/// Lists nothing, and destroys a socket that cannot exist because it has no port.
fn try_out(protocol: Protocol) -> Result<()> {
    let mut netlink = open()?;
    let unspecified = [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)];
    list(&mut netlink, protocol, AF_INET, 0, &unspecified)?;
    let request = (destruction(protocol, AF_INET, &[0; 48]), 0);
    for answer in netlink.commit(vec![request])? {
        match answer {
            Err(refused) if refused.errno != ENOENT => return Err(refused.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Destroys the sockets in `scope` and counts them.
pub(super) fn destroy(protocol: Protocol, scope: &Scope, ended: &mut Ended) -> Result<()> {
    let mut netlink = open()?;
    let addresses = scope.addresses.as_slice();
    let accepting = match protocol {
        Protocol::Tcp if scope.spare_accepted => listening_ports(&mut netlink)?,
        _ => HashSet::new(),
    };
    let mut refusals = Refusals::default();
    let of_v4: Vec<IpAddr> = addresses.iter().copied().filter(IpAddr::is_ipv4).collect();
    // An IPv6 socket may hold an IPv4 address, mapped.
    for (family, addresses) in [(AF_INET, of_v4.as_slice()), (AF_INET6, addresses)] {
        for addresses in addresses.chunks(ADDRESSES) {
            destroy_in_family(
                &mut netlink,
                protocol,
                family,
                addresses,
                |id| accepting.contains(&local_port(id)) || scope.spares(remote(id, family)),
                ended,
                &mut refusals,
            )?;
        }
    }
    ended
        .problems
        .extend(refusals.lines(&format!("sockets: {protocol}")));
    Ok(())
}

fn destroy_in_family(
    netlink: &mut Netlink,
    protocol: Protocol,
    family: u8,
    addresses: &[IpAddr],
    spares: impl Fn(&SocketId) -> bool,
    ended: &mut Ended,
    refusals: &mut Refusals,
) -> Result<()> {
    let states = match protocol {
        Protocol::Tcp => TCP_STATES,
        Protocol::Udp => UDP_STATES,
    };
    for _ in 0..PASSES {
        let found = list(netlink, protocol, family, states, addresses)?;
        let requests = found
            .iter()
            .filter(|id| !spares(id))
            .map(|id| (destruction(protocol, family, id), 0))
            .collect();
        let (mut destroyed, mut hidden) = (false, false);
        for answer in netlink.commit(requests)? {
            match answer {
                Ok(()) => {
                    ended.count(protocol.number());
                    destroyed = true;
                }
                Err(Refused { errno: ENOENT, .. }) => hidden = true,
                Err(refused) => refusals.add(&refused),
            }
        }
        // Not found although just listed: the socket has ended by itself, or the kernel found another with the same ports first.
        if !(destroyed && hidden) {
            break;
        }
    }
    Ok(())
}

fn open() -> Result<Netlink> {
    Netlink::open(NETLINK_SOCK_DIAG).context("cannot open a NETLINK_SOCK_DIAG socket")
}

/// The sockets of one family in one of `states` (a bit each) whose local address is one of `addresses`.
fn list(
    netlink: &mut Netlink,
    protocol: Protocol,
    family: u8,
    states: u32,
    addresses: &[IpAddr],
) -> Result<Vec<SocketId>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let mut message = request(SOCK_DIAG_BY_FAMILY, protocol, family, states, &[0; 48]);
    message.attribute(INET_DIAG_REQ_BYTECODE, &filter(addresses));
    dump(netlink, protocol, &message)
}

/// Local ports of the listening TCP sockets of both families: an IPv6 one accepts IPv4 connections, too.
fn listening_ports(netlink: &mut Netlink) -> Result<HashSet<Port>> {
    let mut ports = HashSet::new();
    for family in [AF_INET, AF_INET6] {
        let message = request(
            SOCK_DIAG_BY_FAMILY,
            Protocol::Tcp,
            family,
            TCP_LISTEN,
            &[0; 48],
        );
        ports.extend(
            dump(netlink, Protocol::Tcp, &message)?
                .iter()
                .map(local_port),
        );
    }
    Ok(ports)
}

fn local_port(id: &SocketId) -> Port {
    [id[0], id[1]]
}

/// The far end's address; the one of an IPv4 connection on an IPv6 socket is unmapped.
fn remote(id: &SocketId, family: u8) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&id[20..36]);
    if family == AF_INET {
        return IpAddr::from([octets[0], octets[1], octets[2], octets[3]]);
    }
    IpAddr::from(octets).to_canonical()
}

fn dump(netlink: &mut Netlink, protocol: Protocol, message: &Message) -> Result<Vec<SocketId>> {
    netlink
        .dump(message, |payload| {
            // `struct inet_diag_msg`: family, state, timer, retransmissions, then the socket's id.
            let id: &SocketId = payload
                .get(4..)
                .and_then(<[u8]>::first_chunk)
                .ok_or("sock_diag: entry too short")?;
            Ok((payload[2] != TIMER_TIME_WAIT).then_some(*id))
        })
        .with_context(|| format!("cannot list {protocol} sockets"))
}

fn destruction(protocol: Protocol, family: u8, id: &SocketId) -> Message {
    request(SOCK_DESTROY, protocol, family, 0, id)
}

/// `struct inet_diag_req_v2`.
fn request(kind: u16, protocol: Protocol, family: u8, states: u32, id: &SocketId) -> Message {
    let mut payload = vec![family, protocol.number(), 0, 0];
    payload.extend(states.to_ne_bytes());
    payload.extend(id);
    Message { kind, payload }
}

/// A program for the kernel (`inet_diag_bc_run`) that accepts a socket whose local address is one of `addresses`. Every operation jumps by
/// one number of bytes if it holds and by another if not. A jump exactly to the program's end accepts the socket, one beyond it refuses.
fn filter(addresses: &[IpAddr]) -> Vec<u8> {
    let mut program = Vec::new();
    // Built from the last operation to the first, because jumps lead forward.
    for address in addresses.iter().rev() {
        let (family, octets) = match address {
            IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
        };
        // `struct inet_diag_hostcond`: family, prefix length, padding, port (-1: any), address.
        let mut condition = vec![family, if octets.len() == 4 { 32 } else { 128 }, 0, 0];
        condition.extend((-1i32).to_ne_bytes());
        condition.extend(octets);
        let length = OP + condition.len();
        let mut block = operation(INET_DIAG_BC_S_COND, length, length + OP);
        block.extend(condition);
        if !program.is_empty() {
            // If it holds, it jumps over everything that follows. "yes" is never taken, but must be the operation's length.
            block.extend(operation(INET_DIAG_BC_JMP, OP, OP + program.len()));
        }
        block.extend(program);
        program = block;
    }
    program
}

/// `struct inet_diag_bc_op`.
fn operation(code: u8, yes: usize, no: usize) -> Vec<u8> {
    let yes = u8::try_from(yes).unwrap_or(u8::MAX);
    let no = u16::try_from(no).unwrap_or(u16::MAX);
    let mut bytes = vec![code, yes];
    bytes.extend(no.to_ne_bytes());
    bytes
}
