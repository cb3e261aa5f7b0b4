//! What is learned of egress paths that come, change and go.

use failover_policy::{Family, PerFamily, PerUplink, UplinkId};

use failover_agent::{
    config::{Config, Gateway},
    failure::Failure,
    route::{EgressPath, Link, Router},
};

use crate::{fixtures::*, netns::*};

fn v6(links: &PerUplink<Link>, uplink: UplinkId) -> Option<&EgressPath> {
    links[uplink].families.v6.as_ref()
}

/// Looks again until the family's egress path by the first uplink is gone, and tells whether it lingered first.
fn wait_until_lost(router: &mut Router, config: &Config, family: Family) -> bool {
    let mut lingered = false;
    wait_for("the egress path is gone", || {
        let links = router.read_links(config).unwrap();
        prepare(router, &links);
        lingered |= router.lingers();
        links[A].families[family].is_none()
    });
    assert!(!router.lingers());
    lingered
}

#[test]
#[ignore = "needs root"]
fn what_is_missing_is_waited_for_and_what_is_wrong_is_not() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let state = state();
        let look = |config: &Config| {
            Router::connect(&config.route, state.path())
                .unwrap()
                .await_uplinks(config)
        };
        let (links, missing) = look(&config(&["up0", "upp1"])).unwrap();
        assert_eq!((links[B].ifindex, links[B].carrier), (0, false));
        assert!(links[A].families.v4.is_some());
        assert!(
            matches!(&missing[..], [Failure::UnknownInterface { cure, .. }] if cure.contains("did you mean")),
            "{missing:?}"
        );

        // A gateway cannot be off the link of an interface that has no address yet.
        let mut given = config(&["up0", "up1"]);
        given.uplinks[1].gateway = Gateway::Address(address("10.77.0.1"));
        let wrong = look(&given).unwrap_err().downcast::<Failure>().unwrap();
        assert!(matches!(wrong, Failure::GatewayOffLink { .. }), "{wrong}");
        ip("addr flush dev up1 scope global");
        let (links, missing) = look(&given).unwrap();
        assert_eq!(links[B].families, PerFamily::default());
        assert!(
            matches!(&missing[..], [Failure::NoSourceAddress { .. }]),
            "{missing:?}"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn targets_on_the_link_are_refused() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        ip("route replace default via 172.31.0.1 dev up1 onlink proto dhcp metric 501");
        for (rank, target) in [(0, "10.0.0.9"), (0, "2001:db8::9"), (1, "172.31.0.1")] {
            let mut config = config(&["up0", "up1"]);
            config.uplinks[rank].probe.targets.push(address(target));
            let wrong = failure(
                Router::connect(&config.route, state().path())
                    .unwrap()
                    .discover(&config),
            );
            assert!(
                matches!(&wrong, Failure::TargetOnLink { target: named, .. } if *named == address(target)),
                "{wrong}"
            );
        }
    });
}

#[test]
#[ignore = "needs root"]
fn probes_never_leave_from_an_address_that_is_not_unique_yet() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let (mut router, _) = router(&config, state().path());
        // Newer, and so the kernel's first; nobody answers for it until it is found to be unique.
        std::fs::write("/proc/sys/net/ipv6/conf/up0/dad_transmits", "600").unwrap();
        ip("-6 addr add 2001:db8::77/64 dev up0");
        let links = router.read_links(&config).unwrap();
        let path = v6(&links, A).unwrap();
        assert_eq!(path.source, address("2001:db8::2"));
        assert_eq!(v6_addresses(&links[A]), targets(&["2001:db8::2"]));

        // Better a deprecated one than none (RFC 6724, 5, rule 3).
        ip("-6 addr change 2001:db8::2/64 dev up0 preferred_lft 0");
        let links = router.read_links(&config).unwrap();
        assert_eq!(v6(&links, A).unwrap().source, address("2001:db8::2"));
        ip("-6 addr add 2001:db8::78/64 dev up0 nodad");
        let links = router.read_links(&config).unwrap();
        let path = v6(&links, A).unwrap();
        assert_eq!(path.source, address("2001:db8::78"));
        assert_eq!(
            v6_addresses(&links[A]),
            targets(&["2001:db8::78", "2001:db8::2"])
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_metric_goes_before_what_routers_say_of_themselves() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        ip("-6 route add default via fe80::7 dev up0 proto ra metric 1024 pref high");
        ip("-6 route add default via fe80::8 dev up1 proto ra metric 400 pref low");
        let config = config(&["up0", "up1"]);
        let links = Router::connect(&config.route, state().path())
            .unwrap()
            .discover(&config)
            .unwrap();
        assert_eq!(v6(&links, A).unwrap().gateway, Some(address("2001:db8::1")));
        assert_eq!(v6(&links, B).unwrap().gateway, Some(address("fe80::8")));
    });
}

#[test]
#[ignore = "needs root"]
fn what_is_withdrawn_lingers_and_goes() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, links) = router(&config, state.path());
        router.activate(Family::V4, only(A)).unwrap();

        // As long as it may come back, nothing changes.
        ip("route del default dev up0 proto dhcp");
        let aligned = sync(&mut router, &config);
        assert_eq!(*router.links(), links);
        assert!(aligned.next_scan.is_some());
        ip("route add default via 10.0.0.1 dev up0 proto dhcp metric 500");
        let aligned = sync(&mut router, &config);
        assert_eq!(*router.links(), links);
        assert!(!router.lingers());
        assert_eq!(aligned.next_scan, None);

        // Our own copies of it are no reason to believe in it.
        ip("route del default dev up0 proto dhcp");
        assert!(wait_until_lost(&mut router, &config, Family::V4));
        let mut later = Router::connect(&config.route, state.path()).unwrap();
        let (links, _) = later.await_uplinks(&config).unwrap();
        assert_eq!(links[A].families.v4, None);
    });
}

#[test]
#[ignore = "needs root"]
fn what_lingers_is_forgotten_with_its_uplink() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let both = config(&["up0", "up1"]);
        let (mut router, links) = router(&both, state().path());
        ip("route del default dev up1 proto dhcp");
        assert_eq!(router.read_links(&both).unwrap(), links);
        assert!(router.lingers());
        let (one, _) = router.await_uplinks(&config(&["up0"])).unwrap();
        prepare(&mut router, &one);
        assert!(!router.lingers());
    });
}

#[test]
#[ignore = "needs root"]
fn what_went_with_its_interface_is_remembered() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let (mut router, links) = router(&config, state().path());
        ip("link set up0 down");
        ip("link set up0 up");
        router.interrupted("up0");
        // The kernel has dropped the IPv6 address, too: that is lost in the end.
        assert!(wait_until_lost(&mut router, &config, Family::V6));
        let now = router.read_links(&config).unwrap();
        assert_eq!(now[A].families.v4, links[A].families.v4);
        assert!(
            !ip("route show default").contains("up0"),
            "the kernel has dropped it"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_displaced_advertisement_counts_for_its_lifetime() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        ip("-6 route del default dev up0");
        ip("-6 route add default via fe80::1 dev up0 proto ra metric 50 expires 2");
        let config = config(&["up0", "up1"]);
        let (mut router, links) = router(&config, state().path());
        assert_eq!(v6(&links, A).unwrap().gateway, Some(address("fe80::1")));
        router.activate(Family::V6, only(A)).unwrap();
        assert!(!ip("-6 route show default").contains("proto ra"));
        let aligned = sync(&mut router, &config);
        assert!(aligned.next_scan.is_some(), "its end is known");
        wait_until_lost(&mut router, &config, Family::V6);
    });
}

#[test]
#[ignore = "needs root"]
fn a_shared_address_has_no_rules_and_a_borrowed_one_is_nobodys() {
    isolated(|| {
        ethernet_uplinks(3);
        ip("addr del 10.0.1.2/24 dev up1");
        ip("addr add 10.0.0.2/24 dev up1");
        ip("addr flush dev up2 scope global");
        ip("route add default via 10.0.0.1 dev up0 proto dhcp metric 500");
        ip("route add default via 10.0.0.1 dev up1 proto dhcp metric 501");
        ip("route add default dev up2 scope link metric 502");
        let mut config = config(&["up0", "up1", "up2"]);
        for uplink in &mut config.uplinks {
            uplink.probe.targets = targets(&["192.0.2.1"]);
        }
        let state = state();
        let look = || {
            let mut router = Router::connect(&config.route, state.path()).unwrap();
            let (links, missing) = router.await_uplinks(&config).unwrap();
            let report = prepare(&mut router, &links);
            assert_eq!(report.problems, Vec::<String>::new());
            (links, missing.len())
        };
        // The kernel would take another uplink's address for the third one.
        let (links, missing) = look();
        assert_eq!((links[C].families.v4.as_ref(), missing), (None, 1));
        assert!(!ip("rule show").contains("from 10.0.0.2"));

        ip("addr add 198.51.100.7/32 dev lo");
        let (links, missing) = look();
        let path = links[C].families.v4.clone().unwrap();
        assert_eq!((path.source, missing), (address("198.51.100.7"), 0));
        assert!(links[C].addresses.is_empty());
        assert!(!ip("rule show").contains("from 198.51.100.7"));
    });
}
