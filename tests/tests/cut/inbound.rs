//! Connections that come in by a standby uplink, as to a server that is reached over its second address.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use anyhow::Result;
use failover_lab::{Lab, Namespace, Scenario, Uplink, UplinkSpec};
use failover_tests::fixtures::SOON;

use super::{
    fixtures::{AT_ONCE, config, foreign_packets, start_with, wait_for_cut},
    sockets::{Pair, connect_from, wait_for_error},
};

/// Addresses beyond the uplink's on-link prefixes, which only its provider has.
const FAR: [&str; 2] = ["198.18.200.1", "2001:db8:fa::1"];

/// The host's addresses on an uplink with those of a host far away at its provider.
fn ends(uplink: &Uplink) -> Result<Vec<(IpAddr, IpAddr)>> {
    uplink.provider().ip_batch(&format!(
        "address add {}/32 dev lo\naddress add {}/128 dev lo nodad",
        FAR[0], FAR[1]
    ))?;
    let far = FAR.map(str::parse);
    let [v4, v6] = far;
    Ok(vec![(uplink.host_v4(), v4?), (uplink.host_v6(), v6?)])
}

/// Whether a UDP server on `address` can answer a host far away.
fn udp_is_answered(host: &Namespace, far: (&Namespace, IpAddr), address: IpAddr) -> Result<bool> {
    let server = host.run(|| Ok(UdpSocket::bind((address, 0))?))?;
    let client = far.0.run(|| Ok(UdpSocket::bind((far.1, 0))?))?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    }
    client.send_to(b"ping", server.local_addr()?)?;
    let (_, peer) = server.recv_from(&mut [0; 4])?;
    server.send_to(b"pong", peer)?;
    Ok(client.recv_from(&mut [0; 4]).is_ok())
}

#[test]
#[ignore = "needs root"]
fn kept_inbound_connections_are_answered_by_a_standby() -> Scenario {
    kept(["cable", "lte"].map(UplinkSpec::veth))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn kept_inbound_connections_are_answered_by_an_l3_standby() -> Scenario {
    kept(["cable", "lte"].map(UplinkSpec::tun))?;
    Ok(())
}

fn kept(uplinks: [UplinkSpec; 2]) -> Result<()> {
    let lab = Lab::builder().uplinks(uplinks).build()?;
    let config = config(&lab).uplink("lte", |lte| lte.inbound("keep"));
    let agent = start_with(&lab, &config)?;
    let (host, lte) = (lab.host().namespace(), lab.uplink("lte"));
    let mut pairs = Vec::new();
    for (address, far) in ends(lte)? {
        let far = (lte.provider(), far);
        let mut pair = Pair::connect((far.0, Some(far.1)), (host, address))?;
        pair.exchange()?;
        assert!(udp_is_answered(host, far, address)?, "{address}");
        pairs.push(pair);
    }
    // It becomes active and is left again: what came in by it stays, what the host began on it does not.
    agent.verb(&["switch", "lte"])?;
    wait_for_cut(&agent, "lte")?;
    let begun = lab.host().tcp_idle(failover_lab::TARGET_V4)?;
    for (address, far) in ends_again(lte)? {
        pairs.push(Pair::connect((lte.provider(), Some(far)), (host, address))?);
    }
    agent.verb(&["switch", "auto"])?;
    wait_for_cut(&agent, "cable")?;
    begun.wait_ended(AT_ONCE)?;
    for pair in &mut pairs {
        pair.exchange()?;
    }
    assert_eq!(foreign_packets(&lab)?, []);
    Ok(())
}

/// The same addresses, which are there by now.
fn ends_again(uplink: &Uplink) -> Result<Vec<(IpAddr, IpAddr)>> {
    let [v4, v6] = FAR.map(str::parse);
    Ok(vec![(uplink.host_v4(), v4?), (uplink.host_v6(), v6?)])
}

#[test]
#[ignore = "needs root"]
fn cut_inbound_connections_are_not_answered_by_a_standby() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = config(&lab).uplink("lte", |lte| lte.inbound("cut"));
    let agent = start_with(&lab, &config)?;
    let (host, lte) = (lab.host().namespace(), lab.uplink("lte"));
    for (address, far) in ends(lte)? {
        let listener = host.run(|| Ok(TcpListener::bind((address, 0))?))?;
        let server = SocketAddr::new(address, listener.local_addr()?.port());
        let far = (lte.provider(), far);
        let timeout = Duration::from_millis(500);
        assert!(connect_from(far.0, Some(far.1), server, timeout).is_err());
        assert!(!udp_is_answered(host, far, address)?, "{address}");
    }
    agent.verb(&["switch", "lte"])?;
    wait_for_cut(&agent, "lte")?;
    let mut pairs = Vec::new();
    for (address, far) in ends_again(lte)? {
        let mut pair = Pair::connect((lte.provider(), Some(far)), (host, address))?;
        pair.exchange()?;
        pairs.push(pair);
    }
    agent.verb(&["switch", "auto"])?;
    for pair in pairs {
        wait_for_error(SOON, || pair.server.take_error())?;
    }
    Ok(())
}
