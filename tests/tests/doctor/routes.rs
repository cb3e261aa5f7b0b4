//! Default routes of others, and reverse path filtering.

use failover_lab::{Lab, Scenario};

use super::diagnosis::{Diagnosis, apply, probed};

#[test]
#[ignore = "needs root"]
fn better_default_routes_of_an_uplink_are_moved_behind() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host().namespace().ip_batch(
        "route add default via 10.64.2.1 dev lte proto dhcp\n\
         route add ::/0 via fe80::1 dev lte proto ra metric 50",
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let found = diagnosis.of("default-route");
    assert_eq!(found.len(), 2, "{diagnosis:#?}");
    for (finding, manager) in found.iter().zip(["RouteMetric=", "ra_defrtr_metric="]) {
        assert_eq!(finding["severity"], "warning");
        assert_eq!(finding["uplink"], "lte");
        assert!(
            finding["cure"].as_str().unwrap().contains(manager),
            "{finding}"
        );
        apply(&lab, finding)?;
    }
    Diagnosis::make(&lab, &probed(&lab))?.assert_healthy();
    // Moved, not lost.
    let metrics: Vec<u32> = lab
        .host()
        .default_routes_v4()?
        .iter()
        .map(|route| route.metric)
        .collect();
    assert_eq!(metrics, [5000, 5001, 6000]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn default_routes_of_other_interfaces_are_found() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host().namespace().ip_batch(
        "link add name office type veth peer name far\n\
         link set dev far up\n\
         link set dev office up\n\
         address add 10.9.0.2/24 dev office\n\
         route add default via 10.9.0.1 dev office proto static metric 10\n\
         route append default via 10.9.0.1 dev office metric 80",
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let found = diagnosis.of("default-route");
    assert_eq!(found.len(), 2, "{diagnosis:#?}");
    // One takes the traffic, the other has a metric of ours.
    for (finding, severity) in found.iter().zip(["error", "warning"]) {
        assert_eq!(finding["severity"], severity);
        apply(&lab, finding)?;
    }
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert!(diagnosis.of("default-route").is_empty(), "{diagnosis:#?}");
    assert_eq!(diagnosis.code, 0, "{diagnosis:#?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_vpn_may_stay_in_front() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host().namespace().ip_batch(
        "tuntap add name vpn0 mode tun\n\
         link set dev vpn0 up\n\
         address add 10.9.0.2/24 dev vpn0\n\
         route add default dev vpn0 proto static metric 50",
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let finding = diagnosis.only("default-route", "hint");
    assert!(finding["problem"].as_str().unwrap().contains("VPN"));
    assert_eq!(diagnosis.code, 0, "{diagnosis:#?}");
    apply(&lab, finding)?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert!(diagnosis.of("default-route").is_empty(), "{diagnosis:#?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn strict_reverse_path_filtering_is_loosened_where_it_hurts() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    host.set_sysctl("net/ipv4/conf/all/rp_filter", "1")?;
    // The agent's rules will do.
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert_eq!(diagnosis.only("no-answer", "hint")["uplink"], "lte");
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");
    // They will not do for a target with a route of its own.
    host.ip_batch(
        "route add 192.0.2.1 via 10.64.1.1 dev cable\n\
         route add 198.51.100.1 via 10.64.1.1 dev cable",
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let finding = diagnosis.only("reverse-path", "error");
    assert_eq!(finding["uplink"], "lte");
    apply(&lab, finding)?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert!(diagnosis.of("reverse-path").is_empty(), "{diagnosis:#?}");
    // Such routes have a fault of their own.
    assert_eq!(
        diagnosis.only("specific-route", "warning")["uplink"],
        "cable"
    );
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");
    Ok(())
}
