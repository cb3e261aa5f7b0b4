//! What others' routes and rules lead past the active uplink.

use failover_lab::{Lab, Scenario};
use failover_tests::fixtures::SOON;

use super::diagnosis::{Diagnosis, apply, probed, problem};

#[test]
#[ignore = "needs root"]
fn networks_by_one_uplink_are_to_be_allowed() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host().namespace().ip_batch(
        "route add 198.51.100.0/24 via 10.64.2.1 dev lte proto static\n\
         route add 203.0.113.7 via 10.64.1.1 dev cable proto dhcp metric 1024\n\
         route add 10.64.9.1 dev lte proto dhcp scope link\n\
         route add 2001:db8:99::/48 via fe80::1 dev lte proto static",
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let found = diagnosis.of("specific-route");
    let told: Vec<_> = found
        .iter()
        .map(|finding| (&finding["uplink"], &finding["family"]))
        .collect();
    assert_eq!(told.len(), 3, "{diagnosis:#?}");
    assert!(problem(found[0]).contains("203.0.113.7/32 via 10.64.1.1 dev cable"));
    assert_eq!(found[1]["uplink"], "lte");
    assert_eq!(found[2]["family"], "ipv6");
    // What the cures say, together.
    let allow = [
        "203.0.113.7/32",
        "198.51.100.0/24",
        "10.64.9.1/32",
        "2001:db8:99::/48",
    ];
    for finding in &found {
        let cure = finding["cure"].as_str().unwrap_or_default();
        let list = cure.split(['[', ']']).nth(1).unwrap_or_default();
        assert!(!list.is_empty(), "{cure}");
        assert!(
            list.split(", ")
                .all(|network| allow.contains(&network.trim_matches('"'))),
            "{cure}"
        );
    }
    let diagnosis = Diagnosis::make(&lab, &probed(&lab).allow(&allow))?;
    assert!(diagnosis.of("specific-route").is_empty(), "{diagnosis:#?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn kill_switches_and_claims_on_the_internet_are_told() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    host.ip_batch(
        "route add unreachable default metric 20\n\
         route add prohibit ::/0 metric 30\n\
         route add blackhole default metric 4000000\n\
         route add ::/1 dev lte proto ra metric 256\n\
         route add default from 2001:db8:2::/56 via fe80::1 dev lte proto static metric 512",
    )?;
    // In IPv6 a test with targets would be answered through the wrong way: it is not what is asked here.
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let found = diagnosis.of("kill-switch");
    assert_eq!(found.len(), 2, "{diagnosis:#?}");
    for finding in found {
        assert_eq!(finding["severity"], "warning");
        apply(&lab, finding)?;
    }
    let finding = diagnosis.only("internet-on-link", "warning");
    assert_eq!(finding["uplink"], "lte");
    apply(&lab, finding)?;
    let finding = diagnosis.only("source-default-route", "hint");
    assert!(
        problem(finding).contains("default from 2001:db8:2::/56"),
        "{finding}"
    );
    host.ip_batch("route del default from 2001:db8:2::/56 dev lte")?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    diagnosis.assert_healthy();
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_uplink_on_top_of_another_is_told() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host().namespace().ip_batch(
        "link add link cable name second type macvlan mode bridge\n\
         link set dev second up\n\
         address add 10.64.1.3/24 dev second\n\
         route add default via 10.64.1.1 dev second metric 300",
    )?;
    let diagnose = |uplinks: [&str; 2]| {
        let flags = [
            "--uplink",
            uplinks[0],
            "--uplink",
            uplinks[1],
            "--target",
            "192.0.2.1",
        ];
        Diagnosis::with(&lab, &flags)
    };
    let diagnosis = diagnose(["cable", "second"])?;
    let finding = diagnosis.only("stacked-uplink", "error");
    assert_eq!(finding["uplink"], "second");
    assert!(
        problem(finding).contains("macvlan on top of cable"),
        "{finding}"
    );
    // Below an uplink may be what is none, and the peers of veths are not below each other.
    for uplinks in [["lte", "second"], ["cable", "lte"]] {
        let diagnosis = diagnose(uplinks)?;
        assert!(diagnosis.of("stacked-uplink").is_empty(), "{diagnosis:#?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn rules_that_change_marks_spare_the_probes() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    host.nft(
        "table inet m {
             chain out { type route hook output priority mangle; meta mark set ct mark; }
             chain spares { type route hook output priority -10; meta mark set meta mark or 0x10000; tcp dport 22 meta mark set 7; }
         }",
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let finding = diagnosis.only("mark-rewritten", "hint");
    assert!(problem(finding).contains("0xfa11"), "{finding}");
    apply(&lab, finding)?;
    // The rule that now goes first lets probes pass: the second finding would be the same rule.
    let rules = host.exec("nft", &["list", "chain", "inet", "m", "out"])?;
    let (spared, rewritten) = (rules.find("0x0000fa11 accept"), rules.find("ct mark"));
    assert!(spared.is_some() && spared < rewritten, "{rules}");
    Diagnosis::make(&lab, &probed(&lab))?.assert_healthy();
    host.exec(
        "iptables-nft",
        &[
            "-t",
            "mangle",
            "-A",
            "OUTPUT",
            "-j",
            "CONNMARK",
            "--restore-mark",
        ],
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    apply(&lab, diagnosis.only("mark-rewritten", "hint"))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn addresses_of_nat_are_to_be_the_uplinks() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let host = lab.host().namespace();
    host.nft(
        "flush chain inet lan nat
         table inet lan { chain nat {
             oifname cable ip saddr 192.168.77.0/24 snat ip to 10.64.1.9
             oifname lte ip saddr 192.168.77.0/24 snat ip to 10.64.2.2
             meta nfproto ipv6 masquerade
         }
         }",
    )?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let finding = diagnosis.only("nat-address", "warning");
    assert_eq!(finding["uplink"], "cable");
    assert!(problem(finding).contains("10.64.1.9"), "{finding}");
    apply(&lab, finding)?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    assert!(diagnosis.of("nat-address").is_empty(), "{diagnosis:#?}");
    // The cure works: the address is the uplink's for the agent, too.
    let agent = lab.start_agent(&probed(&lab))?;
    agent.wait_for_status("the address is known", SOON, |_| {
        failover_tests::fixtures::rule_sources(&lab, failover_policy::Family::V4)
            .is_ok_and(|sources| sources.iter().any(|source| source == "10.64.1.9"))
    })?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_altname_and_a_source_that_is_not_there_are_named() -> Scenario {
    let lab = Lab::builder().build()?;
    lab.host()
        .namespace()
        .ip_batch("link property add dev lte altname enp0s31f6-modem")?;
    let diagnose = |lte: &str| {
        let flags = [
            "--uplink",
            "cable",
            "--uplink",
            lte,
            "--target",
            "192.0.2.1",
        ];
        Diagnosis::with(&lab, &flags)
    };
    let diagnosis = diagnose("enp0s31f6-modem")?;
    let finding = diagnosis.only("interface-missing", "error");
    assert!(
        finding["cure"]
            .as_str()
            .unwrap_or_default()
            .contains("altname of lte"),
        "{finding}"
    );
    let diagnosis = diagnose("lte,source=10.64.2.9")?;
    let finding = diagnosis.only("no-address", "warning");
    assert!(problem(finding).contains("10.64.2.9"), "{finding}");
    diagnose("lte,source=10.64.2.2")?.assert_healthy();
    Ok(())
}
