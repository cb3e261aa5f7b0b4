//! The keys of the JSON, and what is computed on the way to it.

use failover_policy::Health;
use serde_json::json;

use super::*;
use crate::control::testing;

#[test]
fn json_is_as_documented_and_reads_back() {
    let status = testing::status();
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["at"], "2026-01-02T03:04:05.000006Z");
    assert_eq!(json["primary"], "ipv4");
    assert_eq!(json["active"], "lte");
    let cable = &json["uplinks"][0];
    assert_eq!(cable["gateway"], "192.0.2.1");
    assert_eq!(cable["health"], "Down");
    assert_eq!(cable["health_since"], "2026-01-02T03:02:35.000006Z");
    assert_eq!(cable["rtt_ms"], json!(null));
    assert_eq!(cable["loss_pct"], 100.0);
    assert_eq!(cable["gate"], "closed");
    assert_eq!(cable["counters"]["last_rx_ms_ago"], json!(null));
    assert_eq!(cable["programs"]["hook"], "tcx");
    assert_eq!(json["uplinks"][1]["programs"]["hook"], json!(null));
    assert_eq!(cable["families"]["ipv6"]["active"], true);
    assert_eq!(json["uplinks"][1]["families"]["ipv6"], json!(null));
    let causes = json["switches"].as_array().unwrap().iter();
    let causes: Vec<_> = causes.map(|switch| &switch["cause"]).collect();
    assert_eq!(causes, ["failover", "start-up"]);
    assert_eq!(json["switches"][0]["timeline"]["gated_us"], 830);
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
}

#[test]
fn an_uplink_without_the_primary_family_says_so() {
    let status = testing::status();
    let lte = &status.uplinks[1];
    let parts = UplinkParts {
        name: lte.name.clone(),
        interface: lte.interface.clone(),
        rank: 1,
        metered: true,
        drill_s: None,
        programs: lte.programs.clone(),
        counters: lte.counters,
        families: lte.families.clone(),
    };
    let uplink = Uplink::new(parts, Family::V6, testing::now());
    assert_eq!(uplink.health, Health::Unknown);
    assert_eq!(uplink.health_since, testing::now());
    assert_eq!(
        (uplink.gateway, uplink.rtt_ms, uplink.loss_pct),
        (None, None, None)
    );
}

#[test]
fn times_become_ages_and_milliseconds() {
    let totals = failover_ebpf::Counters {
        tx_packets: 1,
        last_rx_ns: 5_000_000,
        ..Default::default()
    };
    let counters = Counters::new(&totals, 7_999_999);
    assert_eq!(counters.last_rx_ms_ago, Some(2));
    assert_eq!(counters.tx_packets, 1);
    // Another CPU's clock reading may be a little ahead of ours.
    assert_eq!(Counters::new(&totals, 1).last_rx_ms_ago, Some(0));
    assert_eq!(Counters::new(&Default::default(), 1).last_rx_ms_ago, None);
    assert_eq!(milliseconds(Duration::from_nanos(1_234_567)), 1.235);
}
