//! What is found, what is refused, and what is prepared.

use failover_policy::{Family, UplinkId};

use failover_agent::{
    config::{Config, Gateway},
    failure::Failure,
    route::Router,
};
use failover_ebpf::LinkLayer;

use crate::{fixtures::*, netns::*};

#[test]
#[ignore = "needs root"]
fn discovers_ethernet_tunnel_advertised_and_explicit() {
    isolated(|| {
        ethernet_uplinks(3);
        ip("route add default via 10.0.0.1 dev up0 proto dhcp src 10.0.0.2 mtu 1400");
        ip("route add default via 10.0.0.9 dev up0 proto static metric 700");
        ip("addr add 10.0.0.3/24 dev up0");
        ip("-6 route add default via fe80::1 dev up0 proto ra metric 1024");
        // up1 has no default route: explicit gateways. up2 has no gateway in IPv6.
        ip("route add default via 10.9.9.9 dev up2 onlink metric 900");
        ip("tuntap add tun0 mode tun");
        ip("link set tun0 up");
        ip("addr add 10.64.0.2 peer 10.64.0.1/32 dev tun0");
        let before = snapshot();

        let state = state();
        let mut config = config(&["up0", "up1", "up2", "tun0"]);
        config.uplinks[1].gateway = Gateway::Address(address("10.0.1.254"));
        config.uplinks[1].gateway6 = Gateway::Address(address("2001:db8:1::254"));
        config.uplinks[2].probe.targets = targets(&["192.0.2.1"]);
        config.uplinks[3].probe.targets = targets(&["192.0.2.1"]);
        let links = Router::connect(&config.route, state.path())
            .unwrap()
            .discover(&config)
            .unwrap();

        let path = |uplink: UplinkId, family: Family| links[uplink].families[family].clone();
        let v4 = path(A, Family::V4).unwrap();
        assert_eq!(
            (v4.source, v4.gateway),
            (address("10.0.0.2"), Some(address("10.0.0.1")))
        );
        assert_eq!(links[A].addresses[..2], targets(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(v4.prefixes, vec![network("10.0.0.0/24")]);
        let v6 = path(A, Family::V6).unwrap();
        assert_eq!(
            (v6.source, v6.gateway),
            (address("2001:db8::2"), Some(address("fe80::1")))
        );
        assert_eq!(v6.prefixes, vec![network("2001:db8::/64")]);
        assert_eq!(links[A].link_layer, LinkLayer::Ethernet);
        assert!(links[A].carrier);

        assert_eq!(
            path(B, Family::V4).unwrap().gateway,
            Some(address("10.0.1.254"))
        );
        assert_eq!(
            path(B, Family::V6).unwrap().gateway,
            Some(address("2001:db8:1::254"))
        );
        assert_eq!(
            path(C, Family::V4).unwrap().gateway,
            Some(address("10.9.9.9"))
        );
        assert_eq!(path(C, Family::V6), None);

        assert_eq!(links[D].link_layer, LinkLayer::None);
        assert!(!links[D].carrier, "nobody holds the tun device open");
        let tunnel = path(D, Family::V4).unwrap();
        assert_eq!(
            (tunnel.source, tunnel.gateway),
            (address("10.64.0.2"), None)
        );
        assert_eq!(tunnel.prefixes, vec![network("10.64.0.1/32")]);

        assert_eq!(snapshot(), before, "discovery reads only");
        assert_eq!(state.path().read_dir().unwrap().count(), 0);
    });
}

#[test]
#[ignore = "needs root"]
fn prefers_permanent_addresses_that_are_ready() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        ip("-6 addr add 2001:db8::bad/64 dev up0 nodad preferred_lft 0");
        let config = config(&["up0", "up1"]);
        let links = Router::connect(&config.route, state().path())
            .unwrap()
            .discover(&config)
            .unwrap();
        let path = links[A].families.v6.clone().unwrap();
        assert_eq!(path.source, address("2001:db8::2"));
        assert_eq!(
            v6_addresses(&links[A]),
            targets(&["2001:db8::2", "2001:db8::bad"]),
            "connections may have the deprecated one, and none the link-local one"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn names_what_is_wrong() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(2, 500);
        let state = state();
        let discover = |config: &Config| {
            Router::connect(&config.route, state.path())
                .unwrap()
                .discover(config)
        };

        let wrong = failure(discover(&config(&["up0", "upp1"])));
        assert!(
            matches!(&wrong, Failure::UnknownInterface { cure, .. } if cure.contains("did you mean `up")),
            "{wrong}"
        );
        let wrong = failure(discover(&config(&["up0", "wwan0"])));
        assert!(
            matches!(&wrong, Failure::UnknownInterface { cure, .. } if cure.contains("up0, ")),
            "{wrong}"
        );

        for altname in ["enp3s0", "enp0s31f6-of-the-cable-modem"] {
            ip(&format!("link property add dev up1 altname {altname}"));
            let wrong = failure(discover(&config(&["up0", altname])));
            assert!(
                matches!(&wrong, Failure::UnknownInterface { cure, .. } if cure == "it is an altname of up1: write `up1`"),
                "{wrong}"
            );
        }

        let wrong = failure(discover(&config(&["up0", "up2"])));
        assert!(
            matches!(
                &wrong,
                Failure::NoGateway {
                    family: Family::V4,
                    ..
                }
            ),
            "{wrong}"
        );

        let mut off_link = config(&["up0", "up1"]);
        off_link.uplinks[1].gateway = Gateway::Address(address("10.0.7.1"));
        let wrong = failure(discover(&off_link));
        assert!(
            matches!(&wrong, Failure::GatewayOffLink { networks, .. } if networks == "10.0.1.0/24"),
            "{wrong}"
        );

        ip("addr flush dev up2");
        let wrong = failure(discover(&config(&["up0", "up2"])));
        assert!(
            matches!(
                &wrong,
                Failure::NoSourceAddress { missing, .. } if missing == "IPv4 address"
            ),
            "{wrong}"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn prepares_tables_and_rules_once() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        ip("rule add pref 13700 from 10.99.0.0/16 lookup main");
        let before = snapshot();
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, mut links) = router(&config, state.path());

        let rules = ip_json("-4 rule show");
        let lines: Vec<String> = rules
            .iter()
            .map(|rule| {
                let text = |key: &str| rule[key].as_str().unwrap_or("-").to_owned();
                let suppress = rule["suppress_prefixlen"].as_i64().unwrap_or(-1);
                format!(
                    "{} {} {} {} {} {suppress} {}",
                    rule["priority"],
                    text("src"),
                    text("fwmark"),
                    text("oif"),
                    text("table"),
                    text("protocol")
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "0 all - - local -1 kernel",
                "13600 all 0x88 up0 13600 -1 136",
                "13601 all 0x88 up1 13601 -1 136",
                "13664 10.0.0.2 - - main 0 136",
                "13665 10.0.0.2 - - 13600 -1 136",
                "13666 10.0.1.2 - - main 0 136",
                "13667 10.0.1.2 - - 13601 -1 136",
                "13700 10.99.0.0 - - main -1 unspec",
                "32766 all - - main -1 kernel",
                "32767 all - - default -1 kernel",
            ]
        );
        assert_eq!(
            ip_json("-6 rule show")
                .iter()
                .filter(|rule| rule["protocol"] == "136")
                .count(),
            6
        );
        assert_eq!(
            ip("route get 192.0.2.1 from 10.0.1.2")
                .split_whitespace()
                .nth(6),
            Some("up1")
        );
        assert!(
            ip("route get 192.0.2.1 mark 0x88 oif up1")
                .contains("via 10.0.1.1 dev up1 table 13601")
        );
        assert!(
            ip("-6 route get 2001:db8:ffff::1 from 2001:db8:1::2")
                .contains("via 2001:db8:1::1 dev up1")
        );
        assert!(
            ip("route get 10.0.0.77 from 10.0.1.2").contains("dev up0"),
            "networks in the main table still apply"
        );

        let prepared = snapshot();
        assert_eq!(
            prepare(&mut router, &links),
            failover_agent::route::Report::default()
        );
        assert_eq!(snapshot(), prepared);

        // A new agent adopts it all.
        let mut second = Router::connect(&config.route, state.path()).unwrap();
        assert_eq!(second.discover(&config).unwrap(), links);
        assert_eq!(
            prepare(&mut second, &links),
            failover_agent::route::Report::default()
        );

        // Another address and another gateway.
        ip("addr add 10.0.1.7/24 dev up1");
        ip("addr del 10.0.1.2/24 dev up1");
        ip("addr add 10.0.1.7/24 dev up1");
        ip("route replace default via 10.0.1.99 dev up1 proto dhcp metric 501");
        links = router.read_links(&config).unwrap();
        let report = prepare(&mut router, &links);
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(ip("route get 192.0.2.1 from 10.0.1.7").contains("via 10.0.1.99 dev up1"));
        assert!(!ip("rule show").contains("10.0.1.2 "));
        assert_eq!(ip_json("route show table 13601 default").len(), 1);

        // Fewer uplinks: what is stale goes.
        let first = [(A, links[A].clone())].into_iter().collect();
        prepare(&mut router, &first);
        assert!(!ip("rule show").contains("lookup 13601"));
        assert_eq!(ip_json("route show table 13601").len(), 0);

        router.restore();
        ip("addr add 10.0.1.2/24 dev up1");
        ip("addr del 10.0.1.7/24 dev up1");
        ip("addr add 10.0.1.2/24 dev up1");
        ip("route replace default via 10.0.1.1 dev up1 proto dhcp metric 501");
        assert_eq!(snapshot(), before);
    });
}
