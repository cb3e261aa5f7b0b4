//! Links, addresses, routes, namespaces and snapshots.

use std::net::IpAddr;

use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6, TARGETS_V4, TARGETS_V6, UplinkSpec};

use super::{SOON, soon_answers};

#[test]
#[ignore = "needs root"]
fn every_target_answers_by_every_uplink_in_both_families() -> Scenario {
    let lab = Lab::builder()
        .uplinks([
            UplinkSpec::veth("cable"),
            UplinkSpec::veth("dsl").metric(700),
            UplinkSpec::tun("lte"),
            UplinkSpec::veth("sat").without_default_routes(),
        ])
        .lan()
        .build()?;
    eprintln!("built in {:?}", lab.build_time());
    for uplink in ["cable", "dsl", "lte"] {
        for target in TARGETS_V4
            .map(IpAddr::from)
            .into_iter()
            .chain(TARGETS_V6.map(IpAddr::from))
        {
            soon_answers(&lab, uplink, target)?;
        }
    }
    let sat = lab.uplink("sat").addresses();
    soon_answers(&lab, "sat", sat.gateway_v4.into())?;
    soon_answers(&lab, "sat", sat.gateway_v6.into())?;

    let v4 = lab.host().default_routes_v4()?;
    let shape: Vec<_> = v4
        .iter()
        .map(|r| {
            (
                r.interface.as_str(),
                r.metric,
                r.protocol.as_str(),
                r.gateway.is_some(),
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            ("dsl", 700, "dhcp", true),
            ("cable", 5000, "dhcp", true),
            ("lte", 5002, "dhcp", false),
        ]
    );
    assert_eq!(v4[1].source.as_deref(), Some("10.64.1.2"));
    let v6 = lab.host().default_routes_v6()?;
    assert_eq!(v6.len(), 3);
    assert_eq!(v6[0].gateway.as_deref(), Some("fe80::1"));
    assert_eq!(v6[0].protocol, "ra");

    for target in [TARGET_V4, TARGET_V6] {
        assert!(
            lab.client().ping(target, SOON)?.is_some(),
            "client to {target}"
        );
    }
    let names = lab.host().namespace().exec("ip", &["netns", "list"])?;
    assert!(names.contains(lab.host().namespace().name()), "{names}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn config_names_every_uplink_and_gateway() -> Scenario {
    let lab = Lab::builder()
        .uplinks([
            UplinkSpec::veth("cable"),
            UplinkSpec::tun("lte"),
            UplinkSpec::veth("sat").without_default_routes(),
        ])
        .build()?;
    let expected = "[probe]\ntargets = [\"192.0.2.1\"]\n\
        [[uplink]]\ninterface = \"cable\"\n\
        [[uplink]]\ninterface = \"lte\"\ngateway = \"none\"\ngateway6 = \"none\"\n\
        [[uplink]]\ninterface = \"sat\"\ngateway = \"10.64.3.1\"\ngateway6 = \"fe80::1\"\n";
    let config = lab.agent_config().targets([TARGET_V4]);
    assert_eq!(config.to_string(), expected);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_snapshot_shows_what_was_changed() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host();
    let before = host.snapshot()?;
    before.ensure_same(&host.snapshot()?)?;
    host.namespace()
        .ip_batch("rule add fwmark 5 table 77\nroute add default dev cable table 77")?;
    let changed = host.snapshot()?;
    let diff = before.diff(&changed);
    assert_eq!(diff.lines().len(), 2, "{diff}");
    assert!(before.ensure_same(&changed).is_err());
    host.namespace()
        .ip_batch("rule del fwmark 5 table 77\nroute del default dev cable table 77")?;
    before.ensure_same(&host.snapshot()?)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn namespaces_have_their_own_sysctls_and_commands_fail_loudly() -> Scenario {
    let lab = Lab::builder().build()?;
    let key = "net/ipv4/conf/cable/rp_filter";
    lab.host().namespace().set_sysctl(key, "1")?;
    assert_eq!(lab.host().namespace().sysctl(key)?, "1");
    assert_eq!(lab.host().namespace().sysctl("net/ipv4/ip_forward")?, "0");
    let provider = lab.uplink("cable").provider();
    assert_eq!(provider.sysctl("net/ipv4/ip_forward")?, "1");
    let error = provider
        .ip_batch("link set nosuch up")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("link set nosuch up") && error.contains("Cannot find device"),
        "{error}"
    );
    assert!(lab.host().namespace().nft("nonsense").is_err());
    Ok(())
}
