//! The laboratory does what it says: its links, each fault, each client, captures, and that nothing stays behind.
//!
//! No agent takes part: where a test needs a failover it changes the route itself.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_tests::lab::{
    DISCARD_PORT, Direction, Lab, Shape, TARGET_V4, TARGET_V6, TARGETS_V4, TARGETS_V6, UplinkSpec,
    require_root, wait_until,
};

const SOON: Duration = Duration::from_secs(5);
/// Long enough for an answer on this machine, short enough to wait for its absence.
const PING: Duration = Duration::from_millis(300);

/// Whether the target answers when asked by this uplink.
fn answers(lab: &Lab, uplink: &str, target: IpAddr) -> bool {
    // An error, such as no route, is no answer either.
    matches!(lab.host().ping_by(uplink, target, PING), Ok(Some(_)))
}

/// Waits, since carrier changes reach the routes a moment later and the first packet may wait for ARP.
fn soon_answers(lab: &Lab, uplink: &str, target: IpAddr) -> Result<()> {
    wait_until(&format!("{target} answers by {uplink}"), SOON, || {
        answers(lab, uplink, target)
    })
}

/// Makes an uplink the best one, as somebody who swaps metrics would.
fn prefer(lab: &Lab, uplink: &str) -> Result<()> {
    let gateway = lab.uplink(uplink).addresses().gateway_v4;
    lab.host().namespace().ip_batch(&format!(
        "route replace default via {gateway} dev {uplink} metric 5"
    ))
}

#[test]
fn every_target_answers_by_every_uplink_in_both_families() -> Result<()> {
    if !require_root("every_target_answers_by_every_uplink_in_both_families") {
        return Ok(());
    }
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
            assert!(answers(&lab, uplink, target), "{target} by {uplink}");
        }
    }
    let sat = lab.uplink("sat").addresses();
    assert!(answers(&lab, "sat", sat.gateway_v4.into()));
    assert!(answers(&lab, "sat", sat.gateway_v6.into()));

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
            ("cable", 100, "dhcp", true),
            ("lte", 102, "dhcp", false),
            ("dsl", 700, "dhcp", true),
        ]
    );
    assert_eq!(v4[0].source.as_deref(), Some("10.64.1.2"));
    let v6 = lab.host().default_routes_v6()?;
    assert_eq!(v6.len(), 3);
    assert_eq!(v6[0].gateway.as_deref(), Some("fe80::1"));
    assert_eq!(v6[0].protocol, "ra");

    for target in [TARGET_V4, TARGET_V6] {
        assert!(
            lab.client().ping(target, PING)?.is_some(),
            "client to {target}"
        );
    }
    let names = lab.host().namespace().exec("ip", &["netns", "list"])?;
    assert!(names.contains(lab.host().namespace().name()), "{names}");
    Ok(())
}

#[test]
fn config_names_every_uplink_and_gateway() -> Result<()> {
    if !require_root("config_names_every_uplink_and_gateway") {
        return Ok(());
    }
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
    assert_eq!(lab.config("targets = [\"192.0.2.1\"]"), expected);
    Ok(())
}

#[test]
fn forwarding_faults_hit_what_they_say_and_nothing_else() -> Result<()> {
    if !require_root("forwarding_faults_hit_what_they_say_and_nothing_else") {
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    let cable = lab.uplink("cable");
    let gateway = cable.addresses().gateway_v4.into();
    let others = TARGETS_V4[1].into();

    let fault = cable.blackhole()?;
    for target in [TARGET_V4, TARGET_V6, others] {
        assert!(!answers(&lab, "cable", target), "{target} in a blackhole");
        assert!(answers(&lab, "lte", target), "{target} by the other uplink");
    }
    assert!(answers(&lab, "cable", gateway), "the gateway itself");
    assert!(carrier(&lab, "cable")?);
    fault.repair()?;
    assert!(answers(&lab, "cable", TARGET_V4));

    for target in [TARGET_V4, TARGET_V6] {
        let fault = cable.towards(target).blackhole()?;
        assert!(!answers(&lab, "cable", target));
        assert!(answers(&lab, "cable", others));
        drop(fault);
        assert!(answers(&lab, "cable", target), "repaired by being dropped");
    }

    let all = cable.unreachable()?;
    let begun = Instant::now();
    assert!(!answers(&lab, "cable", TARGET_V4));
    assert!(!answers(&lab, "cable", TARGET_V6));
    assert!(begun.elapsed() >= PING);
    let routes = cable.provider().exec("ip", &["route"])?;
    assert!(routes.contains("unreachable default"), "{routes}");
    all.repair()?;
    let one = cable.towards(TARGET_V4).unreachable()?;
    assert!(!answers(&lab, "cable", TARGET_V4));
    assert!(answers(&lab, "cable", others));
    one.repair()?;
    assert!(answers(&lab, "cable", TARGET_V4));
    Ok(())
}

#[test]
fn an_unreachable_route_is_told_to_who_connects() -> Result<()> {
    if !require_root("an_unreachable_route_is_told_to_who_connects") {
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    let _fault = lab.uplink("cable").unreachable()?;
    for target in [TARGET_V4, TARGET_V6] {
        let error = lab.host().tcp_idle(target).unwrap_err();
        let error: &std::io::Error = error.downcast_ref().unwrap();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            ),
            "{target}: {error}"
        );
    }
    Ok(())
}

#[test]
fn one_way_loss_loses_one_way() -> Result<()> {
    if !require_root("one_way_loss_loses_one_way") {
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    for (direction, arrive) in [(Direction::Out, false), (Direction::In, true)] {
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
        let fault = lab.uplink("cable").one_way_loss(direction)?;
        let before = stream.report();
        wait_until("more is sent", SOON, || {
            stream.report().sent() >= before.sent() + 40
        })?;
        let during = stream.report();
        let arrived = lab
            .servers()
            .arrivals(stream.id())
            .iter()
            .filter(|arrival| arrival.at > fault.since())
            .count();
        // What was on its way when the fault began may still be answered.
        assert!(during.answered() <= before.answered() + 3, "{direction:?}");
        assert_eq!(arrived > 20, arrive, "{direction:?}: {arrived} arrived");
        fault.repair()?;
    }
    Ok(())
}

#[test]
fn percentage_loss_loses_about_that_much() -> Result<()> {
    if !require_root("percentage_loss_loses_about_that_much") {
        return Ok(());
    }
    let lab = Lab::builder()
        .uplinks([UplinkSpec::tun("lte"), UplinkSpec::veth("cable")])
        .build()?;
    let by_filter = lab.uplink("cable").loss(30)?;
    let by_relay = lab.uplink("lte").shape(Shape {
        loss_percent: 30,
        ..Shape::default()
    })?;
    for (uplink, fault) in [("lte", by_relay), ("cable", by_filter)] {
        if uplink == "cable" {
            prefer(&lab, uplink)?;
        }
        let stream = lab
            .host()
            .udp_stream(TARGET_V4)
            .every(Duration::from_millis(1))
            .start()?;
        wait_until("500 datagrams are sent", SOON * 2, || {
            stream.report().sent() >= 500
        })?;
        let report = stream.stop()?;
        assert_eq!(report.path(), [uplink]);
        // 1 - 0.7², ± 5 standard deviations.
        let lost = report.sent() - report.answered();
        let share = lost as f64 / report.sent() as f64;
        assert!((0.40..=0.62).contains(&share), "{uplink}: {share}");
        fault.repair()?;
    }
    assert!(
        lab.uplink("lte")
            .relay_counts()
            .is_some_and(|counts| counts.lost > 100)
    );
    Ok(())
}

/// What the kernel says of an interface's carrier.
fn carrier(lab: &Lab, interface: &str) -> Result<bool> {
    let link = lab
        .host()
        .namespace()
        .exec("ip", &["link", "show", interface])?;
    Ok(link.contains("LOWER_UP"))
}

#[test]
fn link_faults_come_and_go_and_leave_everything_as_it_was() -> Result<()> {
    if !require_root("link_faults_come_and_go_and_leave_everything_as_it_was") {
        return Ok(());
    }
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    let before = lab.host().snapshot()?;
    for name in ["cable", "lte"] {
        let uplink = lab.uplink(name);
        for admin in [false, true] {
            let fault = if admin {
                uplink.admin_down()?
            } else {
                uplink.carrier_down()?
            };
            wait_until("the carrier is gone", SOON, || {
                carrier(&lab, name).is_ok_and(|carrier| !carrier)
            })?;
            let routes = lab.host().default_routes_v4()?;
            assert_eq!(routes.len(), if admin { 1 } else { 2 }, "{routes:?}");
            assert!(!answers(&lab, name, TARGET_V4));
            fault.repair()?;
            soon_answers(&lab, name, TARGET_V4)?;
            soon_answers(&lab, name, TARGET_V6)?;
            wait_until("all is as it was", SOON, || {
                lab.host().snapshot().is_ok_and(|now| now == before)
            })
            .or_else(|_| before.ensure_same(&lab.host().snapshot()?))?;
        }
    }

    let fault = lab.uplink("cable").gateway_gone()?;
    let gateway = lab.uplink("cable").addresses().gateway_v4.into();
    assert!(carrier(&lab, "cable")?);
    assert!(!answers(&lab, "cable", gateway));
    assert!(!answers(&lab, "cable", TARGET_V4));
    lab.host()
        .namespace()
        .exec("ip", &["neighbour", "flush", "dev", "cable"])?;
    assert!(!answers(&lab, "cable", gateway), "not even ARP");
    fault.repair()?;
    soon_answers(&lab, "cable", TARGET_V4)?;
    assert!(lab.uplink("lte").gateway_gone().is_err());
    Ok(())
}

#[test]
fn the_relay_delays() -> Result<()> {
    if !require_root("the_relay_delays") {
        return Ok(());
    }
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    let delay = Duration::from_millis(60);
    let rtt = |target| lab.host().ping_by("lte", target, SOON);
    assert!(rtt(TARGET_V4)?.is_some_and(|rtt| rtt < delay * 2));
    let fault = lab.uplink("lte").shape(Shape {
        delay,
        jitter: Duration::from_millis(20),
        loss_percent: 0,
    })?;
    for target in [TARGET_V4, TARGET_V6] {
        assert!(rtt(target)?.is_some_and(|rtt| rtt >= delay * 2));
    }
    fault.repair()?;
    assert!(rtt(TARGET_V4)?.is_some_and(|rtt| rtt < delay * 2));
    assert!(lab.uplink("cable").delay(delay).is_err());
    Ok(())
}

#[test]
fn a_stream_tells_by_which_uplink_it_went_and_how_long_it_was_cut() -> Result<()> {
    if !require_root("a_stream_tells_by_which_uplink_it_went_and_how_long_it_was_cut") {
        return Ok(());
    }
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
        let gap = report.longest_gap().unwrap();
        assert!(gap.duration() >= outage, "{gap:?}");
        assert!(report.lost() >= 10, "{} lost", report.lost());
        let (record, echo) = report.first_echo_by("lte", gap.from).unwrap();
        assert_eq!(
            echo.source.ip(),
            IpAddr::from(lab.uplink("lte").addresses().public_v4)
        );
        assert_eq!(gap.until, echo.at);
        assert!(record.sent > gap.from);
    }
    // FIELD: a connected socket keeps its source, and so stays dead on the new uplink; its provider saw the foreign source.
    let report = connected.stop()?;
    assert_eq!(report.path(), ["cable"]);
    assert!(lab.uplink("lte").foreign_packets()? > 0);
    assert_eq!(lab.uplink("cable").foreign_packets()?, 0);
    Ok(())
}

#[test]
fn tcp_clients_note_how_their_connection_ends() -> Result<()> {
    if !require_root("tcp_clients_note_how_their_connection_ends") {
        return Ok(());
    }
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
fn a_capture_counts_every_packet() -> Result<()> {
    if !require_root("a_capture_counts_every_packet") {
        return Ok(());
    }
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

#[test]
fn a_snapshot_shows_what_was_changed() -> Result<()> {
    if !require_root("a_snapshot_shows_what_was_changed") {
        return Ok(());
    }
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
    before.ensure_same(&host.snapshot()?)
}

#[test]
fn namespaces_have_their_own_sysctls_and_commands_fail_loudly() -> Result<()> {
    if !require_root("namespaces_have_their_own_sysctls_and_commands_fail_loudly") {
        return Ok(());
    }
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
