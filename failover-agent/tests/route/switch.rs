//! The switch: make before break, and what becomes of it when something is in the way.

use failover_policy::{Family, UplinkId};

use crate::{fixtures::*, netns::*, poller::Poller};

#[test]
#[ignore = "needs root"]
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
        for round in 0..rounds(4000) {
            for family in Family::ALL {
                let to = if round % 2 == 0 { A } else { B };
                match family {
                    Family::V4 => v4.switching(),
                    Family::V6 => v6.switching(),
                }
                let confirmed = router.activate(family, only(to)).unwrap();
                assert_eq!(confirmed.problems, Vec::<String>::new());
                assert_eq!(router.current(family).unwrap(), only(to));
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
#[ignore = "needs root"]
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
            broken[B].families[family].as_mut().unwrap().gateway = Some(address(wrong));
            prepare(&mut router, &broken);
            let error = router.activate(family, only(B)).unwrap_err();
            assert!(
                format!("{error:#}").contains("the kernel refused default via"),
                "{error:#}"
            );
        }
        prepare(&mut router, &links);
        assert_eq!(snapshot(), untouched);
        assert_eq!(record(), None);

        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        let standing = snapshot();
        let displaced = record();
        assert!(displaced.is_some());
        for (family, wrong) in [(Family::V4, "10.77.0.1"), (Family::V6, "2001:db8:77::1")] {
            links[B].families[family].as_mut().unwrap().gateway = Some(address(wrong));
        }
        prepare(&mut router, &links);
        for family in Family::ALL {
            router.activate(family, only(B)).unwrap_err();
            assert_eq!(router.current(family).unwrap(), only(A));
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

        // The interface is down. Its other end follows a moment later.
        ip("link set up2 down");
        wait_for("the other end has no carrier", || {
            ip("-6 route show dev far2").contains("linkdown")
        });
        let before = snapshot();
        let error = router.activate(Family::V4, only(UplinkId(2))).unwrap_err();
        assert!(
            format!("{error:#}").contains("refused default via 10.0.2.1 dev up2"),
            "{error:#}"
        );
        assert_eq!(snapshot(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn fails_over_from_an_interface_that_is_down() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        router.activate(Family::V4, only(A)).unwrap();
        ip("link set up0 down");
        let confirmed = router.activate(Family::V4, only(B)).unwrap();
        assert!(
            confirmed
                .problems
                .iter()
                .any(|line| line.contains("dev up0")),
            "{confirmed:?}"
        );
        assert_eq!(defaults("-4")[0], ours("up1", "10.0.1.1", 50));

        // It comes back without its routes; a look gives ours back.
        ip("link set up0 up");
        let report = look(&mut router, &config);
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(
            defaults("-4")[..2],
            [ours("up1", "10.0.1.1", 50), ours("up0", "10.0.0.1", 100)]
        );
        assert!(ip("route get 192.0.2.1 from 10.0.0.2").contains("via 10.0.0.1 dev up0"));
    });
}

#[test]
#[ignore = "needs root"]
fn notices_a_route_that_has_just_come() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        // Nobody has told the router: it finds out when it wants to put its own there.
        ip("route add default via 10.0.1.1 dev up1 proto dhcp metric 100");
        ip("-6 route add default via 2001:db8:1::1 dev up1 proto static metric 100");
        for family in Family::ALL {
            let confirmed = router.activate(family, only(B)).unwrap();
            assert!(
                lines(&confirmed.changes)
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

        // Of an interface that is no uplink: nothing happens to it, and ours gets another metric.
        router.activate(Family::V6, only(A)).unwrap();
        ip("-6 route add default via 2001:db8:2::1 dev up2 metric 100");
        router.activate(Family::V6, only(B)).unwrap();
        assert_eq!(
            defaults("-6")[..3],
            [
                ours("up1", "2001:db8:1::1", 50),
                foreign("up2", "2001:db8:2::1", 100, "boot"),
                ours("up0", "2001:db8::1", 102),
            ]
        );
    });
}

#[test]
#[ignore = "needs root"]
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
            links[B].families.v4.as_ref().unwrap().gateway,
            Some(address("10.0.1.1"))
        );
        for family in Family::ALL {
            router.activate(family, only(B)).unwrap();
            router.activate(family, only(A)).unwrap();
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
        let report = router.restore();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(snapshot(), before);
    });
}

#[test]
#[ignore = "needs root"]
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
                router.activate(family, only(A)).unwrap();
                assert_eq!(
                    defaults(option)[..2],
                    [ours("up0", gateway, 50), tunnel(101)]
                );
                router.activate(family, only(B)).unwrap();
                assert_eq!(
                    defaults(option)[..2],
                    [tunnel(50), ours("up0", gateway, 100)]
                );
            }
        }
        router.restore();
        assert_eq!(snapshot(), before);
    });
}
