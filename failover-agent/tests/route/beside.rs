//! Foreign default routes that stay: of interfaces that are no uplinks, and those that lead nowhere.

use failover_policy::{Family, UplinkId, UplinkSet};

use failover_agent::{
    config::Config,
    route::{Effect, ForeignDefault, Router},
};

use crate::{fixtures::*, netns::*, poller::Poller};

/// up0 and up1 are uplinks, up2 is not.
fn uplinks() -> Config {
    ethernet_uplinks(3);
    default_routes(2, 500);
    config(&["up0", "up1"])
}

/// Interface (or type) and metric of the default routes, in the kernel's order, without those of the owners of the uplinks.
fn standing(option: &str) -> Vec<String> {
    let all = ip(&format!("{option} route show default"));
    let special = ip(&format!("{option} route show table main"));
    let special = special
        .lines()
        .filter(|line| line.starts_with("unreachable default") || line.starts_with("blackhole"));
    let mut routes: Vec<(u64, String)> = all
        .lines()
        .filter(|line| line.starts_with("default"))
        .chain(special)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |key| words.iter().skip_while(|word| **word != key).nth(1);
            let metric = after("metric").map_or(0, |metric| metric.parse().unwrap());
            let name = match words[0] {
                "default" => *after("dev").unwrap(),
                kind => kind,
            };
            (metric, format!("{name} {metric}"))
        })
        .filter(|(metric, _)| !(500..=501).contains(metric))
        .collect();
    routes.sort_by_key(|(metric, _)| *metric);
    routes.into_iter().map(|(_, route)| route).collect()
}

/// What the router says of them: uplink, wanted metric, actual one.
fn told(router: &Router, family: Family) -> Vec<(UplinkId, Option<u32>, u32)> {
    let of_family = |route: &&ForeignDefault| route.family == family;
    router
        .foreign_defaults()
        .filter(of_family)
        .map(|route| match route.effect {
            Effect::InFront { uplinks, metric } => (uplinks.first().unwrap(), None, metric),
            Effect::HasMetric {
                uplinks,
                wanted,
                metric,
            } => (uplinks.first().unwrap(), Some(wanted), metric),
        })
        .collect()
}

#[test]
#[ignore = "needs root"]
fn switches_go_on_beside_foreign_routes_with_every_metric_of_ours() {
    isolated(|| {
        let config = uplinks();
        // There before the start; 30 is better than ours and carries whatever has no other table.
        for metric in [50, 100, 101, 102] {
            ip(&format!(
                "route append default via 10.0.2.1 dev up2 proto static metric {metric}"
            ));
            ip(&format!(
                "-6 route append default via 2001:db8:2::1 dev up2 proto static metric {metric}"
            ));
        }
        let before = snapshot();
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        let v4 = Poller::start("192.0.2.1", "0.0.0.0", &["10.0.0.2", "10.0.1.2"]);
        let v6 = Poller::start("2001:db8:ffff::1", "::", &["2001:db8::2", "2001:db8:1::2"]);
        for _ in 0..200 {
            for family in Family::ALL {
                for to in [B, A] {
                    let confirmed = router.activate(family, only(to)).unwrap();
                    assert_eq!(confirmed.problems, Vec::<String>::new());
                    assert_eq!(router.current(family).unwrap(), only(to));
                }
            }
        }
        let look = look(&mut router, &config);
        assert_eq!((look.changes, look.problems), (vec![], vec![]));
        assert!(v4.finish() > 0 && v6.finish() > 0);
        assert_eq!(
            standing("-4"),
            [
                "up0 50", "up2 50", "up2 100", "up2 101", "up2 102", "up1 103"
            ]
        );
        assert_eq!(
            standing("-6"),
            [
                "up0 49", "up2 50", "up2 100", "up2 101", "up2 102", "up1 103"
            ]
        );
        assert_eq!(
            told(&router, Family::V4),
            [(A, Some(50), 50), (B, Some(101), 103)]
        );
        assert_eq!(
            told(&router, Family::V6),
            [(A, Some(50), 49), (B, Some(101), 103)]
        );

        // The next run takes over what this one has left.
        drop(router);
        let mut second = Router::connect(&config.route, state.path()).unwrap();
        let links = second.discover(&config).unwrap();
        prepare(&mut second, &links);
        for family in Family::ALL {
            assert_eq!(second.current(family).unwrap(), only(A));
        }
        assert_eq!(crate::fixtures::look(&mut second, &config).changes, []);
        second.restore();
        assert_eq!(snapshot(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn a_better_foreign_route_stays_in_front() {
    isolated(|| {
        let config = uplinks();
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        ip("route append default via 10.0.2.1 dev up2 metric 49");
        ip("route append default via 10.0.2.1 dev up2 metric 50");
        ip("-6 route append default via 2001:db8:2::1 dev up2 metric 49");
        for (option, expected) in [
            ("-4", ["up2 49", "up0 50", "up2 50", "up1 101"].as_slice()),
            ("-6", &["up2 49", "up0 50", "up1 101"]),
        ] {
            look(&mut router, &config);
            assert_eq!(standing(option), expected);
        }
        for family in Family::ALL {
            assert_eq!(told(&router, family)[0], (A, None, 50));
            router.activate(family, only(B)).unwrap();
            assert_eq!(router.current(family).unwrap(), only(B));
        }
        // Between it and its neighbour there is no room in IPv6: ours stands behind both.
        ip("-6 route append default dev up2 metric 50");
        look(&mut router, &config);
        assert_eq!(standing("-6"), ["up2 49", "up2 50", "up1 51", "up0 100"]);
        ip("-6 route del default dev up2 metric 49");
        look(&mut router, &config);
        assert_eq!(standing("-6"), ["up1 49", "up2 50", "up0 100"]);
    });
}

#[test]
#[ignore = "needs root"]
fn what_is_put_in_front_of_ours_with_its_metric_falls_behind() {
    isolated(|| {
        let config = uplinks();
        let state = state();
        let (mut router, _) = router(&config, state.path());
        router.activate(Family::V4, only(A)).unwrap();
        for kind in ["via 10.0.2.1 dev up2", "via 10.0.2.7 dev up2"] {
            ip(&format!("route prepend default {kind} metric 50"));
            let best = ip("route get 192.0.2.1");
            assert!(best.contains("up2"), "{best}");
            look(&mut router, &config);
            assert_eq!(standing("-4")[0], "up0 50");
            let best = ip("route get 192.0.2.1");
            assert!(best.contains("up0"), "{best}");
            assert_eq!(look(&mut router, &config).changes, []);
        }
        ip("route prepend unreachable default metric 50");
        look(&mut router, &config);
        let best = ip("route get 192.0.2.1");
        assert!(best.contains("up0"), "{best}");
        // A switch that nobody has told of one in front comes to the front by itself, and takes nothing away.
        ip("route prepend default via 10.0.2.9 dev up2 metric 50");
        router.activate(Family::V4, only(B)).unwrap();
        let best = ip("route get 192.0.2.1");
        assert!(best.contains("up1"), "{best}");
        let all = ip("route show default metric 50");
        assert_eq!(all.matches("dev up2").count(), 3, "{all}");
        assert_eq!(all.matches("proto 136").count(), 1, "{all}");
    });
}

#[test]
#[ignore = "needs root"]
fn what_the_kernel_merges_with_ours_is_taken_apart_again() {
    isolated(|| {
        let config = uplinks();
        let state = state();
        let (mut router, _) = router(&config, state.path());
        router.activate(Family::V6, only(A)).unwrap();
        for told in [true, false] {
            ip("-6 route append default via 2001:db8:2::1 dev up2 proto static metric 50");
            // Nobody tells the router before the second switch.
            if told {
                look(&mut router, &config);
                assert_eq!(standing("-6"), ["up0 49", "up2 50", "up1 101"]);
            }
            for to in [B, A] {
                router.activate(Family::V6, only(to)).unwrap();
                let best = ip("-6 route get 2001:db8:ffff::1");
                let interface = ["up0", "up1"][to.0];
                assert!(best.contains(interface), "{best}");
                let foreign = ip("-6 route show default proto static dev up2");
                assert!(foreign.contains("metric 50"), "{foreign}");
            }
            ip("-6 route del default via 2001:db8:2::1 dev up2 metric 50");
            look(&mut router, &config);
            look(&mut router, &config);
            assert_eq!(standing("-6"), ["up0 50", "up1 101"]);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn routes_that_lead_nowhere_are_no_obstacle() {
    isolated(|| {
        let config = uplinks();
        let state = state();
        let (mut router, links) = router(&config, state.path());
        for kind in ["unreachable", "blackhole"] {
            for metric in [5, 50, 100, 101, 400] {
                for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
                    let route = format!("{kind} default metric {metric}");
                    ip(&format!("{option} route append {route}"));
                    // Known, or new to a switch.
                    if metric != 400 {
                        router.read_links(&config).unwrap();
                    }
                    for to in [A, B] {
                        router.activate(family, only(to)).unwrap();
                        assert_eq!(
                            router.current(family).unwrap(),
                            only(to),
                            "{option} {route}"
                        );
                    }
                    let told = router.foreign_defaults().count();
                    assert_eq!(told, usize::from(metric < 400 && metric != 101), "{route}");
                    assert!(standing(option).contains(&format!("{kind} {metric}")));
                    // Whatever the main table says, a probe leaves by its uplink.
                    for (link, far) in links.values().zip(["up0", "up1"]) {
                        let target = match family {
                            Family::V4 => "192.0.2.1",
                            Family::V6 => "2001:db8:ffff::1",
                        };
                        let mark = config.route.mark;
                        let way = ip(&format!("route get {target} oif {far} mark {mark}"));
                        assert!(way.contains(&link.interface), "{way}");
                    }
                    ip(&format!("{option} route del {route}"));
                    look(&mut router, &config);
                }
            }
        }
        assert_eq!(router.foreign_defaults().count(), 0);
        let none = UplinkSet::NONE;
        assert_ne!(router.current(Family::V4).unwrap(), none);
    });
}
