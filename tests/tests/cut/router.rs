//! Clients behind the host, which forwards for them.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_lab::{
    Arrival, ECHO_PORT, LAN_CLIENT_V4, LAN_CLIENT_V6, Lab, Scenario, TARGET_V4, TARGET_V6,
    UdpStream, UplinkSpec, wait_for,
};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, status};

use super::{
    fixtures::{AT_ONCE, fail_over, foreign_packets, start},
    sockets::{connect_from, error_of_sending},
};

#[test]
#[ignore = "needs root"]
fn clients_behind_masquerade_learn_at_their_next_packet() -> Scenario {
    clients_learn(["cable", "lte"].map(UplinkSpec::veth), &Nat::Masquerade)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn clients_behind_static_snat_learn_at_their_next_packet() -> Scenario {
    clients_learn(["cable", "lte"].map(UplinkSpec::veth), &Nat::Static)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn clients_behind_static_snat_on_l3_uplinks_learn_at_their_next_packet() -> Scenario {
    clients_learn(["cable", "lte"].map(UplinkSpec::tun), &Nat::Static)?;
    Ok(())
}

/// How the host translates what it forwards.
enum Nat {
    /// The address of the interface: the kernel itself forgets a flow whose route leads elsewhere.
    Masquerade,
    /// An address written down for each interface: the kernel goes on with it wherever the route leads.
    Static,
}

impl Nat {
    fn set_up(&self, lab: &Lab) -> Result<()> {
        if matches!(self, &Nat::Masquerade) {
            return Ok(()); // As the laboratory is built.
        }
        let rules: String = lab
            .uplinks()
            .iter()
            .map(|uplink| {
                let (name, a) = (uplink.name(), uplink.addresses());
                format!(
                    "oifname {name} ip saddr {LAN_CLIENT_V4} snat ip to {}\n\
                     oifname {name} ip6 saddr {LAN_CLIENT_V6} snat ip6 to {}\n",
                    a.host_v4, a.host_v6
                )
            })
            .collect();
        lab.host().namespace().nft(&format!(
            "delete table inet lan
             table inet lan {{
                 chain nat {{
                     type nat hook postrouting priority srcnat
                     {rules}
                 }}
             }}"
        ))
    }
}

fn clients_learn(uplinks: [UplinkSpec; 2], nat: &Nat) -> Result<()> {
    let lab = Lab::builder().uplinks(uplinks).lan().build()?;
    nat.set_up(&lab)?;
    let agent = start(&lab)?;
    let client = lab.client();
    let mut flows = Vec::new();
    for target in [TARGET_V4, TARGET_V6] {
        let sending = client.tcp_stream(target, Duration::from_millis(10))?;
        let bulk = client.tcp_bulk(target)?;
        let server = SocketAddr::new(target, ECHO_PORT);
        let quiet = connect_from(client.namespace(), None, server, SOON)?;
        let udp = client.udp_stream(target).connected().start()?;
        sending.wait_received_after(Instant::now(), SOON)?;
        udp.wait_for_echo_by("cable", Instant::now(), SOON)?;
        flows.push((sending, bulk, quiet, udp));
    }

    let _fault = fail_over(&lab, &agent, "cable", "lte")?;
    let cut = Instant::now();
    for (sending, bulk, mut quiet, udp) in flows {
        for tcp in [&sending, &bulk] {
            let ended = tcp.wait_ended(AT_ONCE)?;
            let kind = ended.error.map(|error| error.kind);
            assert_eq!(kind, Some(ErrorKind::ConnectionReset), "{ended:?}");
        }
        assert_eq!(
            error_of_sending(&mut quiet, AT_ONCE)?,
            ErrorKind::ConnectionReset
        );
        udp.wait_for_echo_by("lte", cut, SOON)?;
        goes_on_by_lte(&lab, &udp, cut)?;
    }
    if matches!(nat, Nat::Static) {
        let switches = status(&agent)?.switches;
        for family in Family::ALL {
            let switch = switches.iter().find(|switch| switch.family == family);
            let deleted = switch.and_then(|switch| switch.flows_deleted);
            assert!(deleted >= Some(1), "{family}: {deleted:?}");
        }
    }
    assert_eq!(foreign_packets(&lab)?, []);
    // A new connection is carried by the new uplink.
    let again = client.tcp_stream(TARGET_V4, Duration::from_millis(10))?;
    again.wait_received_after(Instant::now(), SOON)?;
    let connections = lab.servers().connections();
    let newest = connections
        .last()
        .and_then(|newest| newest.uplink.as_deref());
    assert_eq!(newest, Some("lte"));
    Ok(())
}

/// Every datagram that a client has sent after the cut, the next one included, has come to the server by the new uplink.
fn goes_on_by_lte(lab: &Lab, udp: &UdpStream, cut: Instant) -> Result<()> {
    let sent: Vec<u64> = {
        let records = udp.report().records;
        let after = records.iter().filter(|record| record.sent > cut);
        after.map(|record| record.sequence).collect()
    };
    let Some((&next, &last)) = sent.first().zip(sent.last()) else {
        panic!("nothing was sent");
    };
    let arrivals = wait_for("the last datagram arrives", SOON, || {
        let arrivals = lab.servers().arrivals(udp.id());
        let arrived = arrivals.iter().any(|arrival| arrival.sequence == last);
        if arrived { Ok(arrivals) } else { Err(last) }
    })?;
    let after: Vec<&Arrival> = arrivals
        .iter()
        .filter(|arrival| (next..=last).contains(&arrival.sequence))
        .collect();
    assert_eq!(after.len(), sent.len(), "{next}..={last}: {after:?}");
    let lte = lab.uplink("lte").addresses();
    for arrival in after {
        let source: IpAddr = arrival.source.ip();
        assert!(lte.is_origin(source), "{arrival:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn client_on_an_uplink_that_still_works_is_told_at_once() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let agent = start(&lab)?;
    let client = lab.client();
    let sending = client.tcp_stream(TARGET_V4, Duration::from_millis(10))?;
    sending.wait_received_after(Instant::now(), SOON)?;
    agent.verb(&["switch", "lte"])?;
    let ended = sending.wait_ended(AT_ONCE)?;
    let kind = ended.error.map(|error| error.kind);
    assert_eq!(kind, Some(ErrorKind::ConnectionReset), "{ended:?}");
    assert_eq!(foreign_packets(&lab)?, []);
    Ok(())
}
