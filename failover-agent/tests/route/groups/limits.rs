//! What a host or a member does not allow.

use failover_policy::Family;

use failover_agent::config::Gateway;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{balanced, by, hash_policies, objects, shares, ways};
use crate::{fixtures::*, netns::*};

#[test]
#[ignore = "needs root"]
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
        assert_eq!(router.activate(Family::V4, both).unwrap().changes, []);
        ip("nexthop del id 13728");
        router.restore();
        assert_eq!(objects(), Vec::<u64>::new());
        assert_eq!(snapshot(), before);
    });
}

#[test]
#[ignore = "needs root"]
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
        router.restore();
        assert_eq!(hash_policies(), ["0", "0"]);
    });
}

#[test]
#[ignore = "needs root"]
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
