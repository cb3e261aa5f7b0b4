//! Clients, servers and captures.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use failover_lab::{DISCARD_PORT, Lab, Scenario, TARGET_V4, TARGET_V6, wait_until};

use super::{SOON, prefer};

#[test]
#[ignore = "needs root"]
fn a_stream_tells_by_which_uplink_it_went_and_how_long_it_was_cut() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    let streams = [
        lab.host().udp_stream(TARGET_V4).start()?,
        lab.client().udp_stream(TARGET_V4).start()?,
    ];
    let bound = lab
        .host()
        .udp_stream(TARGET_V6)
        .from(lab.uplink("cable").host_v6())
        .start()?;
    let connected = lab.host().udp_stream(TARGET_V4).connected().start()?;
    for stream in streams.iter().chain([&bound, &connected]) {
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    }
    assert_eq!(connected.local().ip(), lab.uplink("cable").host_v4());

    let fault = lab.uplink("cable").blackhole()?;
    let broken = fault.since();
    let outage = Duration::from_millis(300);
    std::thread::sleep(outage);
    prefer(&lab, "lte")?;
    let switched = Instant::now();
    for stream in &streams {
        stream.wait_for_echo_by("lte", switched, SOON)?;
    }
    fault.repair()?;
    for stream in streams {
        let report = stream.stop()?;
        assert_eq!(report.path(), ["cable", "lte"]);
        let (record, echo) = report.first_echo_by("lte", broken).unwrap();
        let public: IpAddr = lab.uplink("lte").addresses().public_v4.into();
        assert_eq!(echo.source.ip(), public);
        assert!(record.sent > broken);
        let gap = report.longest_gap_between(broken, echo.at).unwrap();
        assert_eq!(gap.until, echo.at);
        // Less than all of it, since an echo may have been on its way when the link broke.
        assert!(gap.duration() >= outage / 2, "{gap:?}");
        assert!(report.lost() > 0);
    }
    // A connected socket keeps its source, and so stays dead on the new uplink; its provider saw the foreign source.
    let report = connected.stop()?;
    assert_eq!(report.path(), ["cable"]);
    assert!(lab.uplink("lte").foreign_packets()? > 0);
    assert_eq!(lab.uplink("cable").foreign_packets()?, 0);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn tcp_clients_note_how_their_connection_ends() -> Scenario {
    let lab = Lab::builder().lan().build()?;
    for target in [TARGET_V4, TARGET_V6] {
        let steady = lab.client().tcp_stream(target, Duration::from_millis(10))?;
        steady.wait_received_after(Instant::now(), SOON)?;
        assert!(steady.state().ended.is_none());
        drop(steady);
        wait_until("the server sees the client close", SOON, || {
            lab.servers().connections().iter().any(|connection| {
                connection.target.ip() == target
                    && connection.bytes > 0
                    && matches!(connection.ended, Some(Ok(_)))
                    && connection.uplink.as_deref() == Some("cable")
            })
        })?;

        let clients = [
            lab.host().tcp_stream(target, Duration::from_millis(10))?,
            lab.host().tcp_idle(target)?,
            lab.host().tcp_bulk(target)?,
        ];
        wait_until("megabytes are swallowed", SOON, || {
            lab.servers().connections().iter().any(|connection| {
                connection.target == SocketAddr::new(target, DISCARD_PORT)
                    && connection.bytes > 1 << 20
            })
        })?;
        // The kernel's own way to end a socket (SOCK_DESTROY).
        let peer = match target {
            IpAddr::V4(target) => target.to_string(),
            IpAddr::V6(target) => format!("[{target}]"),
        };
        lab.host().namespace().exec("ss", &["-K", "dst", &peer])?;
        for client in clients {
            let ended = client.wait_ended(SOON)?;
            let error = ended.error.unwrap();
            assert_eq!(error.kind, ErrorKind::ConnectionAborted);
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_capture_counts_every_packet() -> Scenario {
    let lab = Lab::builder().build()?;
    let file = lab.agent_dirs().scratch.join("cable.pcap");
    let before = lab.host().counters("cable")?;
    let capture = lab.host().capture("cable", "udp port 7", &file)?;
    let stream = lab
        .host()
        .udp_stream(TARGET_V4)
        .every(Duration::from_micros(500))
        .start()?;
    wait_until("1000 datagrams are sent", SOON, || {
        stream.report().sent() >= 1000
    })?;
    let report = stream.stop()?;
    let capture = capture.finish()?;
    assert_eq!(capture.count("dst host 192.0.2.1")?, report.sent());
    assert_eq!(capture.count("src host 192.0.2.1")?, report.answered());
    assert_eq!(capture.count("")?, report.sent() + report.answered());
    assert!(capture.count("no such filter").is_err());
    let after = lab.host().counters("cable")?;
    assert!(after.tx_packets - before.tx_packets >= report.sent() as u64);
    assert!(after.rx_bytes > before.rx_bytes);
    Ok(())
}
