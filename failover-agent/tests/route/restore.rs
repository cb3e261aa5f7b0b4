//! Giving back what was displaced: on stop, after a kill, as exactly as can be.

use failover_policy::Family;

use failover_agent::route::{Router, Verb, reset};

use crate::{fixtures::*, netns::*};

#[test]
#[ignore = "needs root"]
fn displaces_what_beats_or_ties_and_restores_it_exactly() {
    isolated(|| {
        ethernet_uplinks(2);
        ip("route add default via 10.0.0.1 dev up0 proto dhcp src 10.0.0.2 mtu 1400 advmss 1300");
        ip("route add default via 10.0.0.1 dev up0 proto static metric 50");
        ip("route append default via 10.0.0.7 dev up0 proto static metric 50 initcwnd 20");
        ip("route add default via 10.0.1.1 dev up1 proto dhcp metric 100 onlink");
        ip("route add default via 10.0.1.1 dev up1 proto dhcp metric 600");
        ip("-6 route add default via 2001:db8::1 dev up0 proto static metric 50 mtu 1300");
        ip("-6 route add default via 2001:db8::1 dev up0 proto ra metric 1024");
        ip("-6 route add default via 2001:db8:1::1 dev up1 proto static metric 100");
        let before = snapshot();
        let order = ip("route show default");
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for family in Family::ALL {
            for to in [A, B, A] {
                router.activate(family, only(to)).unwrap();
            }
        }
        assert_eq!(
            defaults("-4"),
            [
                ours("up0", "10.0.0.1", 50),
                ours("up1", "10.0.1.1", 101),
                foreign("up1", "10.0.1.1", 600, "dhcp")
            ]
        );
        assert_eq!(
            defaults("-6"),
            [
                ours("up0", "2001:db8::1", 50),
                ours("up1", "2001:db8:1::1", 101),
                foreign("up0", "2001:db8::1", 1024, "ra")
            ]
        );
        let active = &ip_json("route show default metric 50")[0];
        assert_eq!(
            (
                active["prefsrc"].as_str(),
                active["metrics"][0]["mtu"].as_u64()
            ),
            (Some("10.0.0.2"), Some(1400)),
            "{active}"
        );
        let record = std::fs::read_to_string(state.path().join("displaced.json")).unwrap();
        assert!(
            record.contains("default via 10.0.0.1 dev up0 proto dhcp src 10.0.0.2 metric 0"),
            "{record}"
        );

        let report = router.restore();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(snapshot(), before);
        assert_eq!(
            ip("route show default"),
            order,
            "routes of one metric keep their order"
        );
        assert!(!state.path().join("displaced.json").exists());
        assert_eq!(
            router.restore(),
            failover_agent::route::Report::default(),
            "a second time does nothing"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn resets_after_a_kill() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 10);
        ip("route add 198.51.100.0/24 via 10.0.0.1 proto static");
        let before = snapshot();
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut killed, links) = router(&config, state.path());
        for family in Family::ALL {
            killed.activate(family, only(B)).unwrap();
        }
        drop(killed);
        let left = snapshot();

        // The next run finds everything as it was, and changes nothing.
        let (mut second, learned) = router(&config, state.path());
        assert_eq!(
            learned, links,
            "gateways are learned from what was displaced, or from ours"
        );
        for family in Family::ALL {
            assert_eq!(second.current(family).unwrap(), only(B));
            assert_eq!(second.activate(family, only(B)).unwrap().changes, []);
        }
        assert_eq!(snapshot(), left);
        drop(second);

        let report = reset(&config.route, state.path()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(
            lines(&report.changes)
                .contains(&"restored default via 10.0.0.1 dev up0 proto dhcp metric 10".to_owned()),
            "{report:?}"
        );
        assert_eq!(snapshot(), before);
        assert_eq!(
            reset(&config.route, state.path()).unwrap(),
            failover_agent::route::Report::default()
        );
    });
}

#[test]
#[ignore = "needs root"]
fn remembers_gateways_over_a_kill_when_no_route_is_left() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 500);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut killed, links) = router(&config, state.path());
        killed.activate(Family::V4, only(A)).unwrap();
        killed.activate(Family::V6, only(A)).unwrap();
        drop(killed);
        for _ in 0..2 {
            ip("route del default proto dhcp");
            ip("-6 route del default proto static");
        }
        let mut second = Router::connect(&config.route, state.path()).unwrap();
        assert_eq!(second.discover(&config).unwrap(), links);
        ip("route flush proto 136");
        ip("-6 route flush proto 136");
        assert_eq!(second.discover(&config).unwrap(), links);
    });
}

#[test]
#[ignore = "needs root"]
fn restores_what_can_be_and_reports_the_rest() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 10);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        router.activate(Family::V4, only(B)).unwrap();
        ip("link del up0");
        let report = router.restore();
        assert_eq!(
            report.obsolete,
            [
                "not restored default via 10.0.0.1 dev up0 proto dhcp metric 10: interface up0 is gone"
            ]
        );
        assert_eq!(defaults("-4"), [foreign("up1", "10.0.1.1", 11, "dhcp")]);
        assert!(!ip("rule show").contains("136"));
    });
}

#[test]
#[ignore = "needs root"]
fn restores_on_an_interface_that_was_made_anew() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 10);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut killed, _) = router(&config, state.path());
        killed.activate(Family::V4, only(B)).unwrap();
        drop(killed);
        ip("link del up0");
        ip("link add up0 type veth peer name far0");
        ip("addr add 10.0.0.2/24 dev up0");
        ip("link set up0 up");
        let report = reset(&config.route, state.path()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(
            defaults("-4"),
            [
                foreign("up0", "10.0.0.1", 10, "dhcp"),
                foreign("up1", "10.0.1.1", 11, "dhcp")
            ]
        );
    });
}

#[test]
#[ignore = "needs root"]
fn ignores_a_record_from_before_the_boot() {
    isolated(|| {
        ethernet_uplinks(2);
        default_routes(2, 10);
        let config = config(&["up0", "up1"]);
        let state = state();
        let (mut killed, _) = router(&config, state.path());
        killed.activate(Family::V4, only(B)).unwrap();
        drop(killed);
        let file = state.path().join("displaced.json");
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        record["boot_id"] = "another".into();
        std::fs::write(&file, record.to_string()).unwrap();
        assert!(
            !reset(&config.route, state.path())
                .unwrap()
                .changes
                .iter()
                .any(|done| done.verb == Verb::Restored)
        );

        let foreign = state.path().join("displaced.json.foreign");
        assert_eq!(
            std::fs::read_to_string(&foreign).unwrap(),
            record.to_string()
        );

        std::fs::write(&file, "{").unwrap();
        reset(&config.route, state.path()).unwrap();
        let damaged = state.path().join("displaced.json.damaged");
        assert_eq!(std::fs::read_to_string(&damaged).unwrap(), "{");
        assert!(!file.exists());
    });
}
