//! What stays reachable by an uplink whose gate is closed.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_ebpf::Gate;
use failover_lab::{
    ECHO_PORT, Lab, Node, Scenario, TARGETS_V4, TARGETS_V6, UplinkSpec, wait_until,
};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, gate, status};

use super::{
    fixtures::{AT_ONCE, config, foreign_packets, start, start_with, wait_for_cut},
    sockets::{Pair, connect_from},
};

/// How long an answer is waited for that is not to come.
const FORCED: Duration = Duration::from_millis(50);

#[test]
#[ignore = "needs root"]
fn gateway_of_a_standby_stays_reachable() -> Scenario {
    let lab = Lab::builder()
        .uplinks([
            UplinkSpec::veth("cable"),
            UplinkSpec::veth("lte"),
            UplinkSpec::tun("sat"),
        ])
        .build()?;
    let agent = start(&lab)?;
    for name in ["lte", "sat"] {
        let lte = lab.uplink(name);
        let a = lte.addresses();
        for (family, gateway, target) in [
            (
                Family::V4,
                IpAddr::from(a.gateway_v4),
                IpAddr::from(TARGETS_V4[0]),
            ),
            (Family::V6, a.gateway_v6.into(), TARGETS_V6[0].into()),
        ] {
            assert_eq!(gate(&status(&agent)?, name, family), Some(Gate::Closed));
            assert_eq!(lab.host().ping_by(name, target, FORCED)?, None, "{name}");
            answers_by(lab.host(), name, gateway)?;
            // A modem's own page.
            let mut page =
                Pair::connect((lab.host().namespace(), None), (lte.provider(), gateway))?;
            page.exchange()?;
        }
    }
    assert_eq!(foreign_packets(&lab)?, []);
    Ok(())
}

fn answers_by(node: &Node, uplink: &str, target: IpAddr) -> Result<()> {
    wait_until(&format!("{target} answers by {uplink}"), SOON, || {
        let rtt = node.ping_by(uplink, target, Duration::from_millis(250));
        rtt.is_ok_and(|rtt| rtt.is_some())
    })
}

#[test]
#[ignore = "needs root"]
fn connection_to_the_gateway_survives_the_cut() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let cable = lab.uplink("cable");
    let a = cable.addresses();
    let mut pairs = Vec::new();
    for gateway in [IpAddr::from(a.gateway_v4), a.gateway_v6.into()] {
        let mut page = Pair::connect((lab.host().namespace(), None), (cable.provider(), gateway))?;
        page.exchange()?;
        pairs.push(page);
    }
    agent.verb(&["switch", "lte"])?;
    wait_for_cut(&agent, "lte")?;
    for mut page in pairs {
        page.exchange()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn allowed_prefix_stays_reachable_by_every_uplink() -> Scenario {
    let lab = Lab::builder().build()?;
    let (host, lte) = (lab.host(), lab.uplink("lte"));
    let allowed: [IpAddr; 2] = [TARGETS_V4[2].into(), TARGETS_V6[2].into()];
    let cut: [IpAddr; 2] = [TARGETS_V4[0].into(), TARGETS_V6[0].into()];
    let one = format!("{}/128", TARGETS_V6[2]);
    let agent = start_with(&lab, &config(&lab).allow(&["203.0.113.0/24", &one]))?;
    for family in Family::ALL {
        assert_eq!(gate(&status(&agent)?, "lte", family), Some(Gate::Closed));
    }
    let sources = [lte.host_v4(), lte.host_v6()];
    for ((allowed, cut), source) in allowed.into_iter().zip(cut).zip(sources) {
        answers_by(host, "lte", allowed)?;
        assert_eq!(host.ping_by("lte", cut, FORCED)?, None);
        let connect = |target| {
            let server = SocketAddr::new(target, ECHO_PORT);
            connect_from(host.namespace(), Some(source), server, AT_ONCE)
        };
        connect(allowed)?;
        assert!(connect(cut).is_err());
    }

    // A connection to an allowed prefix that was begun on the uplink goes on by it after it was cut.
    let connection = host.tcp_stream(allowed[0], Duration::from_millis(20))?;
    let other = host.tcp_stream(cut[0], Duration::from_millis(20))?;
    agent.verb(&["switch", "lte"])?;
    wait_for_cut(&agent, "lte")?;
    other.wait_ended(AT_ONCE)?;
    connection.wait_received_after(Instant::now(), SOON)?;
    Ok(())
}
