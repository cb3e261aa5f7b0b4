//! Who changed a route or rule: its protocol number, and the process, where that is certain.
//!
//! A notification bears the port of the socket through which the change was asked for. By custom a process's first socket has its
//! process id as port (`netlink_autobind` in `net/netlink/af_netlink.c`); libnl adds n << 22 for more of them; otherwise the kernel
//! takes a number near 2³². A wrong name misleads, so a process counts only if it holds the socket that has the port. A process that
//! has ended meanwhile (`ip`) remains unknown.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Protocol number of the route or rule that was changed (`RTPROT_*` in `linux/rtnetlink.h`); of what was removed it is the
    /// one of its owner.
    pub protocol: u8,
    /// Who asked for the change.
    pub origin: Origin,
}

/// Who asked the kernel for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel did it by itself, or for a program that does not use netlink (`route`, `pppd`).
    Kernel,
    /// A process.
    Process {
        /// Its id in our PID namespace.
        pid: u32,
        /// Its name (`/proc/PID/comm`): at most 15 bytes.
        name: String,
    },
    /// A process that has ended since, or that we cannot see.
    Unknown,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Kernel => write!(f, "the kernel"),
            Origin::Process { pid, name } => write!(f, "{name} (process {pid})"),
            Origin::Unknown => write!(f, "an unknown process"),
        }
    }
}

/// A protocol number as `ip route` names it (`lib/rt_names.c` in iproute2); None: it has no name.
pub fn protocol_name(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        18 => "keepalived",
        42 => "babel",
        99 => "openr",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => return None,
    })
}

/// How long an answer of [`Finder::find`] is kept, so that a flood from one program costs little.
const KEPT: Duration = Duration::from_secs(1);
/// Most descriptors of a process that are looked at.
const DESCRIPTORS: usize = 4096;
/// Greatest process id (`PID_MAX_LIMIT` on 64-bit machines).
const PID_MAX: u32 = 1 << 22;

/// Finds processes by the ports of their sockets.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    last: Option<(u32, Instant, Origin)>,
}

impl Finder {
    /// Whose `port` of `NETLINK_ROUTE` that is, in the network namespace of the calling thread.
    pub(crate) fn find(&mut self, port: u32) -> Origin {
        if port == 0 {
            return Origin::Kernel;
        }
        if let Some((known, when, origin)) = &self.last
            && *known == port
            && when.elapsed() < KEPT
        {
            return origin.clone();
        }
        let origin = search(port).unwrap_or(Origin::Unknown);
        self.last = Some((port, Instant::now(), origin.clone()));
        origin
    }
}

fn search(port: u32) -> Option<Origin> {
    // Not /proc/net, which is the main thread's.
    let sockets = sockets(&fs::read_to_string("/proc/thread-self/net/netlink").ok()?);
    let (_, inode) = sockets.iter().find(|(known, _)| *known == port)?;
    let link = format!("socket:[{inode}]");
    candidates(port, &sockets)
        .into_iter()
        .find(|pid| holds(*pid, &link))
        .and_then(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            // A process may call itself what it likes.
            let name = name.trim_end().replace(char::is_control, "?");
            Some(Origin::Process { pid, name })
        })
}

/// Port and inode of every `NETLINK_ROUTE` socket (columns `Pid` and `Inode`, where `Eth` is 0).
fn sockets(table: &str) -> Vec<(u32, u64)> {
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| {
            let mut columns = line.split_whitespace().skip(1);
            (columns.next()? == "0").then_some(())?;
            let port = columns.next()?.parse().ok()?;
            Some((port, columns.last()?.parse().ok()?))
        })
        .collect()
}

/// The processes that may own a port. One with a number of the kernel's choice has another socket, which got its process id.
fn candidates(port: u32, sockets: &[(u32, u64)]) -> Vec<u32> {
    if port < PID_MAX {
        return vec![port];
    }
    let others = sockets.iter().map(|(port, _)| *port);
    let mut pids = vec![port % PID_MAX];
    pids.extend(others.filter(|port| (1..PID_MAX).contains(port)));
    pids
}

fn holds(pid: u32, link: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .take(DESCRIPTORS)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == link))
}

#[cfg(test)]
mod tests {
    use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

    use super::*;

    #[test]
    fn finds_the_owner_of_a_socket_and_names_no_other() {
        let bound = |port| {
            let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
            socket.bind(&SocketAddr::new(port, 0)).unwrap();
            socket
        };
        let own = std::process::id();
        let mut finder = Finder::default();
        // As libnl's fourth socket.
        let port = own + (3 << 22);
        let socket = bound(port);
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        let found = Origin::Process {
            pid: own,
            name: name.trim_end().to_owned(),
        };
        assert_eq!(finder.find(port), found);
        drop(socket);
        assert_eq!(finder.find(port), found, "known from a moment ago");
        assert_eq!(Finder::default().find(port), Origin::Unknown);

        // The process with this id lives, but the socket is another's.
        let port = std::os::unix::process::parent_id();
        let socket = bound(port);
        assert_eq!(finder.find(port), Origin::Unknown);
        drop(socket);
        assert_eq!(finder.find(0), Origin::Kernel);
    }

    #[test]
    fn knows_the_columns_and_who_may_own_a_port() {
        let table = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   412        000405d1 0        0        0     2        0        31337
0000000000000000 0   4294963200 00000001 0        0        0     2        0        31338
0000000000000000 15  413        00000002 0        0        0     2        0        31339
0000000000000000 0   0          00000000 0        0        0     2        0        3
";
        let sockets = sockets(table);
        assert_eq!(sockets, [(412, 31337), (4_294_963_200, 31338), (0, 3)]);
        assert_eq!(candidates(412, &sockets), [412]);
        assert!(candidates(4_294_963_200, &sockets).contains(&412));
        // libnl's third.
        assert_eq!(candidates(412 + (2 << 22), &sockets)[0], 412);
    }

    #[test]
    fn names_protocols_as_ip_route_does() {
        let known = fs::read_to_string("/etc/iproute2/rt_protos")
            .or_else(|_| fs::read_to_string("/usr/share/iproute2/rt_protos"));
        // Where iproute2 is not installed there is nothing to compare with.
        let Ok(known) = known else { return };
        for protocol in 0..=u8::MAX {
            let Some(name) = protocol_name(protocol) else {
                continue;
            };
            let line = known.lines().find(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(&protocol.to_string()) && words.next() == Some(name)
            });
            assert!(line.is_some(), "{protocol} is not {name} in {known}");
        }
    }
}
