//! Each fault does what it says, nothing else, and can be undone.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_lab::{
    Direction, Fault, Lab, Scenario, Shape, TARGET_V4, TARGET_V6, TARGETS_V4, UplinkSpec,
    wait_until,
};

use super::{SOON, answers, prefer, soon_answers};

/// What the kernel says of an interface's carrier.
fn carrier(lab: &Lab, interface: &str) -> Result<bool> {
    let link = lab
        .host()
        .namespace()
        .exec("ip", &["link", "show", interface])?;
    Ok(link.contains("LOWER_UP"))
}

#[test]
#[ignore = "needs root"]
fn forwarding_faults_hit_what_they_say_and_nothing_else() -> Scenario {
    let lab = Lab::builder().build()?;
    let cable = lab.uplink("cable");
    let gateway = cable.addresses().gateway_v4.into();
    let others = TARGETS_V4[1].into();

    let fault = cable.blackhole()?;
    for target in [TARGET_V4, TARGET_V6, others] {
        assert!(!answers(&lab, "cable", target), "{target} in a blackhole");
        soon_answers(&lab, "lte", target)?;
    }
    soon_answers(&lab, "cable", gateway)?;
    assert!(carrier(&lab, "cable")?);
    fault.repair()?;
    soon_answers(&lab, "cable", TARGET_V4)?;

    for target in [TARGET_V4, TARGET_V6] {
        let fault = cable.towards(target).blackhole()?;
        assert!(!answers(&lab, "cable", target));
        soon_answers(&lab, "cable", others)?;
        // Dropping repairs too.
        drop(fault);
        soon_answers(&lab, "cable", target)?;
    }

    let all = cable.unreachable()?;
    assert!(!answers(&lab, "cable", TARGET_V4));
    assert!(!answers(&lab, "cable", TARGET_V6));
    let routes = cable.provider().exec("ip", &["route"])?;
    assert!(routes.contains("unreachable default"), "{routes}");
    all.repair()?;
    let one = cable.towards(TARGET_V4).unreachable()?;
    assert!(!answers(&lab, "cable", TARGET_V4));
    soon_answers(&lab, "cable", others)?;
    one.repair()?;
    soon_answers(&lab, "cable", TARGET_V4)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_unreachable_route_is_told_to_who_connects() -> Scenario {
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
#[ignore = "needs root"]
fn one_way_loss_loses_one_way() -> Scenario {
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
#[ignore = "needs root"]
fn percentage_loss_loses_about_that_much() -> Scenario {
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

#[test]
#[ignore = "needs root"]
fn link_faults_come_and_go_and_leave_everything_as_it_was() -> Scenario {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    let before = lab.host().snapshot()?;
    for name in ["cable", "lte"] {
        let uplink = lab.uplink(name);
        let repair = |fault: Fault| {
            fault.repair()?;
            soon_answers(&lab, name, TARGET_V4)?;
            soon_answers(&lab, name, TARGET_V6)?;
            wait_until("all is as it was", SOON, || {
                lab.host().snapshot().is_ok_and(|now| now == before)
            })
            .or_else(|_| before.ensure_same(&lab.host().snapshot()?))
        };
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
            repair(fault)?;
        }
        let fault = uplink.lease_over()?;
        assert!(carrier(&lab, name)?);
        assert!(!answers(&lab, name, TARGET_V4));
        assert!(!answers(&lab, name, TARGET_V6));
        repair(fault)?;
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
#[ignore = "needs root"]
fn the_relay_delays() -> Scenario {
    let lab = Lab::builder()
        .uplinks([UplinkSpec::veth("cable"), UplinkSpec::tun("lte")])
        .build()?;
    let delay = Duration::from_millis(60);
    let rtt = |target| lab.host().ping_by("lte", target, SOON);
    let at_once = || {
        wait_until("an answer comes at once", SOON, || {
            rtt(TARGET_V4).is_ok_and(|rtt| rtt.is_some_and(|rtt| rtt < delay * 2))
        })
    };
    at_once()?;
    let fault = lab.uplink("lte").shape(Shape {
        delay,
        jitter: Duration::from_millis(20),
        loss_percent: 0,
    })?;
    for target in [TARGET_V4, TARGET_V6] {
        assert!(rtt(target)?.is_some_and(|rtt| rtt >= delay * 2));
    }
    fault.repair()?;
    at_once()?;
    assert!(lab.uplink("cable").delay(delay).is_err());
    Ok(())
}
