//! Addresses that an uplink has lost, and that live behind this host now.

use std::{net::IpAddr, time::Instant};

use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6};
use failover_tests::fixtures::{SOON, counters, stop, wait_for_status, wait_sent};

use super::fixtures::start;

/// An address beside the uplink's own, in its network.
fn beside(own: IpAddr) -> IpAddr {
    match own {
        IpAddr::V4(own) => {
            let [a, b, c, _] = own.octets();
            [a, b, c, 50].into()
        }
        IpAddr::V6(own) => {
            let mut segments = own.segments();
            segments[7] = 0x50;
            segments.into()
        }
    }
}

#[test]
#[ignore = "needs root"]
fn an_address_that_moved_behind_this_host_is_not_stale() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let (host, client) = (lab.host().namespace(), lab.client().namespace());
    let cable = lab.uplink("cable");
    let [v4, v6] = [beside(cable.host_v4()), beside(cable.host_v6())];
    host.ip_batch(&format!(
        "address add {v4}/24 dev cable\naddress add {v6}/64 dev cable nodad"
    ))?;
    let agent = start(&lab)?;
    host.ip_batch(&format!(
        "address del {v4}/24 dev cable\naddress del {v6}/64 dev cable"
    ))?;
    client.ip_batch(&format!(
        "address add {v4}/32 dev eth0\naddress add {v6}/128 dev eth0 nodad"
    ))?;
    let stream = |from: IpAddr| {
        let target = if from.is_ipv4() { TARGET_V4 } else { TARGET_V6 };
        lab.client().udp_stream(target).from(from).start()
    };
    // Nobody has said that they live there: what bears them is stale, a restart later, too.
    for restarted in [false, true] {
        if restarted {
            agent.verb(&["restart"])?;
            wait_for_status(&agent, "a new start", |status| {
                status.active.as_deref() == Some("cable")
            })?;
        }
        for from in [v4, v6] {
            let before = counters(&agent, "cable")?.stale_cut;
            let stream = stream(from)?;
            wait_sent(&stream, 20)?;
            wait_for_status(&agent, &format!("packets of {from} cut as stale"), |_| {
                counters(&agent, "cable").is_ok_and(|now| now.stale_cut > before)
            })?;
            assert_eq!(stream.stop()?.answered(), 0, "{from}");
        }
    }
    // A routed address, and one that this host answers for.
    host.set_sysctl("net/ipv4/conf/cable/proxy_arp", "1")?;
    host.set_sysctl("net/ipv6/conf/cable/proxy_ndp", "1")?;
    host.ip_batch(&format!(
        "route add {v4}/32 dev lan\nroute add {v6}/128 dev lan\nneigh add proxy {v6} dev cable"
    ))?;
    for from in [v4, v6] {
        let since = Instant::now();
        let stream = stream(from)?;
        stream.wait_for_echo_by("cable", since, SOON)?;
        stream.stop()?;
    }
    agent.wait_for_line("that they are no longer stale", SOON, |line| {
        line.text
            .contains(&format!("{v6}, which an uplink has lost, is routed to lan"))
    })?;
    stop(agent)?;
    Ok(())
}

/// Packets to it are routed by a rule for what arrives on the uplink, which a packet of this host's own does not follow.
#[test]
#[ignore = "needs root"]
fn an_address_that_this_host_answers_for_is_not_stale() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let (host, client) = (lab.host().namespace(), lab.client().namespace());
    let cable = lab.uplink("cable");
    let [v4, v6] = [beside(cable.host_v4()), beside(cable.host_v6())];
    host.set_sysctl("net/ipv6/conf/cable/proxy_ndp", "1")?;
    host.ip_batch(&format!(
        "address add {v4}/24 dev cable\naddress add {v6}/64 dev cable nodad"
    ))?;
    let agent = start(&lab)?;
    host.ip_batch(&format!(
        "address del {v4}/24 dev cable\naddress del {v6}/64 dev cable\n\
         route add {v4}/32 dev lan table 77\nroute add {v6}/128 dev lan table 77"
    ))?;
    for (flag, address) in [("-4", v4), ("-6", v6)] {
        let rule = format!("{flag} rule add iif cable to {address} lookup 77");
        host.exec("ip", &rule.split(' ').collect::<Vec<_>>())?;
    }
    client.ip_batch(&format!(
        "address add {v4}/32 dev eth0\naddress add {v6}/128 dev eth0 nodad"
    ))?;
    for (from, target) in [(v4, TARGET_V4), (v6, TARGET_V6)] {
        let before = counters(&agent, "cable")?.stale_cut;
        let stream = lab.client().udp_stream(target).from(from).start()?;
        wait_for_status(&agent, &format!("packets of {from} cut as stale"), |_| {
            counters(&agent, "cable").is_ok_and(|now| now.stale_cut > before)
        })?;
        host.ip_batch(&format!("neigh add proxy {from} dev cable"))?;
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
        agent.wait_for_line("that it is no longer stale", SOON, |line| {
            let what = format!("{from}, which an uplink has lost, is answered for on cable");
            line.text.contains(&what)
        })?;
        stream.stop()?;
    }
    stop(agent)?;
    Ok(())
}
