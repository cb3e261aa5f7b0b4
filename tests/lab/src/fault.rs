//! Faults of an uplink. Each is a guard: the fault lasts until it is repaired or dropped.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    builder::{plug_in, set_up_customer_link},
    cleanup::exclusively,
    plan::LINK_LOCAL_GATEWAY,
    relay::Shape,
    uplink::{LinkKind, Uplink},
};

/// One of the two ways through an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the host to the internet.
    Out,
    /// From the internet to the host.
    In,
}

/// A fault in force.
#[must_use = "a fault is repaired as soon as its guard is dropped"]
pub struct Fault {
    since: Instant,
    repair: Option<Repair>,
}

type Repair = Box<dyn FnOnce() -> Result<()> + Send>;

impl Fault {
    fn new(repair: impl FnOnce() -> Result<()> + Send + 'static) -> Fault {
        Fault {
            since: Instant::now(),
            repair: Some(Box::new(repair)),
        }
    }

    /// When it had taken full effect.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Ends it; returns when that had taken full effect.
    ///
    /// # Errors
    /// When what was there before cannot be restored.
    pub fn repair(mut self) -> Result<Instant> {
        if let Some(repair) = self.repair.take() {
            repair().context("cannot repair a fault")?;
        }
        Ok(Instant::now())
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // Not while a signal's clean-up runs: it would kill the command that repairs, and removes everything anyway.
        if let Some(repair) = self.repair.take()
            && let Err(error) = exclusively(repair)
        {
            eprintln!("cannot repair a fault: {error:#}");
        }
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fault")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

/// The way beyond an uplink's provider: to all of the internet, or to one target.
#[derive(Clone, Debug)]
pub struct Path<'a> {
    uplink: &'a Uplink,
    target: Option<IpAddr>,
}

impl Path<'_> {
    /// Nothing passes the provider any more, in either direction, and nobody is told. The carrier stays up, and the gateway answers
    /// ARP and ping.
    ///
    /// # Errors
    /// When the provider's nftables refuse it.
    pub fn blackhole(&self) -> Result<Fault> {
        self.drop_packets(&[Direction::Out, Direction::In], "")
    }

    /// Nothing passes the provider in one direction.
    ///
    /// # Errors
    /// When the provider's nftables refuse it.
    pub fn one_way_loss(&self, direction: Direction) -> Result<Fault> {
        self.drop_packets(&[direction], "")
    }

    /// The provider loses a share of the packets at random, in each direction.
    ///
    /// # Errors
    /// When the provider's nftables refuse it.
    pub fn loss(&self, percent: u8) -> Result<Fault> {
        let chance = format!("numgen random mod 100 < {percent}");
        self.drop_packets(&[Direction::Out, Direction::In], &chance)
    }

    /// The provider has no route any more, and says so (ICMP host unreachable, ICMPv6 no route).
    ///
    /// # Errors
    /// When the routes cannot be set.
    pub fn unreachable(&self) -> Result<Fault> {
        let provider = self.uplink.provider();
        let destinations = match self.target {
            Some(target) => vec![target.to_string()],
            None => vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        };
        let batch = |verb: &str| {
            let lines = destinations
                .iter()
                .map(|to| format!("route {verb} unreachable {to} metric 1\n"));
            lines.collect::<String>()
        };
        provider.ip_batch(&batch("add"))?;
        let (provider, undo) = (provider.clone(), batch("del"));
        Ok(Fault::new(move || provider.ip_batch(&undo)))
    }

    /// Drops forwarded packets in a table of its own, so that faults can overlap and end in any order.
    fn drop_packets(&self, directions: &[Direction], condition: &str) -> Result<Fault> {
        let rules = directions.iter().map(|direction| {
            let (side, end) = match direction {
                Direction::Out => ("iifname customer", "daddr"),
                Direction::In => ("oifname customer", "saddr"),
            };
            let target = match self.target {
                Some(target @ IpAddr::V4(_)) => format!("ip {end} {target}"),
                Some(target @ IpAddr::V6(_)) => format!("ip6 {end} {target}"),
                None => String::new(),
            };
            format!("{side} {target} {condition} drop\n")
        });
        let rules: String = rules.collect();
        let hook = format!("type filter hook forward priority filter\n{rules}");
        nft_fault(self.uplink, "inet", &[&hook])
    }
}

impl Uplink {
    /// The way by this uplink to one target, for a fault of that alone.
    pub fn towards(&self, target: IpAddr) -> Path<'_> {
        Path {
            uplink: self,
            target: Some(target),
        }
    }

    fn beyond(&self) -> Path<'_> {
        Path {
            uplink: self,
            target: None,
        }
    }

    /// [`Path::blackhole`] for everything.
    ///
    /// # Errors
    /// As there.
    pub fn blackhole(&self) -> Result<Fault> {
        self.beyond().blackhole()
    }

    /// [`Path::one_way_loss`] for everything.
    ///
    /// # Errors
    /// As there.
    pub fn one_way_loss(&self, direction: Direction) -> Result<Fault> {
        self.beyond().one_way_loss(direction)
    }

    /// [`Path::loss`] for everything.
    ///
    /// # Errors
    /// As there.
    pub fn loss(&self, percent: u8) -> Result<Fault> {
        self.beyond().loss(percent)
    }

    /// [`Path::unreachable`] for everything.
    ///
    /// # Errors
    /// As there.
    pub fn unreachable(&self) -> Result<Fault> {
        self.beyond().unreachable()
    }

    /// The gateway is gone: it neither answers ARP, neighbour discovery or ping, nor forwards. The carrier stays up, as behind a switch.
    ///
    /// # Errors
    /// On an L3 uplink, which has no gateway, and when the provider's nftables refuse it.
    pub fn gateway_gone(&self) -> Result<Fault> {
        ensure!(self.kind() == LinkKind::Veth, "an L3 uplink has no gateway");
        let hook = |hook| format!("type filter hook {hook} device customer priority -500\ndrop");
        nft_fault(self, "netdev", &[&hook("ingress"), &hook("egress")])
    }

    /// The host's interface has no carrier, but is up.
    ///
    /// # Errors
    /// When the other end cannot be set down.
    pub fn carrier_down(&self) -> Result<Fault> {
        if let Some(relay) = &self.relay {
            relay.set_host_carrier(false)?;
            let relay = relay.clone();
            return Ok(Fault::new(move || relay.set_host_carrier(true)));
        }
        self.provider().ip_batch("link set customer down")?;
        let provider = self.provider().clone();
        Ok(Fault::new(move || {
            // Setting it down took the link-local address; the others stay (keep_addr_on_down).
            provider.ip_batch(&format!(
                "link set customer up\n\
                 address replace {LINK_LOCAL_GATEWAY}/64 dev customer nodad"
            ))
        }))
    }

    /// A user sets the host's interface down. Repairing sets it up, and addresses and default routes are as a DHCP client would leave
    /// them.
    ///
    /// # Errors
    /// When it cannot be set down.
    pub fn admin_down(&self) -> Result<Fault> {
        self.host
            .ip_batch(&format!("link set {} down", self.name()))?;
        let uplink = self.clone();
        Ok(Fault::new(move || uplink.set_up_host()))
    }

    /// The host's interface has no address any more, as at the end of a lease that nobody renews. Repairing gives it addresses and default
    /// routes as a DHCP client would leave them.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn lease_over(&self) -> Result<Fault> {
        self.host
            .ip_batch(&format!("address flush dev {} scope global", self.name()))?;
        let uplink = self.clone();
        Ok(Fault::new(move || uplink.set_up_host()))
    }

    /// The host's interface is gone, as when a modem is pulled out. Repairing makes one of the same name, with addresses and default
    /// routes as a DHCP client would leave them.
    ///
    /// # Errors
    /// On an L3 uplink, whose interface belongs to its relay, and when it cannot be deleted.
    pub fn unplug(&self) -> Result<Fault> {
        ensure!(
            self.kind() == LinkKind::Veth,
            "only a veth uplink can be unplugged"
        );
        self.host.ip_batch(&format!("link del {}", self.name()))?;
        let uplink = self.clone();
        Ok(Fault::new(move || {
            plug_in(uplink.name(), &uplink.host, uplink.provider())?;
            set_up_customer_link(&uplink)?;
            uplink.set_up_host()
        }))
    }

    /// The host's interface has another name, with all that it has. Repairing gives it its own back.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn renamed(&self) -> Result<Fault> {
        let (host, name) = (self.host.clone(), self.name().to_owned());
        let other = format!("renamed{}", self.addresses().number);
        host.ip_batch(&format!("link set {name} name {other}"))?;
        let back = format!("link set {other} name {name}");
        Ok(Fault::new(move || host.ip_batch(&back)))
    }

    /// The host's interface is in another network namespace, as if a container had been given it. Repairing brings it back, with addresses
    /// and default routes as a DHCP client would leave them.
    ///
    /// # Errors
    /// On an L3 uplink, whose interface belongs to its relay, and when it cannot be moved.
    pub fn moved_away(&self) -> Result<Fault> {
        ensure!(
            self.kind() == LinkKind::Veth,
            "only a veth uplink can be moved"
        );
        let (host, name) = (&self.host, self.name());
        // By their names, which `ip` looks for where the laboratory has its namespaces.
        let (away, home) = (self.provider.name(), host.name());
        let back = format!("link set {name} netns {home}");
        host.ip_batch(&format!("link set {name} netns {away}"))?;
        let uplink = self.clone();
        Ok(Fault::new(move || {
            uplink.provider().ip_batch(&back)?;
            uplink.set_up_host()
        }))
    }

    /// Delays, jitter and loss on the link itself.
    ///
    /// # Errors
    /// On a veth uplink, which has no relay.
    pub fn shape(&self, shape: Shape) -> Result<Fault> {
        let relay = self.relay.clone().context(
            "only an L3 uplink (UplinkSpec::tun) has a relay that can shape its traffic",
        )?;
        let before = relay.set_shape(shape);
        Ok(Fault::new(move || {
            relay.set_shape(before);
            Ok(())
        }))
    }

    /// A longer way: `delay` more in each direction.
    ///
    /// # Errors
    /// On a veth uplink, which has no relay.
    pub fn delay(&self, delay: Duration) -> Result<Fault> {
        self.shape(Shape {
            delay,
            ..Shape::default()
        })
    }
}

/// Puts a table with one chain for each of `hooks` into the provider.
fn nft_fault(uplink: &Uplink, family: &str, hooks: &[&str]) -> Result<Fault> {
    static TABLES: AtomicU32 = AtomicU32::new(0);
    let table = format!("{family} fault{}", TABLES.fetch_add(1, Ordering::Relaxed));
    let chains = hooks.iter().enumerate();
    let chains = chains.map(|(i, hook)| format!("chain c{i} {{\n{hook}\n}}\n"));
    let chains: String = chains.collect();
    let provider = uplink.provider().clone();
    provider.nft(&format!("table {table} {{\n{chains}}}"))?;
    Ok(Fault::new(move || {
        provider.nft(&format!("delete table {table}"))
    }))
}
