//! The routing edge against a real kernel, in network namespaces; read back with `ip`.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "route/neighbour.rs"]
mod neighbour;
#[path = "route/netns.rs"]
mod netns;

use std::{
    net::{IpAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use failover_agent::{
    config::{Config, Gateway},
    failure::Failure,
    policy::{Family, UplinkId},
    route::{Change, Link, Observer, Router, reset},
};
use failover_ebpf::LinkLayer;
use netns::*;

const A: UplinkId = UplinkId(0);
const B: UplinkId = UplinkId(1);

fn state() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Discovered and prepared.
fn router(config: &Config, state: &Path) -> (Router, Vec<Link>) {
    let mut router = Router::connect(&config.route, state).unwrap();
    let links = router.discover(config).unwrap();
    let report = router.prepare(&links).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    (router, links)
}

fn failure(result: anyhow::Result<Vec<Link>>) -> Failure {
    result.unwrap_err().downcast::<Failure>().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ours(dev: &str, gateway: &str, metric: u64) -> (String, Option<String>, u64, String) {
    (
        dev.to_owned(),
        Some(gateway.to_owned()),
        metric,
        "136".to_owned(),
    )
}

fn foreign(
    dev: &str,
    gateway: &str,
    metric: u64,
    protocol: &str,
) -> (String, Option<String>, u64, String) {
    (
        dev.to_owned(),
        Some(gateway.to_owned()),
        metric,
        protocol.to_owned(),
    )
}

#[test]
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

        let path = |rank: usize, family: usize| links[rank].families[family].clone();
        let v4 = path(0, 0).unwrap();
        assert_eq!(
            (v4.source, v4.gateway),
            (address("10.0.0.2"), Some(address("10.0.0.1")))
        );
        assert_eq!(v4.addresses, targets(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(v4.prefixes, vec![(address("10.0.0.0"), 24)]);
        let v6 = path(0, 1).unwrap();
        assert_eq!(
            (v6.source, v6.gateway),
            (address("2001:db8::2"), Some(address("fe80::1")))
        );
        assert_eq!(v6.prefixes, vec![(address("2001:db8::"), 64)]);
        assert_eq!(links[0].link_layer, LinkLayer::Ethernet);
        assert!(links[0].carrier);

        assert_eq!(path(1, 0).unwrap().gateway, Some(address("10.0.1.254")));
        assert_eq!(
            path(1, 1).unwrap().gateway,
            Some(address("2001:db8:1::254"))
        );
        assert_eq!(path(2, 0).unwrap().gateway, Some(address("10.9.9.9")));
        assert_eq!(path(2, 1), None);

        assert_eq!(links[3].link_layer, LinkLayer::None);
        assert!(!links[3].carrier, "nobody holds the tun device open");
        let tunnel = path(3, 0).unwrap();
        assert_eq!(
            (tunnel.source, tunnel.gateway),
            (address("10.64.0.2"), None)
        );
        assert_eq!(tunnel.prefixes, vec![(address("10.64.0.1"), 32)]);

        assert_eq!(snapshot(), before, "discovery reads only");
        assert_eq!(state.path().read_dir().unwrap().count(), 0);
    });
}

#[test]
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
        let path = links[0].families[1].clone().unwrap();
        assert_eq!(path.source, address("2001:db8::2"));
        assert_eq!(
            path.addresses,
            targets(&["2001:db8::2"]),
            "neither deprecated nor link-local ones"
        );
    });
}

#[test]
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
                Failure::NoSourceAddress {
                    family: Family::V4,
                    ..
                }
            ),
            "{wrong}"
        );

        ip("addr add 10.0.2.2/24 dev up2");
        ip("route add default via 10.0.2.1 dev up2 metric 101");
        let wrong = failure(discover(&config(&["up0", "up1"])));
        assert!(
            matches!(&wrong, Failure::MetricTaken { key: "standby_metric", metric: 101, route } if route.contains("dev up2")),
            "{wrong}"
        );
        ip("route del default dev up2");
        ip("-6 route add default dev up2 metric 50");
        let wrong = failure(discover(&config(&["up0", "up1"])));
        assert!(
            matches!(
                &wrong,
                Failure::MetricTaken {
                    key: "active_metric",
                    metric: 50,
                    ..
                }
            ),
            "{wrong}"
        );
    });
}

#[test]
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
                "13600 10.0.0.2 - - main 0 136",
                "13601 all 0x88 up0 13600 -1 136",
                "13602 10.0.0.2 - - 13600 -1 136",
                "13603 10.0.1.2 - - main 0 136",
                "13604 all 0x88 up1 13601 -1 136",
                "13605 10.0.1.2 - - 13601 -1 136",
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
            router.prepare(&links).unwrap(),
            failover_agent::route::Report::default()
        );
        assert_eq!(snapshot(), prepared);

        // A new agent adopts it all.
        let mut second = Router::connect(&config.route, state.path()).unwrap();
        assert_eq!(second.discover(&config).unwrap(), links);
        assert_eq!(
            second.prepare(&links).unwrap(),
            failover_agent::route::Report::default()
        );

        // Another address and another gateway.
        ip("addr add 10.0.1.7/24 dev up1");
        ip("addr del 10.0.1.2/24 dev up1");
        ip("addr add 10.0.1.7/24 dev up1");
        ip("route replace default via 10.0.1.99 dev up1 proto dhcp metric 501");
        links = router.rediscover(&config).unwrap();
        let report = router.prepare(&links).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(ip("route get 192.0.2.1 from 10.0.1.7").contains("via 10.0.1.99 dev up1"));
        assert!(!ip("rule show").contains("10.0.1.2 "));
        assert_eq!(ip_json("route show table 13601 default").len(), 1);

        // Fewer uplinks: what is stale goes.
        router.prepare(&links[..1]).unwrap();
        assert!(!ip("rule show").contains("lookup 13601"));
        assert_eq!(ip_json("route show table 13601").len(), 0);

        router.restore().unwrap();
        ip("addr add 10.0.1.2/24 dev up1");
        ip("addr del 10.0.1.7/24 dev up1");
        ip("addr add 10.0.1.2/24 dev up1");
        ip("route replace default via 10.0.1.1 dev up1 proto dhcp metric 501");
        assert_eq!(snapshot(), before);
    });
}

/// Asks the kernel for a route again and again, as every new connection does.
struct Poller {
    stop: Arc<AtomicBool>,
    lookups: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Vec<String>>>,
}

impl Poller {
    /// Whatever is not in `allowed` as source of a connection to `target` is a fault, and so is no route at all.
    fn start(target: &'static str, any: &'static str, allowed: &'static [&'static str]) -> Poller {
        let stop = Arc::new(AtomicBool::new(false));
        let lookups = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (stop.clone(), lookups.clone());
        let thread = thread::spawn(move || {
            let mut faults = Vec::new();
            while !stopped.load(Ordering::Relaxed) && faults.len() < 10 {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                match socket
                    .connect((target, 9))
                    .and_then(|()| socket.local_addr())
                {
                    Ok(source) if allowed.contains(&source.ip().to_string().as_str()) => {}
                    other => faults.push(format!("{other:?}")),
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            faults
        });
        Poller {
            stop,
            lookups,
            thread: Some(thread),
        }
    }

    fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let faults = self.thread.take().unwrap().join().unwrap();
        assert_eq!(faults, Vec::<String>::new());
        self.lookups.load(Ordering::Relaxed)
    }
}

#[test]
fn switches_without_an_instant_without_default_route() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(2, 0);
        // A third default route that must never be the best one.
        ip("route add default via 10.0.2.1 dev up2 metric 3000");
        ip("-6 route add default via 2001:db8:2::1 dev up2 metric 3000");
        // Metric 0 means 1024 in IPv6: make it beat ours, too.
        ip("-6 route add default via 2001:db8:0::1 dev up0 proto static metric 3");
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());

        let v4 = Poller::start("192.0.2.1", "0.0.0.0", &["10.0.0.2", "10.0.1.2"]);
        let v6 = Poller::start("2001:db8:ffff::1", "::", &["2001:db8::2", "2001:db8:1::2"]);
        let mut times = Vec::new();
        for round in 0..4000 {
            for family in Family::ALL {
                let to = if round % 2 == 0 { A } else { B };
                let confirmed = router.activate(family, to).unwrap();
                assert_eq!(confirmed.problems, Vec::<String>::new());
                assert_eq!(router.current(family).unwrap(), Some(to));
                // The first ones write the displaced routes to disk.
                if round > 1 {
                    times.push((
                        family,
                        confirmed.routed,
                        confirmed.confirmed,
                        confirmed.settled,
                    ));
                }
            }
        }
        let lookups = (v4.finish(), v6.finish());
        assert!(lookups.0 > 1000 && lookups.1 > 1000, "{lookups:?}");
        for family in Family::ALL {
            let mut of_family: Vec<_> = times.iter().filter(|time| time.0 == family).collect();
            of_family.sort_by_key(|time| time.2);
            let (_, routed, confirmed, settled) = of_family[of_family.len() / 2];
            println!(
                "{family}: routed {routed:?}, confirmed {confirmed:?}, settled {settled:?} (median of {}, {lookups:?} lookups meanwhile)",
                of_family.len()
            );
        }
        assert_eq!(
            defaults("-4"),
            [
                ours("up1", "10.0.1.1", 50),
                ours("up0", "10.0.0.1", 100),
                foreign("up2", "10.0.2.1", 3000, "boot")
            ]
        );
        assert_eq!(
            defaults("-6"),
            [
                ours("up1", "2001:db8:1::1", 50),
                ours("up0", "2001:db8::1", 100),
                foreign("up0", "2001:db8::1", 1024, "static"),
                foreign("up2", "2001:db8:2::1", 3000, "boot"),
            ]
            .into_iter()
            .collect::<Vec<_>>()
        );
    });
}

#[test]
fn displaces_what_beats_or_ties_and_restores_it_exactly() {
    isolated(|| {
        ethernet_uplinks(2);
        ip("route add default via 10.0.0.1 dev up0 proto dhcp src 10.0.0.2 mtu 1400 advmss 1300");
        ip("route add default via 10.0.0.1 dev up0 proto static metric 50");
        ip("route append default via 10.0.0.7 dev up0 proto static metric 50 initcwnd 20");
        ip("route add default via 10.0.1.1 dev up1 proto dhcp metric 100 onlink");
        ip("route add default via 10.0.1.1 dev up1 proto dhcp metric 600");
        ip("-6 route add default via 2001:db8::1 dev up0 proto static metric 50 mtu 1300");
        ip("-6 route add default via 2001:db8::1 dev up0 proto ra metric 1024");
        ip("-6 route add default via 2001:db8:1::1 dev up1 proto static metric 100");
        let before = snapshot();
        let order = ip("route show default");
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            for to in [A, B, A] {
                router.activate(family, to).unwrap();
            }
        }
        assert_eq!(
            defaults("-4"),
            [
                ours("up0", "10.0.0.1", 50),
                ours("up1", "10.0.1.1", 101),
                foreign("up1", "10.0.1.1", 600, "dhcp")
            ]
        );
        assert_eq!(
            defaults("-6"),
            [
                ours("up0", "2001:db8::1", 50),
                ours("up1", "2001:db8:1::1", 101),
                foreign("up0", "2001:db8::1", 1024, "ra")
            ]
        );
        let active = &ip_json("route show default metric 50")[0];
        assert_eq!(
            (
                active["prefsrc"].as_str(),
                active["metrics"][0]["mtu"].as_u64()
            ),
            (Some("10.0.0.2"), Some(1400)),
            "{active}"
        );
        let record = std::fs::read_to_string(state.path().join("displaced.json")).unwrap();
        assert!(
            record.contains("default via 10.0.0.1 dev up0 proto dhcp src 10.0.0.2 metric 0"),
            "{record}"
        );

        let report = router.restore().unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(snapshot(), before);
        assert_eq!(
            ip("route show default"),
            order,
            "routes of one metric keep their order"
        );
        assert!(!state.path().join("displaced.json").exists());
        assert_eq!(
            router.restore().unwrap(),
            failover_agent::route::Report::default(),
            "a second time does nothing"
        );
    });
}

#[test]
fn resets_after_a_kill() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 10);
        ip("route add 198.51.100.0/24 via 10.0.0.1 proto static");
        let before = snapshot();
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut killed, links) = router(&config, state.path());
        for family in Family::ALL {
            killed.activate(family, B).unwrap();
        }
        drop(killed);
        let left = snapshot();

        // The next run finds everything as it was, and changes nothing.
        let (mut second, learned) = router(&config, state.path());
        assert_eq!(
            learned, links,
            "gateways are learned from what was displaced, or from ours"
        );
        for family in Family::ALL {
            assert_eq!(second.current(family).unwrap(), Some(B));
            assert_eq!(
                second.activate(family, B).unwrap().changes,
                Vec::<String>::new()
            );
        }
        assert_eq!(snapshot(), left);
        drop(second);

        let report = reset(&config.route, state.path()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(
            report
                .changes
                .contains(&"restored default via 10.0.0.1 dev up0 proto dhcp metric 10".to_owned()),
            "{report:?}"
        );
        assert_eq!(snapshot(), before);
        assert_eq!(
            reset(&config.route, state.path()).unwrap(),
            failover_agent::route::Report::default()
        );
    });
}

#[test]
fn learns_from_its_own_routes_when_nothing_else_is_left() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut killed, links) = router(&config, state.path());
        killed.activate(Family::V4, A).unwrap();
        killed.activate(Family::V6, A).unwrap();
        drop(killed);
        for _ in 0..2 {
            ip("route del default proto dhcp");
            ip("-6 route del default proto static");
        }
        let mut second = Router::connect(&config.route, state.path()).unwrap();
        assert_eq!(second.discover(&config).unwrap(), links);
        ip("route flush proto 136");
        ip("-6 route flush proto 136");
        assert_eq!(
            second.discover(&config).unwrap(),
            links,
            "the uplinks' own tables remain"
        );
    });
}

#[test]
fn restores_what_can_be_and_reports_the_rest() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 10);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        router.activate(Family::V4, B).unwrap();
        ip("link del up0");
        let report = router.restore().unwrap();
        assert_eq!(
            report.problems,
            [
                "not restored default via 10.0.0.1 dev up0 proto dhcp metric 10: interface up0 is gone"
            ]
        );
        assert_eq!(defaults("-4"), [foreign("up1", "10.0.1.1", 11, "dhcp")]);
        assert!(!ip("rule show").contains("136"));
    });
}

#[test]
fn restores_on_an_interface_that_was_made_anew() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 10);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut killed, _) = router(&config, state.path());
        killed.activate(Family::V4, B).unwrap();
        drop(killed);
        ip("link del up0");
        ip("link add up0 type veth peer name far0");
        ip("addr add 10.0.0.2/24 dev up0");
        ip("link set up0 up");
        let report = reset(&config.route, state.path()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(
            defaults("-4"),
            [
                foreign("up0", "10.0.0.1", 10, "dhcp"),
                foreign("up1", "10.0.1.1", 11, "dhcp")
            ]
        );
    });
}

#[test]
fn ignores_a_record_from_before_the_boot() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 10);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut killed, _) = router(&config, state.path());
        killed.activate(Family::V4, B).unwrap();
        drop(killed);
        let file = state.path().join("displaced.json");
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        record["boot_id"] = "another".into();
        std::fs::write(&file, record.to_string()).unwrap();
        assert!(
            !reset(&config.route, state.path())
                .unwrap()
                .changes
                .iter()
                .any(|line| line.starts_with("restored"))
        );

        std::fs::write(&file, "{").unwrap();
        let error = reset(&config.route, state.path()).unwrap_err();
        assert!(
            format!("{error:#}").contains("is damaged: remove it"),
            "{error:#}"
        );
    });
}

#[test]
fn leaves_everything_when_the_new_route_is_refused() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 50);
        let config = config(&["up0", "up1", "up2"]);
        let state = state();
        let (mut router, mut links) = router(&config, state.path());
        let record = || std::fs::read_to_string(state.path().join("displaced.json")).ok();

        // Nothing of ours stands yet; in IPv6 the foreign route with our metric would have been replaced.
        let untouched = snapshot();
        for (family, wrong) in [(Family::V4, "10.77.0.1"), (Family::V6, "2001:db8:77::1")] {
            let mut broken = links.clone();
            broken[1].families[if family == Family::V4 { 0 } else { 1 }]
                .as_mut()
                .unwrap()
                .gateway = Some(address(wrong));
            router.prepare(&broken).unwrap();
            let error = router.activate(family, B).unwrap_err();
            assert!(
                format!("{error:#}").contains("the kernel refused default via"),
                "{error:#}"
            );
        }
        router.prepare(&links).unwrap();
        assert_eq!(snapshot(), untouched);
        assert_eq!(record(), None);

        for family in Family::ALL {
            router.activate(family, A).unwrap();
        }
        let standing = snapshot();
        let displaced = record();
        assert!(displaced.is_some());
        for (family, wrong) in [(0, "10.77.0.1"), (1, "2001:db8:77::1")] {
            links[1].families[family].as_mut().unwrap().gateway = Some(address(wrong));
        }
        router.prepare(&links).unwrap();
        for family in Family::ALL {
            router.activate(family, B).unwrap_err();
            assert_eq!(router.current(family).unwrap(), Some(A));
        }
        let main = |lines: &std::collections::BTreeSet<String>| -> Vec<String> {
            lines
                .iter()
                .filter(|line| line.contains("default") && !line.contains("136"))
                .cloned()
                .collect()
        };
        assert_eq!(main(&snapshot()), main(&standing));
        assert_eq!(record(), displaced);

        // The interface is down.
        ip("link set up2 down");
        let before = snapshot();
        let error = router.activate(Family::V4, UplinkId(2)).unwrap_err();
        assert!(
            format!("{error:#}").contains("refused default via 10.0.2.1 dev up2"),
            "{error:#}"
        );
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn fails_over_from_an_interface_that_is_down() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        router.activate(Family::V4, A).unwrap();
        ip("link set up0 down");
        let confirmed = router.activate(Family::V4, B).unwrap();
        assert!(
            confirmed
                .problems
                .iter()
                .any(|line| line.contains("dev up0")),
            "{confirmed:?}"
        );
        assert_eq!(defaults("-4")[0], ours("up1", "10.0.1.1", 50));

        // It comes back without its routes; reconcile gives ours back.
        ip("link set up0 up");
        let links = router.rediscover(&config).unwrap();
        router.prepare(&links).unwrap();
        let report = router.reconcile().unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(
            defaults("-4")[..2],
            [ours("up1", "10.0.1.1", 50), ours("up0", "10.0.0.1", 100)]
        );
        assert!(ip("route get 192.0.2.1 from 10.0.0.2").contains("via 10.0.0.1 dev up0"));
    });
}

#[test]
fn reconciles_what_others_undo() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, B).unwrap();
        }
        let standing = snapshot();
        assert_eq!(
            router.reconcile().unwrap(),
            failover_agent::route::Report::default(),
            "nothing to do"
        );

        // A DHCP client puts a better one, and one that ties.
        ip("route add default via 10.0.0.1 dev up0 proto dhcp");
        ip("route prepend default via 10.0.0.1 dev up0 proto dhcp metric 50");
        ip("-6 route add default via 2001:db8::1 dev up0 proto static metric 1");
        ip("-6 route append default via 2001:db8::1 dev up0 proto static metric 50");
        let report = router.reconcile().unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(
            report
                .changes
                .contains(&"displaced default via 10.0.0.1 dev up0 proto dhcp metric 0".to_owned()),
            "{report:?}"
        );
        assert_eq!(snapshot(), standing);

        // Someone flushes rules and routes.
        ip("rule flush");
        ip("rule add pref 32766 lookup main");
        ip("rule add pref 32767 lookup default");
        ip("route flush proto 136");
        ip("route flush table 13600");
        router.reconcile().unwrap();
        let healed = |lines: &std::collections::BTreeSet<String>| {
            lines
                .iter()
                .filter(|line| !line.contains("3276"))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(healed(&snapshot()), healed(&standing));
    });
}

#[test]
fn notices_a_route_that_has_just_come() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, A).unwrap();
        }
        // Nobody has told the router: it finds out when it wants to put its own there.
        ip("route add default via 10.0.1.1 dev up1 proto dhcp metric 100");
        ip("-6 route add default via 2001:db8:1::1 dev up1 proto static metric 100");
        for family in Family::ALL {
            let confirmed = router.activate(family, B).unwrap();
            assert!(
                confirmed
                    .changes
                    .iter()
                    .any(|line| line.starts_with("displaced default")),
                "{confirmed:?}"
            );
        }
        assert_eq!(
            defaults("-4")[..2],
            [ours("up1", "10.0.1.1", 50), ours("up0", "10.0.0.1", 100)]
        );
        assert_eq!(
            defaults("-6")[..2],
            [
                ours("up1", "2001:db8:1::1", 50),
                ours("up0", "2001:db8::1", 100)
            ]
        );

        // Someone else's interface with our metric: nothing happens to it, and nothing else.
        router.activate(Family::V6, A).unwrap();
        ip("-6 route add default via 2001:db8:2::1 dev up2 metric 100");
        let taken = snapshot();
        let error = router.activate(Family::V6, B).unwrap_err();
        assert!(
            matches!(
                error.downcast_ref(),
                Some(Failure::MetricTaken { metric: 100, .. })
            ),
            "{error:#}"
        );
        assert_eq!(snapshot(), taken);
    });
}

#[test]
fn takes_in_a_multipath_route_of_the_uplinks() {
    isolated(|| {
        ethernet_uplinks(2);
        ip(
            "route add default proto static nexthop via 10.0.0.1 dev up0 weight 3 nexthop via 10.0.1.1 dev up1",
        );
        ip(
            "-6 route add default proto static metric 20 nexthop via 2001:db8::1 dev up0 nexthop via 2001:db8:1::1 dev up1",
        );
        let before = snapshot();
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, links) = router(&config, state.path());
        assert_eq!(
            links[1].families[0].as_ref().unwrap().gateway,
            Some(address("10.0.1.1"))
        );
        for family in Family::ALL {
            router.activate(family, B).unwrap();
            router.activate(family, A).unwrap();
        }
        assert_eq!(
            defaults("-4"),
            [ours("up0", "10.0.0.1", 50), ours("up1", "10.0.1.1", 101)]
        );
        assert_eq!(
            defaults("-6"),
            [
                ours("up0", "2001:db8::1", 50),
                ours("up1", "2001:db8:1::1", 101)
            ]
        );
        let report = router.restore().unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn switches_between_ethernet_and_tunnel() {
    isolated(|| {
        ethernet_uplinks(1);
        ip("tuntap add tun0 mode tun");
        ip("link set tun0 up");
        ip("addr add 10.64.0.2/32 dev tun0");
        ip("-6 addr add 2001:db8:64::2/128 dev tun0 nodad");
        ip("route add default via 10.0.0.1 dev up0");
        ip("-6 route add default via 2001:db8::1 dev up0");
        // The kernel adds the local route of an IPv6 address a moment after the address.
        wait_for("the address is in place", || {
            let entries = snapshot();
            let of_address = entries
                .iter()
                .filter(|entry| entry.contains("2001:db8:64::2"));
            of_address.count() == 2
        });
        let before = snapshot();
        let config = config(&["up0", "tun0"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        let tunnel = |metric: u64| ("tun0".to_owned(), None, metric, "136".to_owned());
        for (family, option, gateway) in [
            (Family::V4, "-4", "10.0.0.1"),
            (Family::V6, "-6", "2001:db8::1"),
        ] {
            for _ in 0..2 {
                router.activate(family, A).unwrap();
                assert_eq!(
                    defaults(option)[..2],
                    [ours("up0", gateway, 50), tunnel(101)]
                );
                router.activate(family, B).unwrap();
                assert_eq!(
                    defaults(option)[..2],
                    [tunnel(50), ours("up0", gateway, 100)]
                );
            }
        }
        router.restore().unwrap();
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn observes_what_others_do() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut router, _) = router(&config, state.path());
            let mut observer = Observer::open(&router, &["up0", "up1"]).unwrap();
            let up1 = nix::net::if_::if_nametoindex("up1").unwrap();
            // What is seen before the expected change.
            let mut expect = async |command: &str, expected: Change| {
                ip(command);
                let mut others = Vec::new();
                loop {
                    let next = tokio::time::timeout(Duration::from_secs(10), observer.next());
                    match next
                        .await
                        .unwrap_or_else(|_| panic!("{command}: only {others:?}"))
                        .unwrap()
                    {
                        change if change == expected => return others,
                        other => others.push(other),
                    }
                }
            };

            // Our own changes, other networks and other interfaces are no news: the next thing seen is the address.
            router.activate(Family::V4, A).unwrap();
            router.activate(Family::V4, B).unwrap();
            ip("route add 198.51.100.0/24 via 10.0.0.1");
            ip("addr add 10.9.0.1/24 dev up2");
            ip("link set up2 down");
            let noise = expect(
                "addr add 10.9.1.1/24 dev up1",
                Change::Address {
                    ifindex: up1,
                    family: Family::V4,
                },
            )
            .await;
            assert_eq!(noise, []);
            let link = |carrier, gone| Change::Link {
                ifindex: up1,
                name: "up1".to_owned(),
                carrier,
                gone,
            };
            expect("link set far1 down", link(false, false)).await;
            expect("link set far1 up", link(true, false)).await;
            expect(
                "route add default via 10.0.0.1 dev up0 metric 7",
                Change::Route {
                    family: Family::V4,
                    ours: false,
                },
            )
            .await;
            expect(
                "-6 route add default via 2001:db8::1 dev up0 metric 7",
                Change::Route {
                    family: Family::V6,
                    ours: false,
                },
            )
            .await;
            expect(
                "route del default dev up1 metric 50",
                Change::Route {
                    family: Family::V4,
                    ours: true,
                },
            )
            .await;
            expect("rule del pref 13600", Change::Rule { family: Family::V4 }).await;
            expect("link del up1", link(false, true)).await;
        });
    });
}

#[test]
fn observer_survives_an_overrun() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (router, _) = router(&config, state.path());
            let mut observer = Observer::open(&router, &["up0", "up1"]).unwrap();
            let batch = state.path().join("batch");
            let line =
                "route add default via 10.0.0.1 dev up0 metric 7\nroute del default metric 7\n";
            std::fs::write(&batch, line.repeat(2000)).unwrap();
            ip(&format!("-batch {}", batch.display()));
            let mut next = async || {
                tokio::time::timeout(Duration::from_secs(10), observer.next())
                    .await
                    .unwrap()
                    .unwrap()
            };
            while next().await != Change::Resync {}
            // After the loss, news come in as before.
            ip("link set far1 down");
            while !matches!(next().await, Change::Link { carrier: false, .. }) {}
        });
    });
}
