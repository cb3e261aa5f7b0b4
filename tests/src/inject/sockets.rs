//! What kind of socket a descriptor is.

use std::{
    collections::HashMap,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use nix::{
    libc,
    sys::socket::{NetlinkAddr, getsockname},
};
use socket2::{Domain, SockRef, Type};

use super::sys;

/// A socket of the process that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    /// By the name of its protocol; of routing one that hears of changes is "notifications".
    Netlink(&'static str),
    /// With a path.
    Unix,
    /// Half of a pair, which is how a runtime wakes itself.
    Pair,
    /// "icmp v4", "udp v6", "packet".
    Network(String),
}

/// What is known of them, by `socket:[inode]`.
#[derive(Debug, Default)]
pub(super) struct Sockets(HashMap<String, Socket>);

impl Sockets {
    pub(super) fn get(
        &mut self,
        process: &OwnedFd,
        descriptor: RawFd,
        link: &str,
    ) -> Option<Socket> {
        if let Some(known) = self.0.get(link) {
            return Some(known.clone());
        }
        let copy = sys::duplicate(process, descriptor).ok()?;
        let socket = look_at(&copy)?;
        // One without a name may get one, and one that hears nothing may join a group.
        if !matches!(socket, Socket::Pair | Socket::Netlink("route")) {
            self.0.insert(link.to_owned(), socket.clone());
        }
        Some(socket)
    }
}

fn look_at(socket: &OwnedFd) -> Option<Socket> {
    let descriptor = socket.as_raw_fd();
    let socket = SockRef::from(socket);
    let domain = socket.domain().ok()?;
    let protocol = socket.protocol().ok()?.map_or(0, i32::from);
    if domain == Domain::UNIX {
        let named = |address: socket2::SockAddr| address.as_pathname().is_some();
        let named = socket.local_addr().is_ok_and(named);
        return Some(if named { Socket::Unix } else { Socket::Pair });
    }
    let hears = || getsockname::<NetlinkAddr>(descriptor).is_ok_and(|name| name.groups() != 0);
    if i32::from(domain) == libc::AF_NETLINK && protocol == libc::NETLINK_ROUTE && hears() {
        return Some(Socket::Netlink("notifications"));
    }
    let kind = socket.r#type().ok()?;
    Some(of(i32::from(domain), kind, protocol))
}

/// The kind of socket that these arguments of socket(2) make.
pub(super) fn of(domain: i32, kind: Type, protocol: i32) -> Socket {
    let version = match domain {
        libc::AF_UNIX => return Socket::Unix,
        libc::AF_NETLINK => return Socket::Netlink(netlink_protocol(protocol)),
        libc::AF_INET => "v4",
        libc::AF_INET6 => "v6",
        libc::AF_PACKET => return Socket::Network("packet".to_owned()),
        other => return Socket::Network(format!("domain {other}")),
    };
    let what = match protocol {
        libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6 => "icmp",
        _ if kind == Type::STREAM => "tcp",
        _ if kind == Type::DGRAM => "udp",
        _ => "raw",
    };
    Socket::Network(format!("{what} {version}"))
}

fn netlink_protocol(protocol: i32) -> &'static str {
    match protocol {
        libc::NETLINK_ROUTE => "route",
        libc::NETLINK_SOCK_DIAG => "sock_diag",
        libc::NETLINK_NETFILTER => "netfilter",
        libc::NETLINK_KOBJECT_UEVENT => "uevent",
        libc::NETLINK_GENERIC => "generic",
        _ => "other",
    }
}
