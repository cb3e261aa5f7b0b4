//! Numbers that stay when uplinks come and go.

use failover_policy::Family;
use std::collections::BTreeSet;

use failover_agent::route::Router;

use crate::{fixtures::*, netns::*};

/// Rules and routes that name the table of a slot.
fn of_slot(entries: &BTreeSet<String>, slot: u32) -> Vec<String> {
    let table = format!("\"table\":\"{}\"", 13600 + slot);
    let of_slot = entries.iter().filter(|entry| entry.contains(&table));
    of_slot.cloned().collect()
}

#[test]
#[ignore = "needs root"]
fn an_uplink_in_front_leaves_the_others_alone() {
    isolated(|| {
        ethernet_uplinks(4);
        default_routes(4, 500);
        let two = config(&["up1", "up2"]);
        let state = state();
        let (mut router, links) = router(&two, state.path());
        assert_eq!(
            links.ids().map(|uplink| uplink.0).collect::<Vec<_>>(),
            [0, 1]
        );
        for family in Family::ALL {
            router.activate(family, only(A)).unwrap();
        }
        let before = snapshot();

        let three = config(&["up0", "up1", "up2"]);
        let links = router.read_links(&three).unwrap();
        let slots: Vec<usize> = links.ids().map(|uplink| uplink.0).collect();
        assert_eq!(slots, [2, 0, 1]);
        let report = prepare(&mut router, &links);
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(
            !report.changes.is_empty()
                && lines(&report.changes)
                    .iter()
                    .all(|line| line.starts_with("added ") && line.contains("13602")
                        || line.contains("from 10.0.0.2")
                        || line.contains("from 2001:db8::2")),
            "{report:?}"
        );
        for slot in [0, 1] {
            assert!(!of_slot(&before, slot).is_empty());
            assert_eq!(of_slot(&snapshot(), slot), of_slot(&before, slot));
        }
        // The active one is the same, whatever is in front of it.
        let report = look(&mut router, &three);
        assert_eq!(report.problems, Vec::<String>::new());
        for family in Family::ALL {
            assert_eq!(router.current(family).unwrap(), only(A));
        }
        assert_eq!(
            defaults("-4")[..3],
            [
                ours("up1", "10.0.1.1", 50),
                ours("up0", "10.0.0.1", 100),
                ours("up2", "10.0.2.1", 102)
            ]
        );

        // A restart changes nothing, although the positions are others.
        let left = snapshot();
        drop(router);
        let mut second = Router::connect(&three.route, state.path()).unwrap();
        assert_eq!(second.discover(&three).unwrap(), links);
        let report = prepare(&mut second, &links);
        assert_eq!(report, failover_agent::route::Report::default());
        for family in Family::ALL {
            assert_eq!(second.current(family).unwrap(), only(A));
        }
        assert_eq!(look(&mut second, &three).changes, []);
        assert_eq!(snapshot(), left);

        // One that is taken out leaves its number to the next.
        let other = config(&["up1", "up3"]);
        let links = second.read_links(&other).unwrap();
        assert_eq!(
            links.ids().map(|uplink| uplink.0).collect::<Vec<_>>(),
            [0, 1]
        );
        prepare(&mut second, &links);
        assert_eq!(of_slot(&snapshot(), 2), Vec::<String>::new());
        look(&mut second, &other);
        assert_eq!(second.current(Family::V4).unwrap(), only(A));
    });
}
