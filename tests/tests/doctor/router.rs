//! A host that forwards for a LAN.

use anyhow::Result;
use failover_lab::{Lab, Scenario};

use super::diagnosis::{Diagnosis, apply, probed, probed_both};

#[test]
#[ignore = "needs root"]
fn a_router_is_cured_of_one_fault_after_the_other() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let host = lab.host().namespace();
    let cure_all = |check: &str, severity: &str, count: usize| -> Result<()> {
        let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
        let found = diagnosis.of(check);
        assert_eq!(found.len(), count, "{diagnosis:#?}");
        for finding in found {
            assert_eq!(finding["severity"], severity);
            apply(&lab, finding)?;
        }
        let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
        assert!(diagnosis.of(check).is_empty(), "{diagnosis:#?}");
        Ok(())
    };
    cure_all("invalid-forwarded", "hint", 1)?;
    Diagnosis::make(&lab, &probed(&lab))?.assert_healthy();

    host.nft("delete table inet lan")?;
    // In IPv4 and IPv6, by both uplinks.
    cure_all("no-masquerade", "warning", 4)?;
    host.ip_batch("link set dev lte mtu 1400")?;
    cure_all("mtu-differs", "warning", 1)?;
    host.set_sysctl("net/ipv4/conf/cable/rp_filter", "1")?;
    cure_all("reverse-path-forwarded", "warning", 1)?;
    host.set_sysctl("net/ipv4/ip_forward", "0")?;
    cure_all("forwarding-off", "hint", 1)?;
    Diagnosis::make(&lab, &probed(&lab))?.assert_healthy();
    // The cures work: a client behind the host is online.
    let answer = lab
        .client()
        .ping("192.0.2.1".parse()?, std::time::Duration::from_secs(10))?;
    assert!(answer.is_some());
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_router_must_be_told_to_heed_router_advertisements() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    let found = diagnosis.of("router-advertisements-ignored");
    assert_eq!(found.len(), 2, "{diagnosis:#?}");
    for finding in found {
        apply(&lab, finding)?;
    }
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    assert!(
        diagnosis.of("router-advertisements-ignored").is_empty(),
        "{diagnosis:#?}"
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn rules_of_iptables_count() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let host = lab.host().namespace();
    host.nft("delete table inet lan")?;
    for (program, uplink) in [("iptables-nft", "cable"), ("ip6tables-nft", "lte")] {
        host.exec(
            program,
            &[
                "-t",
                "nat",
                "-A",
                "POSTROUTING",
                "-o",
                uplink,
                "-j",
                "MASQUERADE",
            ],
        )?;
    }
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let left: Vec<_> = diagnosis
        .of("no-masquerade")
        .iter()
        .map(|finding| (finding["uplink"].clone(), finding["family"].clone()))
        .collect();
    assert_eq!(
        left,
        [
            ("lte".into(), "ipv4".into()),
            ("cable".into(), "ipv6".into())
        ]
    );
    Ok(())
}
