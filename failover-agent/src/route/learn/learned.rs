//! What others' default routes have shown of the uplinks' egress paths, kept where a restart finds it.
//!
//! By which gateway an uplink leaves is known from another program's default route: a DHCP client's, an administrator's, a
//! router advertisement's. Our own routes are copies of that knowledge, and never a source of it. What was shown holds
//!
//! * as long as such a route stands in the main table, or is on record as displaced by us: its owner can no longer take it
//!   away, but takes the address, and with it the network that the gateway is on;
//! * on after the kernel has dropped the route together with its interface (set down, removed: `fib_disable_ip` in
//!   `net/ipv4/fib_frontend.c`), because not everybody puts it back, and over a restart of the agent. A stop that has put the
//!   displaced routes back leaves on disk only what the kernel's routes do not show.
//!
//! It is forgotten
//!
//! * when the route goes although its interface has been up all the time: its owner has withdrawn it (a lease that has
//!   expired, an administrator);
//! * when the gateway is not on a network of the interface any more;
//! * with the route, whatever the interface did, if that came from a router advertisement: the router itself says for how
//!   long it is one, and says it again when the interface comes up (RFC 4861, 6.3.4 and 6.3.7). The end of its lifetime is
//!   kept by our own clock; one that was shortened without a word is noticed when the kernel sweeps the route up.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result};
use failover_policy::Family;
use rtnetlink::{
    packet_core::{Emitable, Parseable},
    packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::route::{
    link::Template,
    wire::hex::{from_hex, to_hex},
    wire::list::address_family,
    wire::message::{self, Hop, MAIN_TABLE},
};
use crate::store::{Life, Store, StoredFile};

const FILE: &str = "gateways.json";

/// An egress path as a default route has shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NextHop {
    /// None: everything is on the link.
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) template: Template,
    /// The route's owner.
    pub(crate) protocol: RouteProtocol,
}

/// The egress paths, by interface and family.
#[derive(Debug)]
pub(crate) struct Learned {
    file: StoredFile,
    known: BTreeMap<(String, Family), Known>,
    unsaved: bool,
}

#[derive(Debug)]
struct Known {
    next_hop: NextHop,
    /// The route stood at the last scan, and its interface has been up since.
    stands: bool,
    entry: Entry,
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    gateways: Vec<Entry>,
}

/// One egress path.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    interface: String,
    /// For people.
    route: String,
    /// `struct rtmsg` and its attributes (`rtnetlink(7)`), in hexadecimal. The interface index in it means nothing.
    message: String,
}

impl Learned {
    /// Reads what an earlier run has left. What cannot be read is a warning: it is learned again.
    pub(crate) fn load(store: &Store) -> Learned {
        let file = store.file(FILE, Life::Ever);
        let content: Content = file.load().unwrap_or_default();
        let mut known = BTreeMap::new();
        for entry in content.gateways {
            match entry.read() {
                Ok((family, next_hop)) => {
                    let stands = false;
                    let key = (entry.interface.clone(), family);
                    known.insert(
                        key,
                        Known {
                            next_hop,
                            stands,
                            entry,
                        },
                    );
                }
                Err(error) => warn!("a gateway of {} is forgotten: {error:#}", entry.interface),
            }
        }
        Learned {
            file,
            known,
            unsaved: false,
        }
    }

    /// What is known.
    pub(crate) fn get(&self, interface: &str, family: Family) -> Option<&NextHop> {
        let known = self.known.get(&(interface.to_owned(), family))?;
        Some(&known.next_hop)
    }

    /// A route shows this egress path.
    pub(crate) fn learn(
        &mut self,
        interface: &str,
        ifindex: u32,
        family: Family,
        next_hop: NextHop,
    ) {
        let key = (interface.to_owned(), family);
        if let Some(known) = self.known.get_mut(&key)
            && known.next_hop == next_hop
        {
            known.stands = true;
            return;
        }
        let entry = Entry::new(interface, ifindex, family, &next_hop);
        let stands = true;
        self.known.insert(
            key,
            Known {
                next_hop,
                stands,
                entry,
            },
        );
        self.unsaved = true;
    }

    /// No route shows anything any more; the interface is `up`, or is not.
    pub(crate) fn miss(&mut self, interface: &str, family: Family, up: bool) {
        let Some(known) = self.known.get_mut(&(interface.to_owned(), family)) else {
            return;
        };
        let withdrawn = known.stands && up;
        known.stands = false;
        if withdrawn || known.next_hop.protocol == RouteProtocol::Ra {
            self.forget(interface, family);
        }
    }

    /// The interface was down or gone for a moment: the kernel has dropped its routes.
    pub(crate) fn interrupt(&mut self, interface: &str) {
        for ((name, _), known) in &mut self.known {
            known.stands &= name != interface;
        }
    }

    pub(crate) fn forget(&mut self, interface: &str, family: Family) {
        let forgotten = self.known.remove(&(interface.to_owned(), family));
        self.unsaved |= forgotten.is_some();
    }

    /// The agent stops: what the kernel's routes show need not be remembered.
    pub(crate) fn leave(&mut self) {
        self.known.retain(|_, known| !known.stands);
        self.unsaved = true;
        self.save();
    }

    /// Brings the file in line. An advertised gateway is not written: it would be out of date when it is read.
    pub(crate) fn save(&mut self) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        let lasting = |known: &&Known| known.next_hop.protocol != RouteProtocol::Ra;
        let gateways: Vec<Entry> = self
            .known
            .values()
            .filter(lasting)
            .map(|known| known.entry.clone())
            .collect();
        match gateways.is_empty() {
            true => self.file.remove(),
            false => self.file.replace(&Content { gateways }),
        }
    }
}

/// Forgets everything that an earlier run has left; whether there was anything.
pub(crate) fn remove(store: &Store) -> bool {
    store.file(FILE, Life::Ever).erase()
}

impl Entry {
    fn new(interface: &str, ifindex: u32, family: Family, next_hop: &NextHop) -> Entry {
        let hop = Hop {
            ifindex,
            gateway: next_hop.gateway,
            onlink: next_hop.template.onlink,
        };
        let protocol = u8::from(next_hop.protocol);
        let everywhere = message::everywhere(family);
        let mut route = message::unicast(family, MAIN_TABLE, protocol, everywhere, hop, 0);
        let Template {
            prefsrc, metrics, ..
        } = &next_hop.template;
        let source = prefsrc.map(|source| RouteAttribute::PrefSource(source.into()));
        route.attributes.extend(source);
        route
            .attributes
            .push(RouteAttribute::Metrics(metrics.clone()));
        let mut bytes = vec![0; route.buffer_len()];
        route.emit(&mut bytes);
        Entry {
            interface: interface.to_owned(),
            route: message::describe(&route),
            message: to_hex(&bytes),
        }
    }

    fn read(&self) -> Result<(Family, NextHop)> {
        let route = RouteMessage::parse(&from_hex(&self.message)?)?;
        let family = Family::ALL
            .into_iter()
            .find(|family| address_family(*family) == route.header.address_family)
            .context("it is of no family that we know")?;
        let hop = message::hops(&route)
            .into_iter()
            .next()
            .context("it leads nowhere")?;
        Ok((family, NextHop::of(&route, hop)))
    }
}

impl NextHop {
    /// What one nexthop of a route shows.
    pub(crate) fn of(route: &RouteMessage, hop: Hop) -> NextHop {
        NextHop {
            gateway: hop.gateway,
            template: Template {
                prefsrc: message::prefsrc(route),
                metrics: message::metrics(route),
                onlink: hop.onlink,
            },
            protocol: route.header.protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteMetric;

    use super::*;

    fn next_hop(gateway: &str, protocol: RouteProtocol) -> NextHop {
        NextHop {
            gateway: Some(gateway.parse().unwrap()),
            template: Template {
                prefsrc: Some("192.0.2.7".parse().unwrap()),
                metrics: vec![RouteMetric::Mtu(1400), RouteMetric::Hoplimit(7)],
                onlink: true,
            },
            protocol,
        }
    }

    #[test]
    fn a_restart_knows_everything_that_is_not_advertised() {
        let dir = tempfile::tempdir().unwrap();
        let mut learned = Learned::load(&Store::from(dir.path()));
        let dhcp = next_hop("192.0.2.1", RouteProtocol::Dhcp);
        learned.learn("up0", 7, Family::V4, dhcp.clone());
        let mut advertised = next_hop("fe80::1", RouteProtocol::Ra);
        advertised.template.prefsrc = None;
        learned.learn("up0", 7, Family::V6, advertised);
        let none = NextHop {
            gateway: None,
            template: Template::default(),
            protocol: RouteProtocol::Boot,
        };
        learned.learn("ppp0", 8, Family::V6, none.clone());
        learned.save();

        let mut later = Learned::load(&Store::from(dir.path()));
        assert_eq!(later.get("up0", Family::V4), Some(&dhcp));
        assert_eq!(later.get("up0", Family::V6), None);
        assert_eq!(later.get("ppp0", Family::V6), Some(&none));

        // A stop leaves what no route shows, and nothing if there is no such thing.
        later.learn("ppp0", 8, Family::V6, none.clone());
        later.leave();
        let mut left = Learned::load(&Store::from(dir.path()));
        assert_eq!(left.get("up0", Family::V4), Some(&dhcp));
        assert_eq!(left.get("ppp0", Family::V6), None);
        left.learn("up0", 7, Family::V4, dhcp);
        left.leave();
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_file_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        for damaged in [
            "{",
            r#"{"gateways": [{"interface": "up0", "route": "", "message": "0z"}]}"#,
            r#"{"gateways": [{"interface": "up0", "route": "", "message": "02"}]}"#,
        ] {
            std::fs::write(&file, damaged).unwrap();
            assert!(
                Learned::load(&Store::from(dir.path())).known.is_empty(),
                "{damaged}"
            );
        }
    }

    #[test]
    fn what_its_owner_withdraws_is_forgotten_and_what_the_kernel_drops_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut learned = Learned::load(&Store::from(dir.path()));
        let dhcp = next_hop("192.0.2.1", RouteProtocol::Dhcp);
        let stands = |learned: &mut Learned| learned.learn("up0", 7, Family::V4, dhcp.clone());
        let known = |learned: &Learned| learned.get("up0", Family::V4).is_some();

        // Down at the scan; down and up between two scans.
        stands(&mut learned);
        learned.miss("up0", Family::V4, false);
        learned.miss("up0", Family::V4, true);
        assert!(known(&learned));
        stands(&mut learned);
        learned.interrupt("up1");
        learned.interrupt("up0");
        learned.miss("up0", Family::V4, true);
        assert!(known(&learned));

        stands(&mut learned);
        learned.interrupt("up1");
        learned.miss("up0", Family::V4, true);
        assert!(!known(&learned));
    }

    #[test]
    fn an_advertised_gateway_goes_with_its_route() {
        let dir = tempfile::tempdir().unwrap();
        for up in [true, false] {
            let mut learned = Learned::load(&Store::from(dir.path()));
            learned.learn("up0", 7, Family::V6, next_hop("fe80::1", RouteProtocol::Ra));
            learned.interrupt("up0");
            learned.miss("up0", Family::V6, up);
            assert_eq!(learned.get("up0", Family::V6), None);
        }
    }
}
