//! Interfaces, addresses and gateways.

use failover_lab::{Lab, Scenario, wait_until};
use failover_tests::fixtures::SOON;

use super::diagnosis::{Diagnosis, FLAGS, apply, probed, probed_both, problem};

#[test]
#[ignore = "needs root"]
fn a_missing_interface_is_named() -> Scenario {
    let lab = Lab::builder().build()?;
    let flags = [&FLAGS[..], &["--uplink", "wwan9"]].concat();
    let diagnosis = Diagnosis::with(&lab, &flags)?;
    let finding = diagnosis.only("interface-missing", "error");
    assert_eq!(finding["uplink"], "wwan9");
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_is_set_down_is_set_up() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host().namespace().ip_batch("link set dev lte down")?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");
    apply(&lab, diagnosis.only("interface-down", "error"))?;
    // Its route went with it.
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert!(diagnosis.of("interface-down").is_empty(), "{diagnosis:#?}");
    diagnosis.only("no-gateway", "error");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_lost_carrier_is_told() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.uplink("lte")
        .provider()
        .ip_batch("link set dev customer down")?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert_eq!(diagnosis.only("no-carrier", "warning")["uplink"], "lte");
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");
    lab.uplink("lte")
        .provider()
        .ip_batch("link set dev customer up")?;
    wait_until("no finding", SOON, || {
        Diagnosis::make(&lab, &probed(&lab)).is_ok_and(|diagnosis| diagnosis.code == 0)
    })?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_uplink_without_an_address_and_one_without_a_gateway() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    host.ip_batch("route del 0.0.0.0/0 dev lte\naddress del 10.64.2.2/24 dev lte")?;
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    let finding = diagnosis.only("no-address", "warning");
    assert_eq!(finding["family"], "ipv4");
    assert_eq!(finding["uplink"], "lte");
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");

    host.ip_batch("address add 10.64.2.2/24 dev lte")?;
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    assert_eq!(diagnosis.only("no-gateway", "warning")["family"], "ipv4");
    host.ip_batch("route add default via 10.64.2.1 dev lte metric 200")?;
    Diagnosis::make(&lab, &probed_both(&lab))?.assert_healthy();

    let flags = [
        "--uplink",
        "cable",
        "--uplink",
        "lte,gateway=10.9.9.9",
        "--target",
        "192.0.2.1",
    ];
    let diagnosis = Diagnosis::with(&lab, &flags)?;
    let finding = diagnosis.of("no-gateway")[0];
    assert!(problem(finding).contains("10.9.9.9"), "{finding}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn ipv6_that_is_switched_off_is_switched_on() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host()
        .namespace()
        .set_sysctl("net/ipv6/conf/lte/disable_ipv6", "1")?;
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    assert_eq!(diagnosis.findings().count(), 1, "{diagnosis:#?}");
    apply(&lab, diagnosis.only("ipv6-disabled", "error"))?;
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    assert!(diagnosis.of("ipv6-disabled").is_empty(), "{diagnosis:#?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_address_that_another_host_has_is_removed() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    host.set_sysctl("net/ipv6/conf/lte/accept_dad", "1")?;
    let taken = lab.uplink("lte").addresses().gateway_v6;
    host.ip_batch(&format!("address add {taken}/64 dev lte"))?;
    wait_until("the duplicate is detected", SOON, || {
        host.exec("ip", &["-6", "address", "show", "dev", "lte"])
            .is_ok_and(|text| text.contains("dadfailed"))
    })?;
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    apply(&lab, diagnosis.only("duplicate-address", "warning"))?;
    Diagnosis::make(&lab, &probed_both(&lab))?.assert_healthy();
    Ok(())
}
