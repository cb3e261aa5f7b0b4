//! The gateways' neighbour entries.

use failover_agent::route::Neighbour;
use failover_policy::Family;

use crate::{
    fixtures::{A, B, router, state},
    namespaces::Host,
    netns::{self, config, default_routes, ethernet_uplinks, ip, isolated, wait_for},
};

/// State of a gateway's entry, as `ip` names it; empty: none.
fn entry(gateway: &str) -> String {
    let line = ip(&format!("neigh show to {gateway} nud all"));
    line.split_whitespace().last().unwrap_or("").to_owned()
}

#[test]
#[ignore = "needs root"]
fn resolves_gateways_before_they_are_needed() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        // The gateways of up0 live in another namespace; up1 has nobody at its other end.
        let gateways = Host::new();
        gateways.take("far0");
        gateways.run(|| {
            ip("addr add 10.0.0.1/24 dev far0");
            ip("addr add 2001:db8::1/64 dev far0 nodad");
        });

        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for (family, gateway, silent) in [
            (Family::V4, "10.0.0.1", "10.0.1.1"),
            (Family::V6, "2001:db8::1", "2001:db8:1::1"),
        ] {
            let reachable = || wait_for("the gateway's answer", || entry(gateway) == "REACHABLE");
            ip("neigh flush all");
            assert_eq!(entry(gateway), "");
            assert_eq!(router.resolve(family, A).unwrap(), Neighbour::Resolving);
            reachable();
            assert_eq!(router.resolve(family, A).unwrap(), Neighbour::Known);

            // Learned long ago: asked again, and usable meanwhile.
            ip(&format!("neigh change {gateway} dev up0 nud stale"));
            assert_eq!(router.resolve(family, A).unwrap(), Neighbour::Verifying);
            assert!(["PROBE", "REACHABLE"].contains(&entry(gateway).as_str()));
            reachable();

            // An attempt that failed is made again.
            ip(&format!("neigh replace {gateway} dev up0 nud failed"));
            assert_eq!(router.resolve(family, A).unwrap(), Neighbour::Resolving);
            reachable();

            // Set by an administrator.
            ip(&format!(
                "neigh replace {gateway} dev up0 lladdr 02:00:00:00:00:01 nud permanent"
            ));
            assert_eq!(router.resolve(family, A).unwrap(), Neighbour::Known);
            assert_eq!(entry(gateway), "PERMANENT");
            ip(&format!("neigh del {gateway} dev up0"));

            // A gateway that does not answer keeps nobody waiting.
            assert_eq!(router.resolve(family, B).unwrap(), Neighbour::Resolving);
            assert_eq!(entry(silent), "INCOMPLETE");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn needs_no_neighbour_on_a_tunnel() {
    isolated(|| {
        ethernet_uplinks(1);
        default_routes(1, 500);
        ip("tuntap add tun0 mode tun");
        ip("link set tun0 up");
        ip("addr add 10.64.0.2/32 dev tun0");
        let mut config = config(&["up0", "tun0"]);
        config.uplinks[1].probe.targets = netns::targets(&["192.0.2.1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            assert_eq!(router.resolve(family, B).unwrap(), Neighbour::NotNeeded);
        }
        ip("link del up0");
        assert!(router.resolve(Family::V4, A).is_err());
    });
}
