//! Nothing leaves with a foreign source, whatever is sent while the uplinks change.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_lab::{
    Capture, DISCARD_PORT, LAN_CLIENT_V4, LAN_CLIENT_V6, Lab, Node, Scenario, TARGET_V4, TARGET_V6,
    TcpClient, Uplink, UplinkSpec,
};
use failover_tests::fixtures::{SOON, counters};

use super::fixtures::{foreign_packets, start, wait_for_cut};

/// Failovers and failbacks in a row.
const ROUNDS: usize = 3;

#[test]
#[ignore = "needs root"]
fn no_packet_has_a_foreign_source_however_often_the_uplinks_change() -> Scenario {
    no_foreign_source(["cable", "lte"].map(UplinkSpec::veth))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn no_packet_has_a_foreign_source_on_l3_uplinks() -> Scenario {
    no_foreign_source(["cable", "lte"].map(UplinkSpec::tun))?;
    Ok(())
}

/// Whatever a provider may not see from its customer: the other uplinks' addresses and the LAN's.
fn watch(lab: &Lab, uplink: &Uplink) -> Result<Capture> {
    let others = lab
        .uplinks()
        .iter()
        .filter(|other| other.name() != uplink.name());
    let mut foreign: Vec<IpAddr> = others.flat_map(|o| [o.host_v4(), o.host_v6()]).collect();
    foreign.extend([IpAddr::from(LAN_CLIENT_V4), LAN_CLIENT_V6.into()]);
    let hosts: Vec<String> = foreign
        .iter()
        .map(|host| format!("src host {host}"))
        .collect();
    let file = lab
        .agent_dirs()
        .scratch
        .join(format!("{}.pcap", uplink.name()));
    uplink.capture(&hosts.join(" or "), &file)
}

fn connections(node: &Node) -> Result<Vec<TcpClient>> {
    let mut clients = Vec::new();
    for target in [TARGET_V4, TARGET_V6] {
        clients.push(node.tcp_stream(target, Duration::from_millis(5))?);
        clients.push(node.tcp_bulk(target)?);
        clients.push(node.tcp_idle(target)?);
    }
    Ok(clients)
}

fn no_foreign_source(uplinks: [UplinkSpec; 2]) -> Result<()> {
    let lab = Lab::builder().uplinks(uplinks).lan().build()?;
    // As OpenWrt has it: the kernel would send on, untranslated, a FIN whose connection tracking does not know it.
    lab.host().namespace().nft(
        "table inet lan {
             chain no_untranslated {
                 type filter hook forward priority filter
                 ct state invalid drop
             }
         }",
    )?;
    let agent = start(&lab)?;
    let captures: Vec<Capture> = lab
        .uplinks()
        .iter()
        .map(|uplink| watch(&lab, uplink))
        .collect::<Result<_>>()?;
    let mut streams = Vec::new();
    for node in [lab.host(), lab.client()] {
        for target in [TARGET_V4, TARGET_V6] {
            streams.push(node.udp_stream(target).start()?);
            streams.push(node.udp_stream(target).connected().start()?);
        }
    }
    // Applications that hold on to the address of one uplink.
    for uplink in lab.uplinks() {
        for (target, source) in [(TARGET_V4, uplink.host_v4()), (TARGET_V6, uplink.host_v6())] {
            streams.push(lab.host().udp_stream(target).from(source).start()?);
        }
    }
    let cable = lab.uplink("cable");
    for round in 0..ROUNDS {
        let mut clients = connections(lab.host())?;
        clients.extend(connections(lab.client())?);
        // Once the uplink goes on to work, which is when what leaves by it arrives.
        let fault = if round % 2 == 0 {
            Some(cable.blackhole()?)
        } else {
            agent.verb(&["drill", "cable", "--for", "1h"])?;
            None
        };
        wait_for_cut(&agent, "lte")?;
        ended(&clients)?;
        let mut clients = connections(lab.host())?;
        clients.extend(connections(lab.client())?);
        match fault {
            Some(fault) => drop(fault.repair()?),
            None => drop(agent.verb(&["switch", "auto"])?),
        }
        wait_for_cut(&agent, "cable")?;
        ended(&clients)?;
    }
    streams[0].wait_for_echo_by("cable", Instant::now(), SOON)?;

    for (uplink, capture) in lab.uplinks().iter().zip(captures) {
        let lines = capture.finish()?.lines("")?;
        assert!(lines.is_empty(), "by {}: {lines:#?}", uplink.name());
    }
    assert_eq!(foreign_packets(&lab)?, []);
    let cut = counters(&agent, "cable")?.cut_packets + counters(&agent, "lte")?.cut_packets;
    assert!(cut > 0, "nothing was cut: the traffic proves nothing");
    Ok(())
}

/// Those that send have learned by now that they are cut; an idle one behind a router cannot.
fn ended(clients: &[TcpClient]) -> Result<()> {
    for client in clients {
        let state = client.state();
        let sends = state.sent_bytes > 0 || state.peer.port() == DISCARD_PORT;
        if sends {
            client.wait_ended(SOON)?;
        }
    }
    Ok(())
}
