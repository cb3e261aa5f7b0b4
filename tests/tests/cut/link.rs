//! The link itself goes: what was begun on it ends all the same, although its addresses may be gone by then.

use std::time::Instant;

use anyhow::Result;
use failover_lab::{Fault, Lab, Scenario, TARGET_V4, TARGET_V6, TcpClient, UdpStream, Uplink};
use failover_policy::Health;
use failover_tests::fixtures::{uplink, wait_for_status};

use super::{
    fixtures::{AT_ONCE, WHILE, foreign_packets, start, wait_for_cut},
    sockets::assert_cut,
};

#[test]
#[ignore = "needs root"]
fn sockets_end_when_the_carrier_is_lost() -> Scenario {
    sockets_end(Uplink::carrier_down)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn sockets_end_when_the_interface_is_set_down() -> Scenario {
    sockets_end(Uplink::admin_down)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn sockets_end_when_the_interface_is_unplugged() -> Scenario {
    sockets_end(Uplink::unplug)?;
    Ok(())
}

fn sockets_end(fail: impl Fn(&Uplink) -> Result<Fault>) -> Result<()> {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    // The second time all is as it was at first.
    for _ in 0..2 {
        let idle = [TARGET_V4, TARGET_V6].map(|target| lab.host().tcp_idle(target));
        let idle: Vec<TcpClient> = idle.into_iter().collect::<Result<_>>()?;
        let fault = fail(lab.uplink("cable"))?;
        wait_for_cut(&agent, "lte")?;
        for client in &idle {
            let what = format!("idle with {}", client.state().peer);
            assert_cut(&what, &client.wait_ended(AT_ONCE)?);
        }
        fault.repair()?;
        wait_for_cut(&agent, "cable")?;
    }
    assert_eq!(foreign_packets(&lab)?, []);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn addresses_of_an_uplink_that_was_set_down_leave_by_no_other() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let cable = lab.uplink("cable");
    // Applications that insist: the IPv4 address stays, and no check of the kernel's knows that the IPv6 one has gone.
    let bound = [(TARGET_V4, cable.host_v4()), (TARGET_V6, cable.host_v6())]
        .map(|(target, source)| lab.host().udp_stream(target).from(source).start());
    let bound: Vec<UdpStream> = bound.into_iter().collect::<Result<_>>()?;
    let fault = cable.admin_down()?;
    wait_for_cut(&agent, "lte")?;
    std::thread::sleep(WHILE);
    assert_eq!(foreign_packets(&lab)?, []);
    // An agent that is restarted knows them, too.
    agent.verb(&["restart"])?;
    std::thread::sleep(WHILE);
    assert_eq!(foreign_packets(&lab)?, []);
    let tried = wait_for_status(&agent, "the attempts are counted", |status| {
        uplink(status, "lte").counters.stale_cut > 0
    })?;
    assert_eq!(uplink(&tried, "lte").health, Health::Up);
    fault.repair()?;
    wait_for_cut(&agent, "cable")?;
    for stream in &bound {
        stream.wait_for_echo_by("cable", Instant::now(), AT_ONCE)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn sockets_of_an_unplugged_uplink_end_when_another_comes_up() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let idle = [TARGET_V4, TARGET_V6].map(|target| lab.host().tcp_idle(target));
    let idle: Vec<TcpClient> = idle.into_iter().collect::<Result<_>>()?;
    let outage = lab.uplink("lte").blackhole()?;
    wait_for_status(&agent, "lte Down", |status| {
        uplink(status, "lte").health == Health::Down
    })?;
    // An application that holds on to an address which is no longer there.
    let cable = lab.uplink("cable");
    let bound = [(TARGET_V4, cable.host_v4()), (TARGET_V6, cable.host_v6())]
        .map(|(target, source)| lab.host().udp_stream(target).from(source).start());
    let _bound: Vec<UdpStream> = bound.into_iter().collect::<Result<_>>()?;
    let _unplugged = cable.unplug()?;
    wait_for_status(&agent, "cable Down", |status| {
        uplink(status, "cable").health == Health::Down
    })?;
    std::thread::sleep(WHILE);
    for client in &idle {
        assert_eq!(client.state().ended, None, "there is nothing better");
    }
    outage.repair()?;
    wait_for_cut(&agent, "lte")?;
    for client in &idle {
        let what = format!("idle with {}", client.state().peer);
        assert_cut(&what, &client.wait_ended(AT_ONCE)?);
    }
    assert_eq!(foreign_packets(&lab)?, []);
    Ok(())
}
