//! What becomes of a packet that must not leave: in each family, and of stale ones from the start on.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6, TARGETS_V4, TARGETS_V6, wait_for};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, stop, wait_for_active, wait_for_status};
use socket2::{Domain, Socket, Type};

use super::fixtures::{config, start_with};

/// How a connection from this address ends that is forced out by an interface. Nobody out there refuses one: whoever does is the gate.
fn forced(lab: &Lab, interface: &str, from: IpAddr, to: IpAddr) -> Result<ErrorKind> {
    lab.host().namespace().run(|| {
        let from = SocketAddr::new(from, 0);
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&from.into())?;
        let to = SocketAddr::new(to, 9).into();
        let error = socket
            .connect_timeout(&to, Duration::from_millis(300))
            .err();
        Ok(error.map_or(ErrorKind::Other, |error| error.kind()))
    })
}

/// Waits until such connections of both families end so.
fn wait_for_ends(lab: &Lab, interface: &str, of: &str, expected: [ErrorKind; 2]) -> Result<()> {
    let of = lab.uplink(of);
    wait_for(&format!("{expected:?} by {interface}"), SOON, || {
        let ends = [
            forced(lab, interface, of.host_v4(), TARGETS_V4[1].into()),
            forced(lab, interface, of.host_v6(), TARGETS_V6[1].into()),
        ];
        match ends {
            [Ok(v4), Ok(v6)] if [v4, v6] == expected => Ok(()),
            ends => Err(format!("{ends:?}")),
        }
    })
}

const REFUSED: ErrorKind = ErrorKind::ConnectionRefused;
const SILENT: ErrorKind = ErrorKind::TimedOut;

#[test]
#[ignore = "needs root"]
fn stale_packets_follow_the_mode_from_the_start_on() -> Scenario {
    let lab = Lab::builder().build()?;
    let mode = |mode: &str| config(&lab).mode(mode);
    let mut agent = start_with(&lab, &mode("reset"))?;
    // `cable` has been active since the start: nothing was ever cut on it.
    wait_for_ends(&lab, "cable", "lte", [REFUSED; 2])?;
    lab.write_config(&mode("drop"))?;
    agent.verb(&["reload"])?;
    wait_for_ends(&lab, "cable", "lte", [SILENT; 2])?;
    lab.write_config(&mode("reset"))?;
    agent.verb(&["restart"])?;
    wait_for_ends(&lab, "cable", "lte", [REFUSED; 2])?;
    // After a crash with another file, too.
    agent.kill9()?;
    let agent = start_with(&lab, &mode("drop"))?;
    wait_for_ends(&lab, "cable", "lte", [SILENT; 2])?;
    stop(agent)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_cut_of_one_family_leaves_the_mode_of_the_other() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = config(&lab).targets([TARGET_V4, TARGET_V6]);
    let config = config.failover("drop").failback("reset");
    let agent = lab.start_agent(&config)?;
    wait_for_active(&agent, "cable")?;
    // At the start, in the mode of a failover.
    wait_for_ends(&lab, "lte", "lte", [SILENT; 2])?;
    for (family, target) in [(Family::V4, TARGET_V4), (Family::V6, TARGET_V6)] {
        let fault = lab.uplink("cable").towards(target).blackhole()?;
        wait_for_status(&agent, &format!("{family} by lte"), |status| {
            status
                .active_in(family)
                .is_some_and(|active| active.name == "lte")
        })?;
        fault.repair()?;
        wait_for_active(&agent, "cable")?;
        // First one family fails back, then the other.
        let expected = match family {
            Family::V4 => [REFUSED, SILENT],
            Family::V6 => [REFUSED; 2],
        };
        wait_for_ends(&lab, "lte", "lte", expected)?;
    }
    stop(agent)?;
    Ok(())
}
