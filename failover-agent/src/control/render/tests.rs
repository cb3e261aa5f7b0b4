//! The status as text.

use std::net::IpAddr;

use super::*;
use crate::control::testing;

#[test]
fn the_active_uplink_is_marked_and_values_have_units() {
    let text = render(&testing::status());
    let expected = "\
failover-agent 0.1.0, process 4711, up for 2 h 3 min
IPv4: active uplink lte
IPv6: active uplink cable
";
    assert!(text.starts_with(expected), "{text}");
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("IPv4  ") || line.contains("IPv6  "))
        .collect();
    assert_eq!(rows.len(), 3, "{text}");
    let words = |row: &str| {
        row.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(rows[0]),
        [
            "cable",
            "IPv4",
            "Down",
            "1",
            "min",
            "30",
            "s",
            "-",
            "100",
            "%",
            "closed",
            "192.0.2.1"
        ],
        "{text}"
    );
    assert_eq!(
        words(rows[2]),
        [
            "*",
            "lte",
            "(metered)",
            "IPv4",
            "Up",
            "2",
            "h",
            "3",
            "min",
            "41.3",
            "ms",
            "2",
            "%",
            "open",
            "-"
        ],
        "{text}"
    );
    assert!(text.contains("7 / 4.2 kB"), "{text}");
    assert!(text.contains("0.2 s ago"), "{text}");
    let conflict = "\
Foreign default route: IPv4: `default via 10.9.0.1 dev vpn0 proto static metric 50` stands in front
  of lte's default route (metric 80), and decides where new traffic leaves

Route conflict: NetworkManager adds default routes that beat the agent's (IPv4), restored 17 times
  in 1 min 0 s; remedy: `nmcli connection modify ID ipv4.route-metric 700`
";
    assert!(text.ends_with(conflict), "{text}");
    assert!(
        text.contains("IPv4 failover cable -> lte: routed after 812 us, gated after 830 us\n"),
        "{text}"
    );
    assert!(
        text.contains("\n                            3 sockets ended\n"),
        "{text}"
    );
    assert!(
        text.contains("IPv4 start-up cable: not confirmed"),
        "{text}"
    );
}

#[test]
fn lines_stay_within_the_width() {
    let mut status = testing::status();
    for uplink in &mut status.uplinks {
        uplink.name = "a-name-of-thirty-two-characters-".to_owned();
        uplink.counters.tx_packets = u64::MAX;
        uplink.counters.tx_bytes = u64::MAX;
        if let Some(state) = &mut uplink.families.ipv6 {
            let gateway: IpAddr = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
            state.gateway = Some(gateway);
        }
    }
    status.switches.clear();
    for line in render(&status).lines() {
        assert!(line.chars().count() <= usize::from(WIDTH), "{line}");
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn a_balance_group_is_named_if_there_is_room() {
    let mut status = testing::status();
    for uplink in &mut status.uplinks {
        if let Some(state) = &mut uplink.families.ipv4 {
            state.active = true;
        }
    }
    let text = render(&status);
    assert!(text.contains("IPv4: active uplinks cable, lte\n"), "{text}");
    for uplink in &mut status.uplinks {
        uplink.name = "a-name-of-thirty-two-characters-".to_owned();
    }
    let text = render(&status);
    assert!(text.contains("IPv4: 2 active uplinks\n"), "{text}");
}

#[test]
fn it_says_when_all_uplinks_are_down() {
    let mut status = testing::status();
    for uplink in &mut status.uplinks {
        if let Some(state) = &mut uplink.families.ipv4 {
            state.health = Health::Down;
            state.active = false;
        }
    }
    let text = render(&status);
    assert!(
        text.contains(
            "IPv4: no active uplink; all uplinks are Down, nothing changes until one is Up"
        ),
        "{text}"
    );
    assert!(text.contains("IPv6: active uplink cable\n"), "{text}");
}

#[test]
fn orders_and_drains_are_seen() {
    let mut status = testing::status();
    status.uplinks[0].drill_s = Some(12.0);
    if let Some(state) = &mut status.uplinks[0].families.ipv6 {
        (state.manual_override, state.draining_s) = (true, Some(90.0));
    }
    let text = render(&status);
    assert!(
        text.contains("IPv6: active uplink cable, manual override\n"),
        "{text}"
    );
    assert!(text.contains("Down (drill)"), "{text}");
    assert!(text.contains("drains 1 min 30 s"), "{text}");
}

#[test]
fn units_follow_the_size() {
    let texts = [0, 999, 1_000, 999_999, 1_500_000, 2_000_000_000, u64::MAX].map(bytes);
    let expected = [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.5 MB",
        "2.0 GB",
        "18446744.0 TB",
    ];
    assert_eq!(texts, expected);
    let texts = [0, 59, 60, 3_599, 3_600, 90_000].map(|s| rough(Duration::from_secs(s)));
    let expected = [
        "0.0 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
        "1 d 1 h",
    ];
    assert_eq!(texts, expected);
}
