//! Edge: ending the connections that the datapath does not reach: idle sockets of this host, and forwarded flows that connection tracking
//! remembers.
//!
//! Both are selected by the addresses of the uplink that is no longer to be used, and by nothing else: a socket or flow without one of them
//! is not touched. The caller must leave out an address that another uplink has too.
//!
//! To be called when the new route is confirmed and the gates are set, so that a destroyed socket's RST with the old source cannot leave by
//! the new uplink. Conntrack entries go first, because that RST would create new ones.
//!
//! | file | concern |
//! |---|---|
//! | `sockets.rs` | local sockets, by `NETLINK_SOCK_DIAG` |
//! | `conntrack.rs` | flows, by `NETLINK_NETFILTER` |

mod conntrack;
mod sockets;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use ipnet::IpNet;
use nix::libc;

use crate::netlink::Refused;

/// Address families and protocols as netlink's messages hold them.
const AF_INET: u8 = byte(libc::AF_INET);
const AF_INET6: u8 = byte(libc::AF_INET6);
const IPPROTO_TCP: u8 = byte(libc::IPPROTO_TCP);
const IPPROTO_UDP: u8 = byte(libc::IPPROTO_UDP);

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "libc has them as `int`, as the socket calls do; netlink has a byte for them"
)]
const fn byte(number: libc::c_int) -> u8 {
    number as u8
}

/// How many were ended, and how long it took. A failure to end one does not keep the rest from being ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// TCP connections.
    pub tcp: usize,
    /// Connected UDP sockets, or UDP flows.
    pub udp: usize,
    /// Flows of other protocols (ICMP echo, SCTP, GRE, …).
    pub other: usize,
    /// From the call to the last answer of the kernel.
    pub took: Duration,
    /// What failed, one line each.
    pub problems: Vec<String>,
}

/// What to end, and what to spare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The addresses of the uplink that is no longer to be used.
    pub addresses: Vec<IpAddr>,
    /// Networks whose hosts are reached without that uplink, or through its closed gate: connections with
    /// them are spared.
    pub spared: Vec<IpNet>,
    /// Whether to spare TCP connections whose local port is that of a listening socket: they came in by the uplink, and its gate passes
    /// their answers.
    pub spare_accepted: bool,
}

impl Scope {
    fn spares(&self, remote: IpAddr) -> bool {
        self.spared.iter().any(|network| network.contains(&remote))
    }
}

/// What this kernel can end.
#[derive(Clone, Debug)]
pub struct Cutoff {
    protocols: Vec<sockets::Protocol>,
    missing: Vec<String>,
}

impl Cutoff {
    /// Finds out what the kernel can do in the network namespace of the calling thread, and makes it load the modules for it, which would
    /// take too long in the middle of a switch. Ends nothing.
    pub fn open() -> Cutoff {
        let mut missing = Vec::new();
        let protocols = sockets::supported(&mut missing);
        missing.extend(conntrack::missing());
        Cutoff { protocols, missing }
    }

    /// What this kernel cannot do, one line each, to be logged once. [`Cutoff::destroy_sockets`] and [`Cutoff::delete_flows`] do the rest.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Destroys the TCP connections and connected UDP sockets of this network namespace whose local address is in `scope`: the application
    /// gets `ECONNABORTED` at once, even if it only waits. IPv4-mapped IPv6 sockets are found by their IPv4 address.
    ///
    /// Connections are destroyed in every state but TIME-WAIT, which no application holds. Sockets that are bound to an address without
    /// being connected are spared, above all listening TCP sockets. They depend on no path and work again as soon as the uplink does, even
    /// if its address was gone in between; and a server whose listening socket fails does not open another, but ends or retries `accept`
    /// for ever.
    pub fn destroy_sockets(&self, scope: &Scope) -> Ended {
        timed(|ended| {
            for &protocol in &self.protocols {
                let result = sockets::destroy(protocol, scope, ended);
                ended.note(result, &format!("sockets: {protocol}"));
            }
        })
    }

    /// Deletes the conntrack entries of this network namespace that use an address of `scope` as the source of outgoing packets: as the
    /// original source (connections of this host), or as the destination of the replies (masqueraded and SNATed ones). Their next packet is
    /// a new flow, and gets an address of the uplink by which it leaves.
    ///
    /// Flows that another host opened towards one of the addresses are spared, too: a server behind the router could not answer without its
    /// entry, and continues with it if the uplink still carries it.
    pub fn delete_flows(&self, scope: &Scope) -> Ended {
        timed(|ended| {
            let result = conntrack::delete(scope, ended);
            ended.note(result, "conntrack");
        })
    }
}

impl Ended {
    fn count(&mut self, protocol: u8) {
        match protocol {
            IPPROTO_TCP => self.tcp += 1,
            IPPROTO_UDP => self.udp += 1,
            _ => self.other += 1,
        }
    }

    fn note(&mut self, result: Result<()>, subject: &str) {
        if let Err(error) = result {
            self.problems.push(format!("{subject}: {error:#}"));
        }
    }
}

fn timed(work: impl FnOnce(&mut Ended)) -> Ended {
    let started = Instant::now();
    let mut ended = Ended::default();
    work(&mut ended);
    ended.took = started.elapsed();
    ended
}

/// Refusals of the kernel, counted by their reason: one line each.
#[derive(Default)]
struct Refusals(BTreeMap<String, usize>);

impl Refusals {
    fn add(&mut self, refused: &Refused) {
        *self.0.entry(refused.to_string()).or_default() += 1;
    }

    fn lines(self, what: &str) -> impl Iterator<Item = String> {
        self.0
            .into_iter()
            .map(move |(reason, count)| format!("{what}: {count} not ended: {reason}"))
    }
}
