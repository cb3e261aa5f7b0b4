//! Balance groups: shares, members that come and go, and what is left behind.

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
};

use failover_agent::{
    config::{Config, Gateway},
    failure::Failure,
    policy::Family,
    route::{Report, Router, reset},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::Value;

use crate::{netns::*, poller::Poller, scene::*};

/// The first two share the traffic 3 to 1, the others stand behind.
fn balanced(interfaces: &[&str]) -> Config {
    let mut config = config(interfaces);
    config.uplinks[1].rank = config.uplinks[0].rank;
    config.uplinks[0].weight = 3;
    config
}

/// The best default route's ways out: interface and weight. A nexthop group has each twice.
fn ways(option: &str) -> Vec<(String, u64)> {
    let mut routes = ip_json(&format!("{option} route show default"));
    routes.sort_by_key(|route| route["metric"].as_u64().unwrap_or(0));
    let best = routes.swap_remove(0);
    let way = |hop: &Value| {
        let interface = hop["dev"].as_str().unwrap().to_owned();
        (interface, hop["weight"].as_u64().unwrap_or(1))
    };
    let dead = |hop: &&Value| hop["flags"].as_array().unwrap().contains(&"dead".into());
    let Some(hops) = best["nexthops"].as_array() else {
        return vec![way(&best)];
    };
    let mut ways: Vec<_> = hops.iter().filter(|hop| !dead(hop)).map(way).collect();
    if best["nhid"].is_u64() {
        let twins = ways.split_off(ways.len() / 2);
        assert_eq!(ways, twins);
    }
    ways
}

fn by(interfaces: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = |(interface, weight): &(&str, u64)| ((*interface).to_owned(), *weight);
    interfaces.iter().map(owned).collect()
}

/// Numbers of all nexthop objects.
fn objects() -> Vec<u64> {
    let objects = ip_json("nexthop show");
    let mut numbers: Vec<_> = objects
        .iter()
        .map(|object| object["id"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn hash_policies() -> [String; 2] {
    ["ipv4", "ipv6"].map(|family| {
        let path = format!("/proc/sys/net/{family}/fib_multipath_hash_policy");
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    })
}

/// From which addresses `count` new connections of this host to one server leave.
fn shares(server: &str, any: &str, count: usize) -> BTreeMap<IpAddr, usize> {
    let mut shares = BTreeMap::new();
    // All at once, so that no two have the same port.
    let sockets: Vec<UdpSocket> = (0..count)
        .map(|_| UdpSocket::bind((any, 0)).unwrap())
        .collect();
    for socket in sockets {
        socket.connect((server, 9)).unwrap();
        *shares.entry(socket.local_addr().unwrap().ip()).or_default() += 1;
    }
    shares
}

#[test]
fn new_connections_are_shared_by_weight() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 500);
        let config = balanced(&["up0", "up1", "up2"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for (family, option, server, any) in [
            (Family::V4, "-4", "192.0.2.1", "0.0.0.0"),
            (Family::V6, "-6", "2001:db8:ffff::1", "::"),
        ] {
            let confirmed = router.activate(family, members(&[A, B])).unwrap();
            assert_eq!(confirmed.problems, Vec::<String>::new());
            assert_eq!(ways(option), by(&[("up0", 3), ("up1", 1)]));
            assert_eq!(router.current(family).unwrap(), members(&[A, B]));
            let shares = shares(server, any, 400);
            let first = address(if option == "-4" {
                "10.0.0.2"
            } else {
                "2001:db8::2"
            });
            assert_eq!(shares.len(), 2, "{shares:?}");
            // 300 of 400 are to be expected; one in a million times it is beyond 250 to 350.
            assert!((240..=360).contains(&shares[&first]), "{shares:?}");
        }
        assert_eq!(hash_policies(), ["1", "1"]);
        for family in Family::ALL {
            let again = router.activate(family, members(&[A, B])).unwrap();
            assert_eq!(again.changes, Vec::<String>::new());
        }
    });
}

#[test]
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
        let [d, e] = [3, 4].map(failover_agent::policy::UplinkId);
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
        for round in 0..150 {
            for (to, metric) in sets {
                for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
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
fn group_is_put_together_again_when_the_switch_fails() {
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
            members(&[C, failover_agent::policy::UplinkId(3)]),
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
        let (before, standing) = (snapshot(), ip("nexthop show"));
        for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let error = router.activate(family, second).unwrap_err();
            assert!(
                matches!(
                    error.downcast_ref(),
                    Some(Failure::MetricTaken { metric: 20, .. })
                ),
                "{error:#}"
            );
            assert_eq!(router.current(family).unwrap(), first);
            assert_eq!(ways(option), by(&[("up0", 1), ("up1", 1)]));
        }
        assert_eq!(snapshot(), before);
        assert_eq!(ip("nexthop show"), standing);
    });
}

#[test]
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
            }
            wait_for("everything is as before", || {
                let links = router.rediscover(&config).unwrap();
                router.prepare(&links).unwrap();
                router.reconcile().unwrap().problems.is_empty()
                    && links.iter().all(|link| link.families[1].is_some())
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
            router.activate(family, both).unwrap();
            let links = router.rediscover(&config).unwrap();
            router.prepare(&links).unwrap();
            router.reconcile().unwrap();
            assert_eq!(router.current(family).unwrap(), only(A));
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

        // Made anew, with another index.
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

#[test]
fn nothing_of_a_group_is_left_after_reset() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 10);
        std::fs::write("/proc/sys/net/ipv6/fib_multipath_hash_policy", "2").unwrap();
        // Somebody else's, with a number in our range; and one that nobody needs any more, with our protocol.
        ip("nexthop add id 13700 dev up2 proto static");
        ip("nexthop add id 13650 via 10.0.2.1 dev up2 proto 136");
        let before = snapshot();
        let config = balanced(&["up0", "up1", "up2"]);
        let state = state();
        let (mut killed, _) = router(&config, state.path());
        assert_eq!(objects(), [13700], "prepare removes what is stale");
        let both = members(&[A, B]);
        for family in Family::ALL {
            killed.activate(family, both).unwrap();
        }
        drop(killed);
        assert_eq!(hash_policies(), ["1", "1"]);
        let (left, numbers) = (snapshot(), objects());
        assert_eq!(numbers, [13600, 13601, 13664, 13665, 13700, 13728]);

        // The next run has them in another order, and changes nothing.
        let mut other = balanced(&["up1", "up0", "up2"]);
        (other.uplinks[0].weight, other.uplinks[1].weight) = (1, 3);
        let (mut second, links) = router(&other, state.path());
        assert_eq!((links[0].slot, links[1].slot), (1, 0));
        for family in Family::ALL {
            assert_eq!(second.current(family).unwrap(), both);
            let confirmed = second.activate(family, both).unwrap();
            let of_active = |line: &&String| line.contains("13728") || line.contains("metric 50");
            assert_eq!(confirmed.changes.iter().find(of_active), None);
        }
        assert_eq!(objects(), numbers);
        let main_route = |entries: &std::collections::BTreeSet<String>| -> Vec<String> {
            let group = entries.iter().filter(|entry| entry.contains("nhid"));
            group.cloned().collect()
        };
        assert_eq!(main_route(&snapshot()), main_route(&left));
        drop(second);

        let report = reset(&config.route, state.path()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(snapshot(), before);
        assert_eq!(objects(), [13700]);
        assert_eq!(hash_policies(), ["0", "2"]);
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
        assert_eq!(
            reset(&config.route, state.path()).unwrap(),
            Report::default()
        );

        // The same by a stop; a policy that was set by hand meanwhile stays.
        let (mut third, _) = router(&config, state.path());
        for family in Family::ALL {
            third.activate(family, both).unwrap();
        }
        std::fs::write("/proc/sys/net/ipv4/fib_multipath_hash_policy", "2").unwrap();
        assert_eq!(third.restore().unwrap().problems, Vec::<String>::new());
        assert_eq!(snapshot(), before);
        assert_eq!(objects(), [13700]);
        assert_eq!(hash_policies(), ["2", "2"]);
    });
}

#[test]
fn plain_multipath_route_where_there_can_be_no_group() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 500);
        let before = snapshot();
        let config = balanced(&["up0", "up1", "up2"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        let both = members(&[A, B]);
        // Another's object has the group's number.
        ip("nexthop add id 13728 blackhole proto static");
        let confirmed = router.activate(Family::V4, both).unwrap();
        assert_eq!(confirmed.problems.len(), 1, "{confirmed:?}");
        assert!(
            confirmed.problems[0].contains("no resilient nexthop group"),
            "{confirmed:?}"
        );
        assert_eq!(objects(), [13728]);
        for (to, expected) in [
            (both, by(&[("up0", 3), ("up1", 1)])),
            (only(A), by(&[("up0", 1)])),
            (both, by(&[("up0", 3), ("up1", 1)])),
            (only(C), by(&[("up2", 1)])),
            (both, by(&[("up0", 3), ("up1", 1)])),
        ] {
            let confirmed = router.activate(Family::V4, to).unwrap();
            assert_eq!(confirmed.problems, Vec::<String>::new(), "told once");
            assert_eq!(ways("-4"), expected);
            assert_eq!(router.current(Family::V4).unwrap(), to);
        }
        let shares = shares("192.0.2.1", "0.0.0.0", 400);
        assert!(
            (240..=360).contains(&shares[&address("10.0.0.2")]),
            "{shares:?}"
        );
        assert_eq!(
            router.activate(Family::V4, both).unwrap().changes,
            Vec::<String>::new()
        );
        ip("nexthop del id 13728");
        router.restore().unwrap();
        assert_eq!(objects(), Vec::<u64>::new());
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn hash_policy_that_cannot_be_set_is_a_problem_with_its_cure() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        // As in a container.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        let remount = |source, target, flags| mount(source, target, none, flags, none).unwrap();
        remount(none, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        remount(Some("/proc/sys"), "/proc/sys", MsFlags::MS_BIND);
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        remount(none, "/proc/sys", read_only);

        let config = balanced(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        let confirmed = router.activate(Family::V4, members(&[A, B])).unwrap();
        let [problem] = confirmed.problems.as_slice() else {
            panic!("{confirmed:?}");
        };
        assert!(
            problem.contains("sysctl -w net.ipv4.fib_multipath_hash_policy=1"),
            "{problem}"
        );
        assert_eq!(ways("-4"), by(&[("up0", 3), ("up1", 1)]));
        assert!(!state.path().join("hash_policy.json").exists());
        let again = router.activate(Family::V4, only(A)).unwrap();
        assert_eq!(again.problems, Vec::<String>::new(), "told once");
        router.restore().unwrap();
        assert_eq!(hash_policies(), ["0", "0"]);
    });
}

#[test]
fn members_without_gateways_share_ipv4() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let mut config = balanced(&["up0", "up1"]);
        config.uplinks[1].gateway = Gateway::None;
        config.uplinks[1].gateway6 = Gateway::None;
        let state = state();
        let (mut router, _) = router(&config, state.path());
        let both = members(&[A, B]);
        let confirmed = router.activate(Family::V4, both).unwrap();
        assert_eq!(confirmed.problems, Vec::<String>::new());
        assert_eq!(ways("-4"), by(&[("up0", 3), ("up1", 1)]));

        let confirmed = router.activate(Family::V6, both).unwrap();
        assert_eq!(confirmed.problems.len(), 1, "{confirmed:?}");
        assert!(
            confirmed.problems[0].contains("dev up1: it has no gateway"),
            "{confirmed:?}"
        );
        assert_eq!(ways("-6"), by(&[("up0", 1)]));
        assert_eq!(
            router.activate(Family::V6, both).unwrap().problems,
            Vec::<String>::new(),
            "told once"
        );
    });
}
