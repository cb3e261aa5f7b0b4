//! States of IPv6 addresses and links that are the kernel's own doing: duplicates, optimistic addresses, unnumbered links.

use failover_policy::Family;
use std::net::{IpAddr, UdpSocket};

use failover_agent::{
    config::Config,
    failure::Failure,
    route::{Link, Router},
};

use crate::{fixtures::*, namespaces::Host, netns::*};

/// Interfaces without IPv4, which everything must be able to do without.
fn v6_config(interfaces: &[&str]) -> Config {
    let mut config = config(interfaces);
    for uplink in &mut config.uplinks {
        uplink.probe.targets = targets(&["2001:db8:ffff::1"]);
    }
    config
}

fn source(link: &Link) -> Option<IpAddr> {
    link.families.v6.as_ref().map(|path| path.source)
}

/// The source address that the kernel gives a new connection.
fn kernels_source(target: &str) -> IpAddr {
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.connect((target, 9)).unwrap();
    socket.local_addr().unwrap().ip()
}

fn set(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{key}"), value).unwrap();
}

/// A neighbour on the link of `up0` that has this address, unless the kernel of that namespace finds it taken.
fn neighbour_with(address: &'static str) -> Host {
    let neighbour = Host::new();
    neighbour.take("far0");
    neighbour.run(move || ip(&format!("-6 addr add {address}/64 dev far0 nodad")));
    neighbour
}

fn wait_for_state(state: &str, present: bool) {
    wait_for(&format!("{state}: {present}"), || {
        ip(&format!("-6 addr show dev up0 scope global {state}")).contains("inet6") == present
    });
}

#[test]
#[ignore = "needs root"]
fn an_address_that_another_host_has_is_never_used() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let _neighbour = neighbour_with("2001:db8::66");
        let config = v6_config(&["up0", "up1"]);
        let (mut router, _) = router(&config, state().path());
        // Newer, and so the kernel's first.
        ip("-6 addr add 2001:db8::66/64 dev up0");
        wait_for_state("dadfailed", true);
        let links = router.read_links(&config).unwrap();
        assert_eq!(source(&links[A]), Some(address("2001:db8::2")));
        assert_eq!(v6_addresses(&links[A]), targets(&["2001:db8::2"]));
        assert_eq!(links[A].duplicates, targets(&["2001:db8::66"]));
        assert!(links[B].duplicates.is_empty());
        prepare(&mut router, &links);
        assert!(!ip("-6 rule show").contains("2001:db8::66"));

        // Alone it is as good as none.
        ip("-6 addr del 2001:db8::2/64 dev up0");
        let (alone, missing) = Router::connect(&config.route, state().path())
            .unwrap()
            .await_uplinks(&config)
            .unwrap();
        assert_eq!(source(&alone[A]), None);
        assert!(
            matches!(&missing[..], [Failure::NoSourceAddress { missing, .. }] if missing == "IPv6 address"),
            "{missing:?}"
        );

        // The kernel checks a new one, which nobody else has.
        ip("-6 addr add 2001:db8::67/64 dev up0");
        wait_for_state("tentative -dadfailed", false);
        let links = router.read_links(&config).unwrap();
        assert_eq!(source(&links[A]), Some(address("2001:db8::67")));
        ip("-6 addr del 2001:db8::66/64 dev up0");
        assert!(router.read_links(&config).unwrap()[A].duplicates.is_empty());
    });
}

#[test]
#[ignore = "needs root"]
fn an_optimistic_address_is_used_where_there_is_no_other() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = v6_config(&["up0", "up1"]);
        let (mut router, _) = router(&config, state().path());
        // It is checked for longer than this test takes (RFC 4429).
        set("up0/optimistic_dad", "1");
        set("up0/use_optimistic", "1");
        set("up0/dad_transmits", "600");
        ip("-6 addr add 2001:db8::77/64 dev up0 optimistic");
        wait_for_state("tentative", true);
        let links = router.read_links(&config).unwrap();
        assert_eq!(source(&links[A]), Some(address("2001:db8::2")));
        // Connections may have it already.
        assert_eq!(
            v6_addresses(&links[A]),
            targets(&["2001:db8::2", "2001:db8::77"])
        );

        ip("-6 addr del 2001:db8::2/64 dev up0");
        let links = router.read_links(&config).unwrap();
        assert_eq!(source(&links[A]), Some(address("2001:db8::77")));
        // The kernel, too, sends from it.
        ip("-6 route del default dev up1");
        assert_eq!(kernels_source("2001:db8:ffff::1"), address("2001:db8::77"));
    });
}

#[test]
#[ignore = "needs root"]
fn an_unnumbered_link_borrows_an_address_that_is_no_uplinks() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(1, 500);
        ip("tuntap add tun0 mode tun");
        ip("link set tun0 up");
        ip("-6 route add default dev tun0 metric 501");
        let config = v6_config(&["up0", "tun0"]);
        let look = || {
            let state = state();
            let mut router = Router::connect(&config.route, state.path()).unwrap();
            let (links, missing) = router.await_uplinks(&config).unwrap();
            let report = prepare(&mut router, &links);
            assert_eq!(report.problems, Vec::<String>::new());
            let rules = ip("-6 rule show");
            router.restore();
            (
                source(&links[B]),
                links[B].addresses.clone(),
                missing,
                rules,
            )
        };
        // A link-local address is none that could be used beyond the link, and the kernel would take the other uplink's.
        ip("-6 addr add fe80::64/64 dev tun0 nodad");
        ip("link set up1 down");
        let (source, _, missing, _) = look();
        assert_eq!(source, None);
        assert!(
            matches!(&missing[..], [Failure::NoSourceAddress { missing, .. }] if missing == "IPv6 address"),
            "{missing:?}"
        );

        // That of the loopback, or of the interface that others are behind. It is in use at once: without `nodad` even
        // the loopback's address is tentative until a thread of the kernel has come to it.
        ip("-6 addr add 2001:db8:77::7/128 dev lo nodad");
        let (source, addresses, missing, rules) = look();
        assert_eq!(
            (source, missing.len()),
            (Some(address("2001:db8:77::7")), 0)
        );
        assert!(addresses.is_empty());
        assert!(!rules.contains("from 2001:db8:77::7"), "{rules}");
        // It is that of every connection, also of those for which the kernel would take the other uplink's.
        let state = state();
        let (mut router, _) = router(&config, state.path());
        router.activate(Family::V6, only(B)).unwrap();
        for target in ["2001:db8:ffff::1", "2001:db8:0:9::1"] {
            assert_eq!(kernels_source(target), address("2001:db8:77::7"));
        }
        router.restore();
        ip("link set up1 up");
        ip("-6 addr replace 2001:db8:1::2/64 dev up1 nodad");
        wait_for("an address for the route", || {
            let output = std::process::Command::new("ip")
                .args("-6 route replace default dev tun0 src 2001:db8:1::2 metric 501".split(' '))
                .status();
            output.unwrap().success()
        });
        let (source, _, _, _) = look();
        assert_eq!(source, Some(address("2001:db8:1::2")), "the route says so");
    });
}
