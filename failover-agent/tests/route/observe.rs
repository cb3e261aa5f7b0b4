//! What others change, and how it is restored.

use failover_policy::Family;
use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use failover_agent::{
    config::Gateway,
    route::{Actor, Change, Observer, Origin, Router},
};

use crate::{fixtures::*, netns::*};

#[test]
#[ignore = "needs root"]
fn puts_right_what_others_undo() {
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
            look(&mut router, &config),
            failover_agent::route::Report::default(),
            "nothing to do"
        );

        // A DHCP client puts a better one, and one that ties.
        ip("route add default via 10.0.0.1 dev up0 proto dhcp");
        ip("route prepend default via 10.0.0.1 dev up0 proto dhcp metric 50");
        ip("-6 route add default via 2001:db8::1 dev up0 proto static metric 1");
        ip("-6 route append default via 2001:db8::1 dev up0 proto static metric 50");
        let report = look(&mut router, &config);
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(
            lines(&report.changes)
                .contains(&"displaced default via 10.0.0.1 dev up0 proto dhcp metric 0".to_owned()),
            "{report:?}"
        );
        assert_eq!(snapshot(), standing);

        // A user flushes rules and routes.
        ip("rule flush");
        ip("rule add pref 32766 lookup main");
        ip("rule add pref 32767 lookup default");
        ip("route flush proto 136");
        ip("route flush table 13600");
        look(&mut router, &config);
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
#[ignore = "needs root"]
fn finds_what_the_kernel_does_not_list() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        ip("tuntap add name up2 mode tun");
        ip("link set up2 up");
        ip("-6 addr add 2001:db8:2::2/64 dev up2 nodad");
        let mut config = config(&["up0", "up1", "up2"]);
        config.uplinks[2].gateway6 = Gateway::None;
        let state = state();
        let (mut router, _) = router(&config, state.path());
        // Between the nexthops of a multipath route.
        ip("-6 route append default via 2001:db8:0::1 dev up0 metric 7");
        ip("-6 route append default dev up2 metric 7");
        ip("-6 route append default via 2001:db8:1::1 dev up1 metric 7");
        assert!(!ip("-6 route show default").contains("dev up2"));
        let links = router.read_links(&config).unwrap();
        prepare(&mut router, &links);
        assert!(router.activate(Family::V6, only(A)).unwrap().displaced);
        assert!(ip("-6 route show default").contains("dev up2 metric 7"));

        assert!(sync(&mut router, &config).routes.displaced);
        assert!(!ip("-6 route show default").contains("metric 7"));
        assert!(!sync(&mut router, &config).routes.displaced);
    });
}

#[test]
#[ignore = "needs root"]
fn observes_what_others_do() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        runtime().block_on(async {
            let (mut router, _) = router(&config, state.path());
            let mut observer = Observer::open(&router, &["up0", "up1"]).unwrap();
            let up1 = nix::net::if_::if_nametoindex("up1").unwrap();
            // What is seen before the expected change.
            let mut expect = async |command: &str, expected: Seen| {
                ip(command);
                let mut others = Vec::new();
                loop {
                    let change = next(&mut observer, command).await;
                    match seen(&change) {
                        seen if seen == expected => return others,
                        _ => others.push(change),
                    }
                }
            };

            // Our own changes, other networks, rules and interfaces are no news: the next thing seen is the address.
            router.activate(Family::V4, only(A)).unwrap();
            router.activate(Family::V4, only(B)).unwrap();
            ip("route add 198.51.100.0/24 via 10.0.0.1");
            ip("route add 198.51.100.1 dev up2 scope link");
            ip("route add unreachable 198.51.100.2");
            ip("route add 198.51.100.3 dev up1 scope link table 77");
            ip("route add 198.51.100.4 via inet6 fe80::1 dev up1");
            ip("-6 route add 2001:db8:77::/48 dev up1");
            ip("-6 route add 2001:db8:78::1 via 2001:db8::1");
            ip("-6 addr add 2001:db8:79::1/64 dev up2 nodad");
            ip("addr add 10.9.0.1/24 dev up2");
            ip("link set up2 down");
            ip("rule add pref 77 lookup main");
            ip("rule del pref 77");
            ip("nexthop add id 9 via 10.0.0.1 dev up0");
            ip("nexthop del id 9");
            ip("nexthop add id 10 via 10.0.0.1 dev up0 protocol 136");
            ip("neigh add 10.0.0.77 dev up0 lladdr 02:00:00:00:00:77 nud reachable");
            // An entry that was of no use until then is not announced.
            ip("neigh add 10.0.0.78 dev far0 lladdr 02:00:00:00:00:78 nud reachable");
            ip("neigh replace 10.0.0.78 dev far0 nud failed");
            let noise = expect("addr add 10.9.1.1/24 dev up1", Seen::Address(up1)).await;
            assert_eq!(noise, []);
            // What leads to a gateway, perhaps.
            for (command, family) in [
                ("route add 10.9.9.1 dev up1 scope link", Family::V4),
                ("-6 route add 2001:db8:9::1 dev up1 metric 300", Family::V6),
                ("-6 route del 2001:db8:9::1 dev up1 metric 300", Family::V6),
                ("route del 10.9.9.1 dev up1 scope link", Family::V4),
            ] {
                let noise = expect(command, Seen::Near(up1, family)).await;
                assert_eq!(noise, []);
            }
            expect("link set far1 down", Seen::Link(up1, false, false)).await;
            expect("link set far1 up", Seen::Link(up1, true, false)).await;
            let v4 = "default via 10.0.0.1 dev up0 proto boot metric 7";
            expect(
                "route add default via 10.0.0.1 dev up0 metric 7",
                Seen::Route(Family::V4, false, v4.to_owned()),
            )
            .await;
            let v6 = "default via 2001:db8::1 dev up0 proto boot metric 7";
            expect(
                "-6 route add default via 2001:db8::1 dev up0 metric 7",
                Seen::Route(Family::V6, false, v6.to_owned()),
            )
            .await;
            let ours = "default via 10.0.1.1 dev up1 proto 136 metric 50";
            expect(
                "route del default dev up1 metric 50",
                Seen::Route(Family::V4, true, ours.to_owned()),
            )
            .await;
            // No default route, but ours.
            let ours = "10.0.0.0/24 dev up0 table 13600 proto 136 metric 1024";
            expect(
                "route del 10.0.0.0/24 table 13600",
                Seen::Route(Family::V4, true, ours.to_owned()),
            )
            .await;
            let rule = "rule 13664: from 10.0.0.2 lookup main suppress_prefixlength 0";
            expect("rule del pref 13664", Seen::Rule(rule.to_owned())).await;
            let object = "nexthop 10 via 10.0.0.1 dev up0 proto 136";
            expect("nexthop del id 10", Seen::Nexthop(object.to_owned())).await;
            // Nobody is there: the kernel asks three times.
            expect(
                "neigh replace 10.0.0.1 dev up0 use",
                Seen::Neighbour("10.0.0.1".to_owned()),
            )
            .await;
            expect("link del up1", Seen::Link(up1, false, true)).await;

            // Under another index: its addresses and neighbours are let pass again.
            ip("link add up1 type veth peer name far1");
            let up1 = nix::net::if_::if_nametoindex("up1").unwrap();
            let _noise = expect("link set up1 up", Seen::Link(up1, false, false)).await;
            expect("link set far1 up", Seen::Link(up1, true, false)).await;
            expect("addr add 10.9.2.1/24 dev up1", Seen::Address(up1)).await;
            ip("neigh add 2001:db8:9::1 dev up1 lladdr 02:00:00:00:00:91 nud reachable");
            expect(
                "neigh replace 2001:db8:9::1 dev up1 nud failed",
                Seen::Neighbour("2001:db8:9::1".to_owned()),
            )
            .await;
        });
    });
}

#[test]
#[ignore = "needs root"]
fn a_carrier_that_only_a_look_saw_gone_is_back() {
    isolated(|| {
        ethernet_uplinks(1);
        default_routes(1, 500);
        let config = config(&["up0"]);
        let state = state();
        runtime().block_on(async {
            let (mut router, links) = router(&config, state.path());
            let mut observer = Observer::open(&router, &["up0"]).unwrap();
            let up0 = links[A].ifindex;
            // Whether the kernel says something that the links do not say yet.
            let mut news = async |command: &str, router: &mut Router| {
                ip(command);
                let change = next(&mut observer, command).await;
                assert_eq!(seen(&change), Seen::Link(up0, true, false));
                let Change::Link { replaced, .. } = change else {
                    unreachable!("seen just now");
                };
                router.set_carrier(A, true, replaced)
            };
            // The kernel says again what is known, and then something else.
            assert!(!news("link set up0 txqueuelen 500", &mut router).await);
            let mut gone = router.read_links(&config).unwrap();
            gone[A].carrier = false;
            prepare(&mut router, &gone);
            assert!(news("link set up0 txqueuelen 501", &mut router).await);
            assert!(router.links()[A].carrier);
        });
    });
}

#[test]
#[ignore = "needs root"]
fn hears_of_qdiscs_and_filters_that_go_from_uplinks() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0"]);
        let state = state();
        runtime().block_on(async {
            let (router, links) = router(&config, state.path());
            let mut observer = Observer::open(&router, &["up0"]).unwrap();
            let up0 = links[A].ifindex;
            let tc = |arguments: &str| {
                let done = Command::new("tc").args(arguments.split(' ')).status();
                assert!(done.unwrap().success(), "{arguments}");
            };
            // That they come, and what happens on other interfaces, is nobody's business.
            for device in ["up1", "up0"] {
                tc(&format!("qdisc add dev {device} clsact"));
                tc(&format!(
                    "filter add dev {device} egress pref 7 protocol all u32 match u32 0 0"
                ));
            }
            for gone in [
                "filter del dev DEV egress pref 7",
                "qdisc del dev DEV clsact",
            ] {
                for device in ["up1", "up0"] {
                    tc(&gone.replace("DEV", device));
                }
                assert_eq!(seen(&next(&mut observer, gone).await), Seen::Programs(up0));
            }
        });
    });
}

/// A change without the one who made it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Index, carrier, gone.
    Link(u32, bool, bool),
    Address(u32),
    Near(u32, Family),
    /// Family, ours, route.
    Route(Family, bool, String),
    Rule(String),
    Nexthop(String),
    Neighbour(String),
    Programs(u32),
    Resync,
}

fn seen(change: &Change) -> Seen {
    match change.clone() {
        Change::Link {
            ifindex,
            carrier,
            gone,
            ..
        } => Seen::Link(ifindex, carrier, gone),
        Change::Address { ifindex, .. } => Seen::Address(ifindex),
        Change::Near { ifindex, family } => Seen::Near(ifindex, family),
        Change::Route {
            family,
            ours,
            object,
            ..
        } => Seen::Route(family, ours, object.to_string()),
        Change::Rule { object, .. } => Seen::Rule(object.to_string()),
        Change::Nexthop { object, .. } => Seen::Nexthop(object.to_string()),
        Change::Neighbour { address, .. } => Seen::Neighbour(address.to_string()),
        Change::Programs { ifindex, .. } => Seen::Programs(ifindex),
        Change::Resync => Seen::Resync,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn next(observer: &mut Observer, after: &str) -> Change {
    tokio::time::timeout(Duration::from_secs(10), observer.next())
        .await
        .unwrap_or_else(|_| panic!("{after}: nothing seen"))
}

/// An `ip` that lives on after what it did.
struct Resident(Child);

impl Resident {
    fn start() -> Resident {
        let child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Resident(child)
    }

    fn ip(&mut self, command: &str) {
        let mut stdin = self.0.stdin.as_ref().unwrap();
        writeln!(stdin, "{command}").unwrap();
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[ignore = "needs root"]
fn observes_who_did_it() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        runtime().block_on(async {
            let (mut router, _) = router(&config, state.path());
            router.activate(Family::V4, only(A)).unwrap();
            let mut observer = Observer::open(&router, &["up0", "up1"]).unwrap();
            let mut resident = Resident::start();
            let process = Origin::Process {
                pid: resident.0.id(),
                name: "ip".to_owned(),
            };
            let by = |protocol| Actor {
                protocol,
                origin: process.clone(),
            };
            resident.ip("route add default via 10.0.0.1 dev up0 proto dhcp metric 7");
            resident.ip("route del default via 10.0.0.1 dev up0 proto dhcp metric 7");
            resident.ip("route del default dev up0 metric 50");
            resident.ip("rule del pref 13664");
            for expected in [(false, by(16)), (true, by(16)), (true, by(136))] {
                match next(&mut observer, "a resident's route").await {
                    Change::Route { removed, by, .. } => assert_eq!((removed, by), expected),
                    other => panic!("{other:?}"),
                }
            }
            match next(&mut observer, "a resident's rule").await {
                Change::Rule { by: actor, .. } => assert_eq!(actor, by(136)),
                other => panic!("{other:?}"),
            }

            // The kernel itself.
            ip("-6 route add default via 2001:db8::1 dev up0 metric 7 expires 1");
            drop(resident);
            ip("link del up0");
            loop {
                match next(&mut observer, "the interface is gone").await {
                    Change::Route {
                        removed: true,
                        family: Family::V6,
                        by,
                        ..
                    } => break assert_eq!(by.origin, Origin::Kernel),
                    Change::Resync => panic!("lost"),
                    _ => {}
                }
            }
        });
    });
}

#[test]
#[ignore = "needs root"]
fn observer_survives_an_overrun() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        runtime().block_on(async {
            let (router, _) = router(&config, state.path());
            let mut observer = Observer::open(&router, &["up0", "up1"]).unwrap();
            let batch = state.path().join("batch");
            let line =
                "route add default via 10.0.0.1 dev up0 metric 7\nroute del default metric 7\n";
            std::fs::write(&batch, line.repeat(2000)).unwrap();
            ip(&format!("-batch {}", batch.display()));
            let mut lost = async |expected: fn(&Change) -> bool| {
                while !expected(&next(&mut observer, "an overrun").await) {}
            };
            lost(|change| *change == Change::Resync).await;
            // After the loss, news come in as before.
            ip("link set far1 down");
            lost(|change| matches!(change, Change::Link { carrier: false, .. })).await;
        });
    });
}
