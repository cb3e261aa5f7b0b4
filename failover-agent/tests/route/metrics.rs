//! Uplinks with metrics of their own, and those whose routes are withdrawn.

use failover_policy::{Family, UplinkSet};

use failover_agent::{
    config::{Config, OnDown, RouteConfig},
    route::Report,
};

use crate::{fixtures::*, netns::*, poller::Poller};

const FAMILIES: [(Family, &str); 2] = [(Family::V4, "-4"), (Family::V6, "-6")];

fn with_metrics(metrics: &[(&str, Option<u32>)]) -> Config {
    let interfaces: Vec<&str> = metrics.iter().map(|(interface, _)| *interface).collect();
    let mut config = config(&interfaces);
    for (uplink, (_, metric)) in config.uplinks.iter_mut().zip(metrics) {
        uplink.metric = *metric;
    }
    config
}

/// Interface and metric of our default routes, best first.
fn standing(option: &str) -> Vec<(String, u64)> {
    defaults(option)
        .into_iter()
        .filter(|route| route.3 == "136")
        .map(|route| (route.0, route.2))
        .collect()
}

fn routes(routes: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = |(interface, metric): &(&str, u64)| ((*interface).to_owned(), *metric);
    routes.iter().map(owned).collect()
}

#[test]
#[ignore = "needs root"]
fn switches_between_own_metrics_past_a_standby_in_between() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 500);
        let config = with_metrics(&[("up0", Some(10)), ("up1", Some(15)), ("up2", Some(20))]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        // up1 is better than up2 by its metric, but must carry nothing.
        let v4 = Poller::start("192.0.2.1", "0.0.0.0", &["10.0.0.2", "10.0.2.2"]);
        let v6 = Poller::start("2001:db8:ffff::1", "::", &["2001:db8::2", "2001:db8:2::2"]);
        for round in 0..rounds(1500) {
            for (family, option) in FAMILIES {
                let look = round % 100 == 0;
                match family {
                    Family::V4 => v4.switching(),
                    Family::V6 => v6.switching(),
                }
                let there = router.activate(family, only(C)).unwrap();
                assert_eq!(there.problems, Vec::<String>::new());
                assert!(
                    there.routed >= there.confirmed,
                    "the old route was better until it was gone: {there:?}"
                );
                if look {
                    assert_eq!(
                        standing(option),
                        routes(&[("up2", 20), ("up0", 100), ("up1", 101)])
                    );
                }
                assert_eq!(router.current(family).unwrap(), only(C));
                match family {
                    Family::V4 => v4.switching(),
                    Family::V6 => v6.switching(),
                }
                let back = router.activate(family, only(A)).unwrap();
                assert_eq!(back.problems, Vec::<String>::new());
                assert!(back.routed <= back.confirmed, "{back:?}");
                if look {
                    assert_eq!(
                        standing(option),
                        routes(&[("up0", 10), ("up1", 15), ("up2", 20)])
                    );
                }
                assert_eq!(router.current(family).unwrap(), only(A));
            }
        }
        assert!(v4.finish() > 1000 && v6.finish() > 1000);
    });
}

#[test]
#[ignore = "needs root"]
fn own_metrics_decide_which_foreign_routes_beat_ours() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(2, 500);
        ip("route add default via 10.0.1.1 dev up1 proto static metric 30");
        let before = snapshot();
        let config = with_metrics(&[("up0", Some(10)), ("up1", None)]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        router.activate(Family::V4, only(A)).unwrap();
        let rival = foreign("up1", "10.0.1.1", 30, "static");
        assert_eq!(defaults("-4")[1], rival, "it harms nobody at 30");
        let confirmed = router.activate(Family::V4, only(B)).unwrap();
        assert!(confirmed.routed >= confirmed.confirmed, "{confirmed:?}");
        assert_eq!(
            defaults("-4")[..2],
            [ours("up1", "10.0.1.1", 50), ours("up0", "10.0.0.1", 100)]
        );
        router.restore();
        assert_eq!(snapshot(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn refused_route_leaves_other_metrics_as_they_were() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 500);
        let config = with_metrics(&[("up0", Some(10)), ("up1", Some(15)), ("up2", Some(20))]);
        let state = state();
        let (mut router, mut links) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        for (family, wrong) in [(Family::V4, "10.77.0.1"), (Family::V6, "2001:db8:77::1")] {
            links[C].families[family].as_mut().unwrap().gateway = Some(address(wrong));
        }
        prepare(&mut router, &links);
        let before = snapshot();
        for family in Family::ALL {
            router.activate(family, only(C)).unwrap_err();
            assert_eq!(router.current(family).unwrap(), only(A));
        }
        assert_eq!(snapshot(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn withdrawn_uplinks_have_no_default_route() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 500);
        let before = snapshot();
        let config = config(&["up0", "up1", "up2"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for (family, option) in FAMILIES {
            let interfaces = || -> Vec<String> {
                let mut interfaces: Vec<_> =
                    defaults(option).into_iter().map(|route| route.0).collect();
                interfaces.dedup();
                interfaces.sort();
                interfaces.dedup();
                interfaces
            };
            router.activate(family, only(A)).unwrap();
            let report = router.set_withdrawn(family, members(&[A, B])).unwrap();
            assert_eq!(report.problems, Vec::<String>::new());
            assert_eq!(
                interfaces(),
                ["up0", "up2"],
                "not even another's; the active one keeps its own"
            );
            assert_eq!(
                router.set_withdrawn(family, members(&[A, B])).unwrap(),
                Report::default()
            );

            // Kept so, whoever brings it back. Another owner's: the record of the first one's stays.
            ip(&format!(
                "{option} route add default dev up1 proto boot metric 900"
            ));
            look(&mut router, &config);
            assert_eq!(interfaces(), ["up0", "up2"]);

            // Once it is left, it has none either; and one that becomes active has.
            router.activate(family, only(B)).unwrap();
            assert_eq!(interfaces(), ["up1", "up2"]);
            let report = router.set_withdrawn(family, UplinkSet::NONE).unwrap();
            assert_eq!(report.problems, Vec::<String>::new());
            assert_eq!(
                standing(option),
                routes(&[("up1", 50), ("up0", 100), ("up2", 102)])
            );
            // Its tables stay: probes go on.
            assert!(ip(&format!("{option} route show table 13601")).contains("default"));
        }
        router.restore();
        for option in ["-4", "-6"] {
            ip(&format!(
                "{option} route del default dev up1 proto boot metric 900"
            ));
        }
        assert_eq!(snapshot(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn changed_metrics_follow_without_an_instant_without_default_route() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        let v4 = Poller::start("192.0.2.1", "0.0.0.0", &["10.0.0.2"]);
        let v6 = Poller::start("2001:db8:ffff::1", "::", &["2001:db8::2"]);
        for (active_metric, standby_metric) in [(40, 60), (101, 300), (5, 101), (50, 100)] {
            let changed = RouteConfig {
                active_metric,
                standby_metric,
                on_down: OnDown::Withdraw,
                ..config.route.clone()
            };
            let links = router.links().clone();
            let scan = router.reconfigure(links, &changed).unwrap();
            assert_eq!(router.align(scan).routes.problems, Vec::<String>::new());
            let report = look(&mut router, &config);
            assert_eq!(report.problems, Vec::<String>::new());
            for (family, option) in FAMILIES {
                let (active, standby) = (u64::from(active_metric), u64::from(standby_metric));
                assert_eq!(
                    standing(option),
                    routes(&[("up0", active), ("up1", standby + 1)])
                );
                assert_eq!(router.current(family).unwrap(), only(A));
            }
        }
        assert!(v4.finish() > 0 && v6.finish() > 0);
        let other = RouteConfig {
            table: 14000,
            ..config.route.clone()
        };
        let links = router.links().clone();
        let refused = router.reconfigure(links, &other).unwrap_err().to_string();
        assert!(refused.contains("while the agent runs"), "{refused}");
    });
}
