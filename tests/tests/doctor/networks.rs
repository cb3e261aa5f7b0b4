//! Uplinks that share a segment or a range of addresses, and targets in it.

use failover_lab::{Lab, Scenario};

use super::diagnosis::{Diagnosis, FLAGS, apply, probed, problem};

#[test]
#[ignore = "needs root"]
fn two_uplinks_on_one_segment_need_arp_settings() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host().namespace().ip_batch(
        "link add link cable name second type macvlan mode bridge\n\
         link set dev second up\n\
         address add 10.64.1.3/24 dev second\n\
         route add default via 10.64.1.1 dev second metric 300",
    )?;
    let flags = [
        "--uplink",
        "cable",
        "--uplink",
        "second",
        "--target",
        "192.0.2.1",
    ];
    let diagnosis = Diagnosis::with(&lab, &flags)?;
    assert!(diagnosis.of("same-network").is_empty(), "{diagnosis:#?}");
    apply(&lab, diagnosis.only("arp-flux", "warning"))?;
    let diagnosis = Diagnosis::with(&lab, &flags)?;
    assert!(diagnosis.of("arp-flux").is_empty(), "{diagnosis:#?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_same_range_on_two_links_is_a_hint() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    host.ip_batch("address add 10.64.1.77/24 dev lte noprefixroute")?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let finding = diagnosis.only("same-network", "hint");
    assert!(problem(finding).contains("10.64.1.0/24"), "{finding}");
    host.ip_batch("address del 10.64.1.77/24 dev lte")?;
    Diagnosis::make(&lab, &probed(&lab))?.assert_healthy();
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_target_on_the_link_is_refused() -> Scenario {
    let lab = Lab::builder().build()?;
    let on_link = ["--target", "10.64.2.1", "--timeout", "500ms"];
    let flags = [&FLAGS[..], &on_link].concat();
    let diagnosis = Diagnosis::with(&lab, &flags)?;
    assert_eq!(diagnosis.only("target-on-link", "error")["uplink"], "lte");
    let diagnosis = Diagnosis::with(&lab, &FLAGS)?;
    diagnosis.assert_healthy();
    Ok(())
}
