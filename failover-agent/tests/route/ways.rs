//! Sources, gateways and networks on the link that are not as simple as a lease of a /24.

use failover_policy::{Family, PerUplink, UplinkId};
use ipnet::IpNet;

use failover_agent::{
    config::{Config, Gateway},
    failure::Failure,
    route::{EgressPath, Link, Router},
};

use crate::{fixtures::*, netns::*};

fn discover(config: &Config) -> anyhow::Result<PerUplink<Link>> {
    Router::connect(&config.route, state().path())
        .unwrap()
        .discover(config)
}

fn path(links: &PerUplink<Link>, uplink: UplinkId, family: Family) -> &EgressPath {
    links[uplink].families[family].as_ref().unwrap()
}

#[test]
#[ignore = "needs root"]
fn the_source_suits_the_target() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        // Newer, and so the kernel's first.
        for n in 0..2 {
            ip(&format!("-6 addr add fd00:{n}::2/64 dev up{n} nodad"));
        }
        let mut config = config(&["up0", "up1"]);
        config.uplinks[1].probe.targets = targets(&["192.0.2.1", "fd00:99::1"]);
        let links = discover(&config).unwrap();
        let source = |uplink| path(&links, uplink, Family::V6).source;
        assert_eq!(source(A), address("2001:db8::2"));
        assert_eq!(source(B), address("fd00:1::2"), "for a target of a site");
        // The kernel has the last word.
        for (uplink, target) in [(A, "2001:db8:ffff::1"), (B, "fd00:99::1")] {
            let chosen = ip(&format!("-6 route get {target} oif up{}", uplink.0));
            assert!(
                chosen.contains(&format!("src {}", source(uplink))),
                "{chosen}"
            );
        }
        assert_eq!(
            v6_addresses(&links[A]),
            targets(&["2001:db8::2", "fd00::2"]),
            "connections may have both"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_given_source_is_used_and_preferred_or_missed() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        ip("addr add 10.0.0.77/24 dev up0");
        ip("-6 addr add 2001:db8::77/64 dev up0 nodad");
        let mut config = config(&["up0", "up1"]);
        config.uplinks[0].source = Some(address("10.0.0.77"));
        config.uplinks[0].source6 = Some(address("2001:db8::77"));
        let state = state();
        let (mut router, links) = router(&config, state.path());
        assert_eq!(path(&links, A, Family::V4).source, address("10.0.0.77"));
        assert_eq!(path(&links, A, Family::V6).source, address("2001:db8::77"));
        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        assert!(ip("route get 192.0.2.1").contains("src 10.0.0.77"));
        assert!(ip("-6 route get 2001:db8:ffff::1").contains("src 2001:db8::77"));

        // Another's address is not the uplink's.
        config.uplinks[0].source = Some(address("10.0.1.2"));
        let (links, missing) = router.await_uplinks(&config).unwrap();
        assert_eq!(links[A].families.v4, None);
        assert!(links[A].families.v6.is_some(), "IPv6 goes on");
        assert!(missing.is_empty(), "{missing:?}");
        config.uplinks[0].probe.targets = targets(&["192.0.2.1"]);
        let (_, missing) = router.await_uplinks(&config).unwrap();
        let text = missing[0].to_string();
        assert!(text.contains("up0 has no address 10.0.1.2"), "{text}");
        assert!(text.contains("`source`"), "{text}");
    });
}

#[test]
#[ignore = "needs root"]
fn a_gateway_that_a_host_route_reaches_is_learned_and_kept() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        // As a DHCP client does it for a lease of one address (RFC 3442), and an administrator for a hosted machine.
        ip("addr flush dev up1 scope global");
        ip("addr add 10.77.1.5/32 dev up1");
        ip("route add 10.9.0.1 dev up1 proto dhcp scope link src 10.77.1.5 metric 200");
        ip("route add default via 10.9.0.1 dev up1 proto dhcp src 10.77.1.5 metric 700");
        ip("-6 addr add 2001:db8:77::5/128 dev up1 nodad");
        ip("-6 route add 2001:db8:9::1 dev up1 metric 300");
        ip("-6 route add default via 2001:db8:9::1 dev up1 metric 700");
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, links) = router(&config, state.path());
        for (family, gateway, word) in [
            (Family::V4, "10.9.0.1", "-4"),
            (Family::V6, "2001:db8:9::1", "-6"),
        ] {
            let path = path(&links, B, family);
            assert_eq!(path.gateway, Some(address(gateway)));
            assert!(path.prefixes.contains(&IpNet::from(address(gateway))));
            let table = ip(&format!("{word} route show table 13601"));
            assert!(table.contains(&format!("via {gateway} dev up1")), "{table}");
            router.activate(family, only(B)).unwrap();
        }
        // The interface was down for a moment, and nobody puts the routes back.
        ip("link set up1 down");
        ip("link set up1 up");
        router.interrupted("up1");
        let report = look(&mut router, &config);
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(ip("route show default").contains("via 10.9.0.1 dev up1"));
        assert!(ip("route get 192.0.2.1").contains("via 10.9.0.1 dev up1"));
    });
}

#[test]
#[ignore = "needs root"]
fn a_given_gateway_may_be_reached_by_a_host_route_or_be_the_only_neighbour() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(1, 500);
        ip("addr flush dev up1 scope global");
        ip("addr add 10.77.1.5/32 dev up1");
        let mut config = config(&["up0", "up1"]);
        config.uplinks[1].gateway = Gateway::Address(address("10.9.0.1"));
        config.uplinks[1].probe.targets = targets(&["192.0.2.1"]);
        // Nothing else is on the link.
        let (_, links) = router(&config, state().path());
        assert_eq!(path(&links, B, Family::V4).source, address("10.77.1.5"));
        assert!(ip("route show table 13601").contains("default via 10.9.0.1 dev up1"));

        // A second network does not make it wrong, as long as there is a route to it.
        ip("addr add 192.168.8.2/24 dev up1");
        let wrong = failure(discover(&config));
        assert!(matches!(wrong, Failure::GatewayOffLink { .. }), "{wrong}");
        ip("route add 10.9.0.1 dev up1 scope link");
        let (_, links) = router(&config, state().path());
        let path = path(&links, B, Family::V4);
        assert_eq!(
            path.prefixes,
            [network("192.168.8.0/24"), network("10.9.0.1/32")]
        );
    });
}

#[test]
#[ignore = "needs root"]
fn half_of_the_internet_is_not_on_the_link() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        // What a rogue router advertises, and its counterparts.
        ip("-6 route add ::/1 dev up0 proto ra metric 256 expires 600");
        ip("-6 route add 2001:db8::/47 dev up1 proto ra metric 256");
        ip("route add 128.0.0.0/2 dev up1 proto kernel scope link");
        let mut config = config(&["up0", "up1"]);
        config.uplinks[0].probe.targets = targets(&["192.0.2.1", "2001:db8:1:1::1"]);
        let links = discover(&config).unwrap();
        let prefixes = |uplink, family| path(&links, uplink, family).prefixes.clone();
        assert_eq!(prefixes(A, Family::V6), [network("2001:db8::/64")]);
        assert_eq!(prefixes(B, Family::V6), [network("2001:db8:1::/64")]);
        assert_eq!(prefixes(B, Family::V4), [network("10.0.1.0/24")]);
    });
}

#[test]
#[ignore = "needs root"]
fn a_default_route_for_one_source_tells_the_gateway() {
    isolated(|| {
        ethernet_uplinks(2);
        // As OpenWrt's netifd makes them, for the delegated prefix and for the address.
        for (n, metric) in [(0, 512), (1, 513)] {
            for prefix in [format!("2001:db8:{n}::/56"), format!("2001:db8:{n}::2/128")] {
                ip(&format!(
                    "-6 route add default from {prefix} via fe80::{n}1 dev up{n} proto static metric {metric}"
                ));
            }
        }
        ip("-6 route add default via fe80::99 dev up1 proto ra metric 1024");
        let mut config = config(&["up0", "up1"]);
        for uplink in &mut config.uplinks {
            uplink.probe.targets = targets(&["2001:db8:ffff::1"]);
        }
        let state = state();
        let (mut router, links) = router(&config, state.path());
        let gateway = |links: &PerUplink<Link>, uplink| path(links, uplink, Family::V6).gateway;
        assert_eq!(gateway(&links, A), Some(address("fe80::1")));
        assert_eq!(
            gateway(&links, B),
            Some(address("fe80::99")),
            "one for every source goes first"
        );
        router.activate(Family::V6, only(A)).unwrap();
        assert!(ip("-6 route get 2001:db8:ffff::1").contains("via fe80::1 dev up0"));
        router.activate(Family::V6, only(B)).unwrap();
        assert!(ip("-6 route get 2001:db8:ffff::1").contains("via fe80::99 dev up1"));
        // Others' routes for a source are left to them, and one that goes is a gateway that goes.
        assert_eq!(ip("-6 route show default").matches("from").count(), 4);
        ip("-6 route del default from 2001:db8:0::/56 dev up0");
        ip("-6 route del default from 2001:db8:0::2 dev up0");
        wait_for("the gateway is gone", || {
            let links = router.read_links(&config).unwrap();
            prepare(&mut router, &links);
            links[A].families.v6.is_none()
        });
    });
}
