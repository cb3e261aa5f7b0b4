//! What others change, and how it is put right.

use std::time::Duration;

use failover_agent::{
    policy::Family,
    route::{Change, Observer},
};

use crate::{netns::*, scene::*};

#[test]
fn reconciles_what_others_undo() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            router.activate(family, only(B)).unwrap();
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
            router.activate(Family::V4, only(A)).unwrap();
            router.activate(Family::V4, only(B)).unwrap();
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
