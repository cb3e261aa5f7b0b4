//! What a group leaves behind.

use failover_policy::Family;

use failover_agent::route::{Report, reset};

use super::{balanced, hash_policies, objects};
use crate::{fixtures::*, netns::*};

#[test]
#[ignore = "needs root"]
fn nothing_of_a_group_is_left_after_reset() {
    isolated(|| {
        ethernet_uplinks(3);
        default_routes(3, 10);
        std::fs::write("/proc/sys/net/ipv6/fib_multipath_hash_policy", "2").unwrap();
        // Another program's, with a number in our range; and one that is needed no more, with our protocol.
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
        assert_eq!(
            links.ids().map(|uplink| uplink.0).collect::<Vec<_>>(),
            [1, 0, 2]
        );
        for family in Family::ALL {
            assert_eq!(second.current(family).unwrap(), both);
            let confirmed = second.activate(family, both).unwrap();
            let of_active = |line: &&String| line.contains("13728") || line.contains("metric 50");
            assert_eq!(lines(&confirmed.changes).iter().find(of_active), None);
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
        assert_eq!(third.restore().problems, Vec::<String>::new());
        assert_eq!(snapshot(), before);
        assert_eq!(objects(), [13700]);
        assert_eq!(hash_policies(), ["2", "2"]);
    });
}
