//! Ends addresses as lost ones: packets that have them are no longer stale.
//!
//! An address that an uplink has lost is stale on all uplinks, since sockets go on to use it. It ends when this host has it on another
//! interface, when it is routed to an interface that is no uplink or this host answers for it (it has moved behind this host), and an hour
//! after the last packet.

use std::{net::IpAddr, time::Duration};

use failover_policy::PerFamily;
use nix::time::{ClockId, clock_gettime};
use tracing::{debug, info, warn};

use super::Agent;
use crate::{
    netlink::Netlink,
    route::lookup::{self, Towards},
};

/// Shorter prefixes lead to the internet (a VPN's two halves of it), rather than to where an address lives.
const SHORTEST: PerFamily<u8> = PerFamily::new(8, 48);

impl Agent<'_> {
    /// Ends those that have moved or were not used for long.
    pub(super) fn end_lost_addresses(&mut self) {
        self.lost_addresses.used = false;
        let present = self.router.addresses().to_vec();
        if let Err(error) = self.datapath.release_addresses(&present) {
            warn!("the programs do not know all addresses: {error:#}");
        }
        let lost = self.datapath.lost_addresses();
        if lost.is_empty() {
            return;
        }
        match self.moved(&lost) {
            Ok(moved) => {
                let addresses: Vec<IpAddr> = moved.iter().map(|(address, _)| *address).collect();
                match self.datapath.release_addresses(&addresses) {
                    Ok(()) => {
                        for (address, what) in &moved {
                            info!(%address, "{address}, which an uplink has lost, {what} now: it is no longer stale");
                        }
                    }
                    Err(error) => warn!("the programs do not know all addresses: {error:#}"),
                }
            }
            Err(error) => debug!("where lost addresses are could not be asked: {error:#}"),
        }
        match clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from) {
            Ok(now) => match self.datapath.expire_addresses(now) {
                Ok(expired) => {
                    for address in expired {
                        info!(%address, "no packet has had {address}, which an uplink has lost, for an hour: it is no longer stale");
                    }
                }
                Err(error) => warn!("lost addresses could not be ended: {error:#}"),
            },
            Err(error) => debug!("no time: {error}"),
        }
    }

    /// Those that the kernel routes to an interface that is no uplink, or answers for, and which of these.
    fn moved(&self, lost: &[IpAddr]) -> anyhow::Result<Vec<(IpAddr, String)>> {
        let mut netlink = Netlink::open_route()?;
        let proxied = lookup::proxied(&mut netlink)?;
        let mut moved = Vec::new();
        for &address in lost {
            let towards = lookup::towards(&mut netlink, address)?;
            let elsewhere = towards.and_then(|towards| self.elsewhere(address, &towards));
            let answered = proxied.iter().find(|(proxied, _)| *proxied == address);
            if let Some(interface) = elsewhere {
                moved.push((address, format!("is routed to {interface}")));
            } else if let Some((_, ifindex)) = answered {
                let what = format!("is answered for on {}", name(*ifindex));
                moved.push((address, what));
            }
        }
        Ok(moved)
    }

    fn elsewhere(&self, address: IpAddr, towards: &Towards) -> Option<String> {
        let shortest = SHORTEST[lookup::family_of(address)];
        let uplink = |ifindex: &u32| {
            self.router
                .links()
                .values()
                .any(|link| link.ifindex == *ifindex)
        };
        if towards.prefix_length < shortest || towards.interfaces.iter().any(uplink) {
            return None;
        }
        towards.interfaces.first().copied().map(name)
    }
}

fn name(ifindex: u32) -> String {
    crate::interface::name(ifindex).unwrap_or_else(|| format!("interface {ifindex}"))
}
