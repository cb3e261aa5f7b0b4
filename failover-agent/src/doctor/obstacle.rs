//! Why an answer to a probe cannot come for a reason on this host; then silence says nothing about the link.
//!
//! A few netlink requests that cost microseconds; nothing is sent and nothing changed.

use std::{fs, net::IpAddr};

use anyhow::Result;
use failover_policy::Family;
use nix::libc::{EACCES, EHOSTUNREACH, EINVAL, EXDEV, RT_TABLE_MAIN};

use super::sysctl::sysctl_key;
use crate::{
    netlink::Netlink,
    route::{
        Link,
        lookup::{self, FoundRoute, Outgoing, Verdict, family_of},
    },
};

/// RFC 3704, 2.2: a packet must arrive by the interface by which its answer leaves.
const STRICT: u8 = 1;

/// Why an answer cannot come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Strict reverse path filtering discards it.
    ReversePath {
        /// Whether the main table's default route is the only cause: then the agent's own rules for the uplink cure it.
        until_start: bool,
    },
    /// No route leads to the target by the uplink, and none rejects it on purpose.
    NoRoute,
}

/// Why probes of one uplink and family get no answer for a reason on this host, with a cure; `None` if an answer can come. To be called
/// while the agent's rules and tables stand.
///
/// A link without carrier, address or egress path is not such a reason. Nor are routes of type `unreachable`, `blackhole` or `prohibit` to
/// a target: an administrator wants the probes to fail.
///
/// # Errors
///
/// Netlink fails.
pub fn blindness(
    link: &Link,
    family: Family,
    targets: &[IpAddr],
    mark: u32,
) -> Result<Option<String>> {
    let path = link.families[family].as_ref();
    let (Some(path), true) = (path, link.carrier) else {
        return Ok(None);
    };
    let mut netlink = Netlink::open_route()?;
    let mut reason = None;
    for target in targets
        .iter()
        .filter(|target| family_of(**target) == family)
    {
        let probe = Outgoing {
            source: path.source,
            destination: *target,
            mark,
            bound_to: Some(link.ifindex),
        };
        // Even if one target has an obstacle, another may have none.
        let Some(found) = obstacle(&mut netlink, probe, link.ifindex, &link.interface)? else {
            return Ok(None);
        };
        reason.get_or_insert_with(|| describe(&found, &link.interface, *target));
    }
    Ok(reason)
}

fn describe(obstacle: &Obstacle, interface: &str, target: IpAddr) -> String {
    match obstacle {
        Obstacle::ReversePath { .. } => format!(
            "strict reverse path filtering on {interface} discards the answers of {target}: {}",
            loosen(interface)
        ),
        Obstacle::NoRoute => format!(
            "no route to {target} by {interface}: find out which program removes the agent's rules or tables (ip monitor rule route)"
        ),
    }
}

/// The command that makes reverse path filtering loose (RFC 3704, 2.4).
pub(super) fn loosen(interface: &str) -> String {
    let key = sysctl_key(Family::V4, interface, "rp_filter");
    format!("sysctl -w {key}=2")
}

/// What keeps the answer to `probe` from coming in by its interface; `None` if nothing does.
pub(super) fn obstacle(
    netlink: &mut Netlink,
    probe: Outgoing,
    ifindex: u32,
    interface: &str,
) -> Result<Option<Obstacle>> {
    let unbound = Outgoing {
        mark: 0,
        bound_to: None,
        ..probe
    };
    if let Verdict::Refused(_) = lookup::outgoing(netlink, probe)? {
        // Without the interface, the kernel reports whether a route rejects (`fib_props` in net/ipv4/fib_semantics.c).
        let wanted = matches!(
            lookup::outgoing(netlink, unbound)?,
            Verdict::Refused(EHOSTUNREACH | EINVAL | EACCES)
        );
        return Ok((!wanted).then_some(Obstacle::NoRoute));
    }
    // The kernel has no such filter for IPv6.
    if family_of(probe.destination) == Family::V6
        || effective(Family::V4, interface, "rp_filter") != STRICT
    {
        return Ok(None);
    }
    match lookup::incoming(netlink, probe.destination, probe.source, ifindex)? {
        Verdict::Refused(EXDEV | EINVAL) => {
            let until_start = matches!(
                lookup::outgoing(netlink, unbound)?,
                Verdict::Passes(FoundRoute { table, prefix_length: 0 })
                    if table == u32::from(RT_TABLE_MAIN)
            );
            Ok(Some(Obstacle::ReversePath { until_start }))
        }
        _ => Ok(None),
    }
}

/// A kernel setting whose effective value is the greater of the interface's and that of `all` (Documentation/networking/ip-sysctl.rst).
pub(super) fn effective(family: Family, interface: &str, name: &str) -> u8 {
    setting(family, interface, name).max(setting(family, "all", name))
}

/// A kernel setting of an interface; 0 if there is none (a kernel without IPv6).
pub(super) fn setting(family: Family, interface: &str, name: &str) -> u8 {
    let protocol = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    // /proc/sys/net shows the network namespace of the thread that reads it.
    let path = format!("/proc/sys/net/{protocol}/conf/{interface}/{name}");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}
