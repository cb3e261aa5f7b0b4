//! Groups that change: by a switch, one that fails, and by interfaces that go and come.

use failover_policy::Family;

use failover_agent::route::Router;

use super::{balanced, by, objects, ways};
use crate::{fixtures::*, netns::*, poller::Poller};

#[test]
#[ignore = "needs root"]
fn groups_change_without_an_instant_without_default_route() {
    isolated(|| {
        ethernet_uplinks(5);
        default_routes(5, 500);
        // A group of two at 10, another at 20, one behind.
        let mut config = config(&["up0", "up1", "up2", "up3", "up4"]);
        for (uplink, (rank, metric)) in config.uplinks.iter_mut().zip([
            (1, Some(10)),
            (1, Some(10)),
            (2, Some(20)),
            (2, Some(20)),
            (3, None),
        ]) {
            (uplink.rank, uplink.metric) = (rank, metric);
        }
        let state = state();
        let (mut router, _) = router(&config, state.path());
        let [d, e] = [3, 4].map(failover_policy::UplinkId);
        let sets = [
            (members(&[A, B]), 10),
            (members(&[A]), 10),
            (members(&[C, d]), 20),
            (members(&[B]), 10),
            (members(&[e]), 50),
            (members(&[d]), 20),
            (members(&[A, B]), 10),
            (members(&[e]), 50),
        ];
        for family in Family::ALL {
            router.activate(family, sets[0].0).unwrap();
        }
        let all = ["10.0.0.2", "10.0.1.2", "10.0.2.2", "10.0.3.2", "10.0.4.2"];
        let all6 = [
            "2001:db8::2",
            "2001:db8:1::2",
            "2001:db8:2::2",
            "2001:db8:3::2",
            "2001:db8:4::2",
        ];
        let v4 = Poller::start("192.0.2.1", "0.0.0.0", Vec::leak(all.to_vec()));
        let v6 = Poller::start("2001:db8:ffff::1", "::", Vec::leak(all6.to_vec()));
        let mut times = Vec::new();
        for round in 0..rounds(150) {
            for (to, metric) in sets {
                for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
                    match family {
                        Family::V4 => v4.switching(),
                        Family::V6 => v6.switching(),
                    }
                    let confirmed = router.activate(family, to).unwrap();
                    assert_eq!(confirmed.problems, Vec::<String>::new());
                    assert_eq!(router.current(family).unwrap(), to);
                    times.push((family, confirmed.routed));
                    if round == 0 {
                        let ours = ip_json(&format!("{option} route show default proto 136"));
                        let best = ours.iter().map(|route| route["metric"].as_u64()).min();
                        assert_eq!(best.unwrap(), Some(metric));
                    }
                }
            }
        }
        for family in Family::ALL {
            let of_family = times.iter().filter(|(of, _)| *of == family);
            let mut routed: Vec<_> = of_family.map(|(_, routed)| *routed).collect();
            routed.sort_unstable();
            let (median, longest) = (routed[routed.len() / 2], routed[routed.len() - 1]);
            println!("{family}: routed {median:?} (median), {longest:?} (longest)");
        }
        assert!(v4.finish() > 1000 && v6.finish() > 1000);
        // The last one was no group: nothing of one is left.
        assert_eq!(objects(), Vec::<u64>::new());
    });
}

#[test]
#[ignore = "needs root"]
fn groups_beside_foreign_routes_of_their_metric() {
    isolated(|| {
        ethernet_uplinks(5);
        default_routes(4, 500);
        let mut config = config(&["up0", "up1", "up2", "up3"]);
        for (uplink, (rank, metric)) in
            config
                .uplinks
                .iter_mut()
                .zip([(1, 10), (1, 10), (2, 20), (2, 20)])
        {
            (uplink.rank, uplink.metric) = (rank, Some(metric));
        }
        let state = state();
        let (mut router, _) = router(&config, state.path());
        let (first, second) = (
            members(&[A, B]),
            members(&[C, failover_policy::UplinkId(3)]),
        );
        for family in Family::ALL {
            router.activate(family, first).unwrap();
            router.activate(family, only(C)).unwrap();
            router.activate(family, first).unwrap();
        }
        ip("route del default metric 20");
        ip("-6 route del default metric 20");
        // Nobody has told the router of a route that is not to be displaced.
        ip("route add default via 10.0.4.1 dev up4 metric 20");
        ip("-6 route add default via 2001:db8:4::1 dev up4 metric 20");
        for (family, option, metric) in [(Family::V4, "-4", 20), (Family::V6, "-6", 19)] {
            router.activate(family, second).unwrap();
            assert_eq!(router.current(family).unwrap(), second);
            assert_eq!(ways(option), by(&[("up2", 1), ("up3", 1)]));
            let best = ip_json(&format!("{option} route show default")).remove(0);
            assert_eq!(best["metric"], metric, "{best}");
            router.activate(family, first).unwrap();
            assert_eq!(ways(option), by(&[("up0", 1), ("up1", 1)]));
        }
    });
}

#[test]
#[ignore = "needs root"]
fn members_whose_interfaces_go_and_come() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 500);
        let config = balanced(&["up0", "up1", "up2"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        let both = members(&[A, B]);
        let again = |router: &mut Router| {
            for n in 0..3 {
                ip(&format!("link set up{n} up"));
                // The kernel forgets IPv6 addresses of an interface that is down.
                ip(&format!(
                    "-6 addr replace 2001:db8:{n}::2/64 dev up{n} nodad"
                ));
                // The agent hears of it. Without that the routes that went with the interface are their owners' word, and what they
                // told is forgotten half a second later.
                router.interrupted(&format!("up{n}"));
            }
            wait_for("everything is as before", || {
                let links = router.read_links(&config).unwrap();
                look(router, &config).problems.is_empty()
                    && links.values().all(|link| link.families.v6.is_some())
            });
        };
        for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            router.activate(family, both).unwrap();
            // The policy has not noticed.
            ip("link set up1 down");
            assert_eq!(
                ways(option).iter().map(|way| &way.0).collect::<Vec<_>>(),
                ["up0"],
                "by the kernel alone"
            );
            let confirmed = router.activate(family, both).unwrap();
            let report = look(&mut router, &config);
            assert_eq!(
                router.current(family).unwrap(),
                only(A),
                "{family}: {confirmed:?}, {report:?}, {}",
                ip(&format!("{option} route show default"))
            );
            router.activate(family, only(A)).unwrap();
            assert_eq!(router.current(family).unwrap(), only(A));
            router.activate(family, both).unwrap();
            again(&mut router);
            assert_eq!(ways(option), by(&[("up0", 3), ("up1", 1)]));

            // With the last member the kernel removes group and route.
            ip("link set up0 down");
            ip("link set up1 down");
            assert_eq!(ways(option), by(&[("up2", 1)]));
            router.activate(family, only(C)).unwrap();
            assert_eq!(ways(option), by(&[("up2", 1)]));
            assert_eq!(router.current(family).unwrap(), only(C));
            again(&mut router);
            router.activate(family, both).unwrap();
            assert_eq!(ways(option), by(&[("up0", 3), ("up1", 1)]));
        }

        // Created again, with another index.
        ip("link del up1");
        ip("link add up1 type veth peer name far1");
        ip("addr add 10.0.1.2/24 dev up1");
        ip("link set far1 up");
        again(&mut router);
        for option in ["-4", "-6"] {
            assert_eq!(ways(option), by(&[("up0", 3), ("up1", 1)]));
        }
    });
}
