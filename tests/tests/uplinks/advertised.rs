//! IPv6 by router advertisements: several routers, their ends, and a change of the prefix.

use std::net::{Ipv6Addr, SocketAddrV6};

use anyhow::{Context, Result};
use failover_lab::{
    AgentProcess, Lab, LogLine, Scenario, TARGET_V6, Uplink, UplinkSpec, wait_for, wait_until,
};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, history, json::uplink, rule_sources, times, wait_for_probes};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use super::fixtures::*;

/// Router preferences (RFC 4191, 2.1), in their place among the flags.
const MEDIUM: u8 = 0x00;
const HIGH: u8 = 0x08;
const LOW: u8 = 0x18;

const FOREVER: u32 = u32::MAX;

/// What a router advertises (RFC 4861, 4.2).
struct Advertisement<'a> {
    router: &'a str,
    preference: u8,
    /// Seconds; 0: not a default router any more.
    lifetime: u16,
    /// On-link prefixes for addresses, with their preferred lifetime in seconds.
    prefixes: &'a [(&'a str, u32)],
    /// On-link prefixes without addresses, with their lengths.
    on_link: &'a [(&'a str, u8)],
}

impl Advertisement<'_> {
    /// The kernel fills in the checksum (RFC 3542, 3.1).
    fn message(&self) -> Result<Vec<u8>> {
        let mut message = vec![134, 0, 0, 0, 64, self.preference];
        message.extend(self.lifetime.to_be_bytes());
        message.extend([0; 8]);
        for (prefix, preferred) in self.prefixes {
            // Type 3, 4 units of 8 bytes, length 64, on-link and autonomous.
            message.extend([3, 4, 64, 0xc0]);
            message.extend(FOREVER.to_be_bytes());
            message.extend(preferred.to_be_bytes());
            message.extend([0; 4]);
            message.extend(prefix.parse::<Ipv6Addr>()?.octets());
        }
        for (prefix, length) in self.on_link {
            // Flag on-link alone.
            message.extend([3, 4, *length, 0x80]);
            message.extend(FOREVER.to_be_bytes());
            message.extend(FOREVER.to_be_bytes());
            message.extend([0; 4]);
            message.extend(prefix.parse::<Ipv6Addr>()?.octets());
        }
        Ok(message)
    }

    /// Sends it to all nodes on the customer's link.
    fn send(&self, uplink: &Uplink) -> Result<()> {
        let message = self.message()?;
        let router = self.router.parse()?;
        uplink.provider().run(|| {
            let scope = if_nametoindex("customer")?;
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.bind(&SocketAddrV6::new(router, 0, 0, scope).into())?;
            socket.set_multicast_if_v6(scope)?;
            socket.set_multicast_hops_v6(255)?;
            let all_nodes = SocketAddrV6::new("ff02::1".parse()?, 0, 0, scope);
            let sent = socket.send_to(&message, &all_nodes.into());
            sent.map(drop).context("router advertisement")
        })
    }
}

/// A laboratory whose host has no IPv6 address and no default route yet, with a second router on cable's link.
fn lab() -> Result<Lab> {
    let lab = Lab::builder()
        .uplinks([
            UplinkSpec::veth("cable").without_default_routes(),
            UplinkSpec::veth("lte").without_default_routes(),
        ])
        .build()?;
    ip(
        &lab,
        "address del 2001:db8:1::2/64 dev cable\n\
         address del 2001:db8:2::2/64 dev lte",
    )?;
    let provider = lab.uplink("cable").provider();
    provider.ip_batch("address add fe80::9/64 dev customer nodad")?;
    Ok(lab)
}

fn advertise(lab: &Lab, uplink: &str, router: &str, preference: u8, lifetime: u16) -> Result<()> {
    let uplink = lab.uplink(uplink);
    let prefix = format!("2001:db8:{}::", uplink.addresses().number);
    let advertisement = Advertisement {
        router,
        preference,
        lifetime,
        prefixes: &[(&prefix, FOREVER)],
        on_link: &[],
    };
    advertisement.send(uplink)
}

/// Waits for the gateway of a status.
fn wait_gateway(agent: &AgentProcess, name: &str, gateway: &str) -> Result<()> {
    let status = agent.wait_for_status(&format!("{name} by {gateway}"), SOON, |status| {
        uplink(status, name)["gateway"] == gateway
    });
    status.map(drop)
}

#[test]
#[ignore = "needs root"]
fn the_best_router_is_used_until_it_says_that_it_is_none() -> Scenario {
    let lab = lab()?;
    let agent = lab.start_agent(&config_v6(&lab))?;
    wait_words(&agent, &["WARN", "cable", "IPv6", "waiting"])?;
    advertise(&lab, "lte", "fe80::1", MEDIUM, 1800)?;
    wait_ready(&agent, "lte", &[])?;
    advertise(&lab, "cable", "fe80::9", LOW, 1800)?;
    wait_gateway(&agent, "cable", "fe80::9")?;
    wait_ready(&agent, "cable", &["lte"])?;
    advertise(&lab, "cable", "fe80::1", MEDIUM, 1800)?;
    wait_gateway(&agent, "cable", "fe80::1")?;
    wait_best_route(&lab, Family::V6, "cable", Some("fe80::1"))?;
    advertise(&lab, "cable", "fe80::9", HIGH, 1800)?;
    wait_gateway(&agent, "cable", "fe80::9")?;
    wait_best_route(&lab, Family::V6, "cable", Some("fe80::9"))?;

    // The kernel's own routes stand beside ours.
    let host = lab.host().namespace();
    let routes = host.exec("ip", &["-6", "route", "show", "default", "proto", "ra"])?;
    assert_eq!(routes.lines().count(), 3, "{routes}");

    // One router less, then none: it ends by its word, and by its lifetime.
    advertise(&lab, "cable", "fe80::9", HIGH, 0)?;
    wait_gateway(&agent, "cable", "fe80::1")?;
    wait_best_route(&lab, Family::V6, "cable", Some("fe80::1"))?;
    wait_ready(&agent, "cable", &["lte"])?;
    assert_eq!(times(&agent, "cable", "Down"), 0);
    advertise(&lab, "cable", "fe80::1", MEDIUM, 0)?;
    wait_ready(&agent, "lte", &[])?;
    // The kernel leaves the route standing; nobody but the clock says that it is over.
    host.set_sysctl("net/ipv6/route/gc_interval", "3600")?;
    advertise(&lab, "cable", "fe80::1", MEDIUM, 2)?;
    let lost = |line: &LogLine| line.text.contains("cable: IPv6 egress path lost");
    wait_until("the egress path is lost twice", SOON, || {
        agent.log().iter().filter(|line| lost(line)).count() == 2
    })?;
    wait_ready(&agent, "lte", &[])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_new_prefix_becomes_the_source_and_the_old_one_goes_with_its_address() -> Scenario {
    let lab = lab()?;
    let host = lab.host().namespace();
    host.set_sysctl("net/ipv6/conf/cable/use_tempaddr", "2")?;
    advertise(&lab, "cable", "fe80::1", MEDIUM, 1800)?;
    advertise(&lab, "lte", "fe80::1", MEDIUM, 1800)?;
    let temporary = || {
        host.exec(
            "ip",
            &["-6", "address", "show", "dev", "cable", "temporary"],
        )
    };
    wait_until("the host has a temporary address", SOON, || {
        temporary().is_ok_and(|list| list.contains("inet6 2001:db8:1:0:"))
    })?;
    let agent = lab.start_agent(&config_v6(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    let source = |prefix: &str| {
        wait_for(&format!("a source in {prefix}"), SOON, || {
            let status = agent.status_json().map_err(|error| error.to_string())?;
            let source = &uplink(&status, "cable")["families"]["ipv6"]["source"];
            let source = source.as_str().unwrap_or_default().to_owned();
            match source.starts_with(prefix) {
                true => Ok(source),
                false => Err(source),
            }
        })
    };
    let old = source("2001:db8:1:0:")?;
    assert!(!temporary()?.contains(&format!("{old}/")), "{old}");

    // The old prefix is not preferred any more: it remains for the connections that have it.
    let cable = lab.uplink("cable");
    let new_router = cable.provider();
    new_router.ip_batch("address add 2001:db8:1:9::1/64 dev customer nodad")?;
    let advertisement = Advertisement {
        router: "fe80::1",
        preference: MEDIUM,
        lifetime: 1800,
        prefixes: &[("2001:db8:1::", 0), ("2001:db8:1:9::", FOREVER)],
        on_link: &[],
    };
    advertisement.send(cable)?;
    let new = source("2001:db8:1:9:")?;
    let sources = rule_sources(&lab, Family::V6)?;
    assert!(
        sources.contains(&old) && sources.contains(&new),
        "{sources:?}"
    );
    for address in [&old, &new] {
        assert!(is_stale(&lab, &agent, "lte", address.parse()?, TARGET_V6)?);
    }
    wait_for_probes(&agent, &["cable"], 20)?;
    ip(&lab, &format!("address del {old}/64 dev cable"))?;
    wait_until("the old address has no rule", SOON, || {
        rule_sources(&lab, Family::V6).is_ok_and(|sources| !sources.contains(&old))
    })?;
    wait_ready(&agent, "cable", &["lte"])?;
    assert_eq!(times(&agent, "cable", "Down"), 0);
    assert_eq!(history(&agent, Family::V6), ["start-up cable"]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_rogue_router_cannot_put_the_internet_on_a_link() -> Scenario {
    let lab = lab()?;
    advertise(&lab, "cable", "fe80::1", MEDIUM, 1800)?;
    advertise(&lab, "lte", "fe80::1", MEDIUM, 1800)?;
    let agent = lab.start_agent(&config_v6(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    // It is no default router, and says what is on the link: half of all addresses, the target among them.
    for name in ["cable", "lte"] {
        let rogue = Advertisement {
            router: "fe80::9",
            preference: MEDIUM,
            lifetime: 0,
            prefixes: &[],
            on_link: &[("::", 1), ("2001:db8::", 32)],
        };
        let uplink = lab.uplink(name);
        let provider = uplink.provider();
        provider.ip_batch("address replace fe80::9/64 dev customer nodad")?;
        rogue.send(uplink)?;
        wait_until("the kernel believes it", SOON, || {
            let arguments = ["-6", "route", "show", "::/1", "dev", name];
            let routes = lab.host().namespace().exec("ip", &arguments);
            routes
                .is_ok_and(|routes| routes.contains("proto kernel") || routes.contains("proto ra"))
        })?;
    }
    // A new address makes the agent look at everything.
    ip(&lab, "address add 2001:db8:1::77/64 dev cable nodad")?;
    wait_for_probes(&agent, &["cable", "lte"], 20)?;
    let status = wait_ready(&agent, "cable", &["lte"])?;
    assert_eq!(
        uplink(&status, "cable")["families"]["ipv6"]["gateway"],
        "fe80::1"
    );
    for name in ["cable", "lte"] {
        assert_eq!(times(&agent, name, "Down"), 0);
    }
    let on_link = agent.log();
    let mut on_link = on_link.iter().filter(|line| line.text.contains("own link"));
    assert!(on_link.next().is_none());
    let fault = lab.uplink("cable").blackhole()?;
    wait_ready(&agent, "lte", &[])?;
    fault.repair()?;
    wait_ready(&agent, "cable", &["lte"])?;
    Ok(())
}
