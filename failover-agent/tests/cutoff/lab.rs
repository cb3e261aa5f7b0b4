//! Cables between network namespaces, sockets, and `ss`, `conntrack` and `nft` as independent tools.

use std::{net::SocketAddr, process::Command, time::Duration};

use failover_agent::cutoff::Scope;
use failover_lab::wait_until;
use socket2::{Domain, Socket, Type};

use crate::namespaces::Host;

/// Lays a cable from `near` in the calling thread's namespace to `far` in that of `host`.
pub(crate) fn cable(near: &str, host: &Host, far: &str) {
    sh(&format!("ip link add {near} type veth peer name {far}"));
    host.take(far);
    sh(&format!("ip link set {near} up"));
}

/// Commands, one a line; each must succeed. Returns what they print.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {complaints}");
    String::from_utf8(output.stdout).unwrap()
}

/// A bounded wait.
pub(crate) fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, Duration::from_secs(10), condition).unwrap();
}

/// Addresses from text, separated by blanks.
pub(crate) fn addresses(text: &str) -> Scope {
    Scope {
        addresses: text
            .split_whitespace()
            .map(|address| address.parse().unwrap())
            .collect(),
        ..Scope::default()
    }
}

/// A socket that is bound to a local address. An IPv4 socket for `192.0.2.1:0`, an IPv6 one for `[::ffff:192.0.2.1]:0`.
pub(crate) fn bound(kind: Type, local: &str) -> Socket {
    let local: SocketAddr = local.parse().unwrap();
    let socket = Socket::new(Domain::for_address(local), kind, None).unwrap();
    if kind == Type::STREAM {
        socket.set_reuse_address(true).unwrap();
    }
    socket.bind(&local.into()).unwrap();
    socket
}

/// The same, connected.
pub(crate) fn connected(kind: Type, local: &str, remote: &str) -> Socket {
    let socket = bound(kind, local);
    let remote: SocketAddr = remote.parse().unwrap();
    socket.connect(&remote.into()).unwrap();
    socket
}

/// A listening TCP socket with a long queue: connections need not be accepted.
pub(crate) fn listener(local: &str) -> Socket {
    let socket = bound(Type::STREAM, local);
    socket.listen(20_000).unwrap();
    socket
}
