//! Sockets of the host itself.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use failover_agent::control::{Answer, Event, Reason};
use failover_ebpf::Gate;
use failover_lab::{
    ECHO_PORT, Lab, Scenario, TARGET_V4, TARGET_V6, TARGETS_V4, TARGETS_V6, Uplink, UplinkSpec,
    agent_path, wait_for,
};
use failover_policy::Family;
use failover_tests::fixtures::{SOON, counters, gate, status, uplink, wait_for_status};

use super::{
    fixtures::{AT_ONCE, fail_over, foreign_packets, start},
    sockets::{Pair, assert_cut, half_open, refusal_by, wait_for_error},
};

#[test]
#[ignore = "needs root"]
fn sockets_on_the_lost_uplink_end_at_once() -> Scenario {
    sockets_end(Family::V4, ["cable", "lte"].map(UplinkSpec::veth))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn ipv6_sockets_on_the_lost_uplink_end_at_once() -> Scenario {
    sockets_end(Family::V6, ["cable", "lte"].map(UplinkSpec::veth))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn sockets_on_a_lost_l3_uplink_end_at_once() -> Scenario {
    sockets_end(Family::V4, ["cable", "lte"].map(UplinkSpec::tun))?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn ipv6_sockets_on_a_lost_l3_uplink_end_at_once() -> Scenario {
    sockets_end(Family::V6, ["cable", "lte"].map(UplinkSpec::tun))?;
    Ok(())
}

fn address(uplink: &Uplink, family: Family) -> IpAddr {
    match family {
        Family::V4 => uplink.host_v4(),
        Family::V6 => uplink.host_v6(),
    }
}

fn sockets_end(family: Family, uplinks: [UplinkSpec; 2]) -> Result<()> {
    let (target, silent): (IpAddr, IpAddr) = match family {
        Family::V4 => (TARGET_V4, TARGETS_V4[2].into()),
        Family::V6 => (TARGET_V6, TARGETS_V6[2].into()),
    };
    let lab = Lab::builder().uplinks(uplinks).build()?;
    let agent = start(&lab)?;
    let (host, cable) = (lab.host(), lab.uplink("cable"));

    let sending = host.tcp_stream(target, Duration::from_millis(10))?;
    let idle = host.tcp_idle(target)?;
    let bulk = host.tcp_bulk(target)?;
    let _silence = cable.towards(silent).blackhole()?;
    let connecting = half_open(host.namespace(), SocketAddr::new(silent, ECHO_PORT))?;
    let listener = host
        .namespace()
        .run(|| Ok(TcpListener::bind((address(cable, family), 0))?))?;
    let connected = host
        .udp_stream(target)
        .connected()
        .every(Duration::from_millis(50))
        .start()?;
    let quiet = host.namespace().run(|| {
        let socket = UdpSocket::bind((address(cable, family), 0))?;
        socket.connect((target, ECHO_PORT))?;
        Ok(socket)
    })?;
    let unconnected = host.udp_stream(target).start()?;
    sending.wait_received_after(Instant::now(), SOON)?;
    connected.wait_for_echo_by("cable", Instant::now(), SOON)?;
    wait_for("the bulk sender is at work", SOON, || {
        let sent = bulk.state().sent_bytes;
        (sent > 1_000_000).then_some(()).ok_or(sent)
    })?;

    let fault = fail_over(&lab, &agent, "cable", "lte")?;
    for (what, client) in [("sending", &sending), ("idle", &idle), ("bulk", &bulk)] {
        assert_cut(what, &client.wait_ended(AT_ONCE)?);
    }
    let error = wait_for_error(AT_ONCE, || connecting.take_error())?;
    assert!(
        matches!(
            error,
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted
        ),
        "{error:?}"
    );
    let error = wait_for_error(AT_ONCE, || quiet.take_error())?;
    assert_eq!(error, ErrorKind::ConnectionAborted);
    wait_for("the connected UDP socket learns of it", AT_ONCE, || {
        let failed = connected
            .report()
            .records
            .iter()
            .any(|r| r.send_error.is_some());
        let told = failed || !connected.errors().is_empty();
        told.then_some(()).ok_or("no error")
    })?;
    unconnected.wait_for_echo_by("lte", fault.since(), SOON)?;
    assert_eq!(unconnected.errors(), [], "a socket that is not connected");

    // Listening is no connection: whoever is on this host, for one, can still come.
    let server = listener.local_addr()?;
    let client = host
        .namespace()
        .run(|| Ok(std::net::TcpStream::connect_timeout(&server, AT_ONCE)?))?;
    assert_eq!(listener.accept()?.1, client.local_addr()?);

    let switch = status(&agent)?
        .switches
        .into_iter()
        .find(|s| s.family == family);
    let ended = switch.and_then(|switch| switch.sockets_ended);
    // Some may have been faster: reset by the gate.
    assert!(ended >= Some(2), "{ended:?}");
    assert_eq!(foreign_packets(&lab)?, []);
    // The new connections of an application that begins again.
    let again = host.tcp_stream(target, Duration::from_millis(10))?;
    again.wait_received_after(Instant::now(), SOON)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn what_is_cut_is_refused_counted_and_told() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let (host, cable, lte) = (lab.host(), lab.uplink("cable"), lab.uplink("lte"));
    for family in Family::ALL {
        let target = match family {
            Family::V4 => TARGET_V4,
            Family::V6 => TARGET_V6,
        };
        assert_eq!(gate(&status(&agent)?, "lte", family), Some(Gate::Closed));
        let before = counters(&agent, "lte")?;
        let server = SocketAddr::new(target, ECHO_PORT);

        // By the standby, with its own address: refused at once. With the other uplink's: nobody's right.
        let own = refusal_by(host.namespace(), "lte", address(lte, family), server)?;
        assert_eq!(own, ErrorKind::ConnectionRefused);
        let stale = refusal_by(host.namespace(), "lte", address(cable, family), server)?;
        assert_eq!(stale, ErrorKind::ConnectionRefused);
        let datagrams = host
            .udp_stream(target)
            .from(address(lte, family))
            .connected()
            .start()?;
        wait_for("ICMP reaches the UDP socket", AT_ONCE, || {
            let records = datagrams.report().records;
            let failed = records.iter().any(|r| r.send_error.is_some());
            let told = failed || !datagrams.errors().is_empty();
            told.then_some(()).ok_or("no error")
        })?;
        wait_for_status(&agent, "what was cut", |status| {
            let now = uplink(status, "lte").counters;
            now.resets_sent >= before.resets_sent + 2
                && now.stale_cut > before.stale_cut
                && now.icmp_sent > before.icmp_sent
                && now.cut_packets >= before.cut_packets + 3
        })?;

        for (source, reason) in [
            (address(lte, family), Reason::Gate),
            (address(cable, family), Reason::Stale),
        ] {
            let event = wait_for("the event is told", SOON, || {
                let told = events(&agent.verb(&["events", "--json"])?)?;
                let mut these = told.iter().filter(|event| {
                    event.protocol == 6 && event.source == source && event.destination == target
                });
                these.next().cloned().with_context(|| format!("{told:?}"))
            })?;
            assert_eq!(event.uplink, "lte");
            assert_eq!(event.family, family);
            assert_eq!(event.reason, reason);
            assert_eq!(event.answer, Answer::Reset);
            assert_eq!(event.destination_port, Some(ECHO_PORT));
        }
        let words = agent.verb(&["events"])?;
        assert!(words.contains("gate closed, reset"), "{words}");
        assert!(words.contains("answered by ICMP"), "{words}");
    }
    assert_eq!(foreign_packets(&lab)?, []);
    Ok(())
}

/// The events of `events --json`, one a line.
fn events(output: &str) -> Result<Vec<Event>> {
    let parse = |line| {
        let mut line: serde_json::Value = serde_json::from_str(line)?;
        Ok(serde_json::from_value(line["event"].take())?)
    };
    output.lines().map(parse).collect()
}

#[test]
#[ignore = "needs root"]
fn reset_ends_the_far_end_too() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab)?;
    let mut pair = Pair::connect(
        (lab.host().namespace(), None),
        (lab.internet().namespace(), TARGETS_V6[0].into()),
    )?;
    pair.exchange()?;
    // The uplink still works: what frees the far end can reach it.
    agent.verb(&["switch", "lte"])?;
    assert_eq!(
        wait_for_error(AT_ONCE, || pair.client.take_error())?,
        ErrorKind::ConnectionAborted
    );
    assert_eq!(
        wait_for_error(AT_ONCE, || pair.server.take_error())?,
        ErrorKind::ConnectionReset
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn events_are_followed_as_they_happen() -> Scenario {
    let lab = Lab::builder().build()?;
    let _agent = start(&lab)?;
    let host = lab.host().namespace();
    let mut reader = host
        .command(agent_path()?)
        .args(["events", "--follow"])
        .args(lab.agent_dirs().flags())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = reader.stdout.take().context("no standard output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // Nobody listens any more once it was told.
        lines.for_each(|line| drop(sender.send(line)));
    });
    let lte = lab.uplink("lte").host_v4();
    let server = SocketAddr::new(TARGET_V4, ECHO_PORT);
    refusal_by(host, "lte", lte, server)?;
    let told = wait_for("the event is told", SOON, || {
        let line = lines.try_recv().map_err(|error| error.to_string())?;
        let expected = line.contains("lte  TCP 10.64.2.2:")
            && line.ends_with("-> 192.0.2.1:7: gate closed, reset");
        if expected { Ok(()) } else { Err(line) }
    });
    reader.kill()?;
    reader.wait()?;
    told?;
    Ok(())
}
