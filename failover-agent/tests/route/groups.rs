//! Balance groups: shares, members that come and go, and what is left behind.

mod changes;
mod leftovers;
mod limits;

use failover_policy::Family;
use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
};

use failover_agent::config::Config;
use serde_json::Value;

use crate::{fixtures::*, netns::*};

/// The first two share the traffic 3 to 1, the others stand behind.
fn balanced(interfaces: &[&str]) -> Config {
    let mut config = config(interfaces);
    config.uplinks[1].rank = config.uplinks[0].rank;
    config.uplinks[0].weight = 3;
    config
}

/// The best default route's next hops: interface and weight. A nexthop group has each twice.
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
#[ignore = "needs root"]
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
            assert_eq!(again.changes, []);
        }
    });
}
