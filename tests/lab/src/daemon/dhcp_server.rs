//! A provider's DHCP server: dnsmasq.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Daemon, System};
use crate::{uplink::Uplink, wait::wait_until};

/// Seconds. dnsmasq takes no less.
const LEASE_TIME: u32 = 120;

/// Seconds after which a client renews its lease, and after which it asks any server when it has got no answer (T1 and T2 of RFC 2131,
/// section 4.4.5). A refusal of the renewal, which is broadcast, some clients hear only in the second state. dnsmasq takes no less than 3;
/// and systemd-networkd adds up to 2 s to each by chance, and asks nobody any more when they come in the wrong order.
const RENEW_TIME: u32 = 3;
const REBIND_TIME: u32 = 6;

/// What a DHCP server gives its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The client's address.
    pub address: Ipv4Addr,
    /// The router on the way to the internet.
    pub gateway: Ipv4Addr,
}

impl Lease {
    /// The addresses that an uplink would have without DHCP.
    pub fn usual(uplink: &Uplink) -> Lease {
        let addresses = uplink.addresses();
        Lease {
            address: addresses.host_v4,
            gateway: addresses.gateway_v4,
        }
    }

    /// The same address, and another gateway in the same network.
    pub fn with_other_gateway(uplink: &Uplink) -> Lease {
        let [a, b, c, _] = uplink.addresses().gateway_v4.octets();
        Lease {
            gateway: Ipv4Addr::new(a, b, c, 254),
            ..Lease::usual(uplink)
        }
    }

    /// Another address and another gateway, in the same network.
    pub fn other(uplink: &Uplink) -> Lease {
        let [a, b, c, _] = uplink.addresses().host_v4.octets();
        Lease {
            address: Ipv4Addr::new(a, b, c, 80),
            ..Lease::with_other_gateway(uplink)
        }
    }
}

/// What it re-reads on SIGHUP: which client gets which address, and which router.
const HOSTS: &str = "/etc/dnsmasq.hosts";
const OPTIONS: &str = "/etc/dnsmasq.options";

/// How long it may take to do so.
const PATIENCE: Duration = Duration::from_secs(10);

/// A DHCP server at a provider's end of an uplink, with one lease to give: ended when dropped. Clients that ask for these times
/// renew their lease every 3 s, and ask any server from 6 s on.
#[derive(Debug)]
pub struct DhcpServer {
    system: System,
    uplink: Uplink,
    daemon: Daemon,
}

impl DhcpServer {
    /// Starts it, and returns when it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(uplink: &Uplink, lease: Lease) -> Result<DhcpServer> {
        let system = System::new(uplink.provider())?;
        write(&system, uplink, lease)?;
        let network = Ipv4Addr::from_bits(lease.address.to_bits() & !0xff);
        let mut daemon = system.start(
            "dnsmasq",
            &[
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
                "--log-facility=-",
                "--log-dhcp",
                // No DNS.
                "--port=0",
                "--interface=customer",
                "--bind-interfaces",
                // Refuse what is not ours to give, rather than be silent about it.
                "--dhcp-authoritative",
                // Otherwise it waits 3 s for an answer from the address.
                "--no-ping",
                "--leasefile-ro",
                &format!("--dhcp-range={network},static,255.255.255.0,{LEASE_TIME}s"),
                &format!("--dhcp-hostsfile={HOSTS}"),
                &format!("--dhcp-optsfile={OPTIONS}"),
                &format!("--dhcp-option=option:T1,{RENEW_TIME}"),
                &format!("--dhcp-option=option:T2,{REBIND_TIME}"),
            ],
        )?;
        daemon
            .wait_for_line("sockets bound exclusively to interface customer")
            .context("the DHCP server")?;
        wait_until("the DHCP server has read its lease", PATIENCE, || {
            times_read(&daemon) > 0
        })?;
        Ok(DhcpServer {
            system,
            uplink: uplink.clone(),
            daemon,
        })
    }

    /// From now on gives this lease, and refuses a client that holds another address. It answers all the time: there are clients that ask
    /// again only a minute after a silence.
    ///
    /// # Errors
    /// When it does not take notice.
    pub fn offer(&self, lease: Lease) -> Result<()> {
        write(&self.system, &self.uplink, lease)?;
        let before = times_read(&self.daemon);
        self.daemon.signal(Signal::SIGHUP)?;
        wait_until("the DHCP server has read its new lease", PATIENCE, || {
            times_read(&self.daemon) > before
        })
    }

    /// Its process.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

fn write(system: &System, uplink: &Uplink, lease: Lease) -> Result<()> {
    let Lease { address, gateway } = lease;
    let router = format!("address replace {gateway}/24 dev customer");
    uplink.provider().ip_batch(&router)?;
    // For whatever link-layer address.
    system.write(HOSTS, &format!("*:*:*:*:*:*,{address}\n"))?;
    system.write(OPTIONS, &format!("option:router,{gateway}\n"))
}

/// How often it has read both files; of the two this is the last.
fn times_read(daemon: &Daemon) -> usize {
    let log = daemon.log();
    let read = format!("read {OPTIONS}");
    log.iter().filter(|line| line.text.contains(&read)).count()
}
