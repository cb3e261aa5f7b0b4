//! What keeps probes from being answered.

use std::net::Ipv4Addr;

use failover_lab::{Lab, Scenario, TARGETS_V4, UplinkSpec};

use super::diagnosis::{Diagnosis, apply, doctor, probed, probed_both, problem};

#[test]
#[ignore = "needs root"]
fn a_firewall_is_told_to_let_probes_pass() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host().namespace().nft(
        "table inet guard {
             chain out { type filter hook output priority filter; meta l4proto { icmp, ipv6-icmp } oifname lte drop; }
         }
         table ip other {
             chain out { type filter hook output priority 10; ip protocol icmp oifname lte reject; }
         }",
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let finding = diagnosis.only("probe-refused", "error");
    assert_eq!(finding["uplink"], "lte");
    apply(&lab, finding)?;
    Diagnosis::make(&lab, &probed(&lab))?.assert_healthy();
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn silent_targets_and_silent_uplinks_are_told_apart() -> Scenario {
    let lab = Lab::builder().build()?;
    let silent = probed(&lab).targets([TARGETS_V4[0], Ipv4Addr::new(203, 0, 113, 99)]);
    let diagnosis = Diagnosis::make(&lab, &silent)?;
    let finding = diagnosis.only("no-answer", "warning");
    assert!(problem(finding).contains("203.0.113.99"), "{finding}");
    assert!(finding["uplink"].is_null(), "{finding}");

    let fault = lab.uplink("lte").blackhole()?;
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    let uplinks: Vec<_> = diagnosis
        .of("no-answer")
        .iter()
        .map(|finding| (finding["uplink"].clone(), finding["family"].clone()))
        .collect();
    assert_eq!(
        uplinks,
        [("lte".into(), "ipv4".into()), ("lte".into(), "ipv6".into())]
    );

    // As text, with another exit code than that of a wrong command line.
    let file = lab.write_config(&probed(&lab))?;
    let output = doctor(&lab, &["--config", &file.to_string_lossy()])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(
        text.starts_with("warnings:\n  lte, IPv4: no target answers"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(29));
    fault.repair()?;
    Diagnosis::make(&lab, &probed_both(&lab))?.assert_healthy();
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_uplink_without_routes_waits_for_the_agent() -> Scenario {
    let lab = Lab::builder()
        .uplinks([
            UplinkSpec::veth("cable"),
            UplinkSpec::veth("lte").without_default_routes(),
        ])
        .build()?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert_eq!(diagnosis.only("no-answer", "hint")["uplink"], "lte");
    let agent = lab.start_agent(&probed(&lab))?;
    agent.wait_for_status("lte is Up", std::time::Duration::from_secs(20), |status| {
        status["uplinks"][1]["health"] == "Up"
    })?;
    Diagnosis::with(&lab, &[])?.assert_healthy();
    Ok(())
}
