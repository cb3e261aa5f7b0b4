//! A status in which every field is filled, for tests.

use std::time::{Duration, SystemTime};

use failover_ebpf::Gate;
use failover_policy::{Cause, Family, Health};

use super::events::{Answer, Event, Reason};
use super::status::{
    Agent, Conflict, Counters, Families, FamilyState, ForeignDefault, ForeignEffect, Hook, Lease,
    Log, Programs, Status, Switch, Timeline, Uplink, UplinkParts, VERSION,
};

/// 2026-01-02T03:04:05.000006Z.
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_323_045_000_006)
}

fn state(health: Health, seconds: u64, active: bool) -> FamilyState {
    FamilyState {
        gateway: None,
        source: Some([192, 0, 2, 7].into()),
        health,
        reason: None,
        since: now() - Duration::from_secs(seconds),
        rtt_ms: Some(41.268),
        loss_pct: Some(1.7),
        gate: Gate::Open,
        active,
        manual_override: false,
        draining_s: None,
    }
}

/// `cable` is Down in IPv4 and active in IPv6, `lte` is active in IPv4 and has no IPv6.
pub(super) fn status() -> Status {
    let started = now() - Duration::from_secs(7400);
    let cable = UplinkParts {
        name: "cable".to_owned(),
        interface: "eth0".to_owned(),
        rank: 0,
        metered: false,
        drill_s: None,
        programs: Programs {
            hook: Some(Hook::Tcx),
            reason: None,
        },
        counters: Counters::default(),
        families: Families {
            ipv4: Some(FamilyState {
                gateway: Some([192, 0, 2, 1].into()),
                rtt_ms: None,
                loss_pct: Some(100.0),
                gate: Gate::Closed,
                ..state(Health::Down, 90, false)
            }),
            ipv6: Some(state(Health::Up, 7400, true)),
        },
    };
    let lte = UplinkParts {
        name: "lte".to_owned(),
        interface: "wwan0".to_owned(),
        rank: 1,
        metered: true,
        drill_s: None,
        programs: Programs::default(),
        counters: Counters {
            cut_packets: 7,
            cut_bytes: 4_242,
            last_rx_ms_ago: Some(210),
            ..Counters::default()
        },
        families: Families {
            ipv4: Some(state(Health::Up, 7400, true)),
            ipv6: None,
        },
    };
    let failover = Switch {
        at: now() - Duration::from_secs(90),
        family: Family::V4,
        from: Some("cable".to_owned()),
        to: "lte".to_owned(),
        cause: Cause::Failover,
        confirmed: true,
        sockets_ended: Some(3),
        flows_deleted: None,
        timeline: Timeline {
            detected_us: 0,
            decided_us: 4,
            routed_us: Some(812),
            gated_us: Some(830),
            cut_us: Some(2100),
        },
    };
    let startup = Switch {
        at: started,
        from: None,
        to: "cable".to_owned(),
        cause: Cause::Startup,
        confirmed: false,
        sockets_ended: None,
        timeline: Timeline {
            routed_us: None,
            gated_us: None,
            cut_us: None,
            ..failover.timeline
        },
        ..failover.clone()
    };
    Status {
        version: VERSION,
        at: now(),
        primary: Family::V4,
        active: Some("lte".to_owned()),
        uplinks: [cable, lte]
            .map(|parts| Uplink::new(parts, Family::V4, started))
            .into(),
        switches: vec![failover, startup],
        conflicts: vec![Conflict {
            contender: "NetworkManager".to_owned(),
            family: Family::V4,
            what: "adds default routes that beat the agent's".to_owned(),
            repairs: 17,
            since: now() - Duration::from_secs(60),
            remedy: "`nmcli connection modify ID ipv4.route-metric 700`".to_owned(),
        }],
        foreign_defaults: vec![ForeignDefault {
            family: Family::V4,
            route: "default via 10.9.0.1 dev vpn0 proto static metric 50".to_owned(),
            rejects: false,
            effect: ForeignEffect::InFront,
            uplink: "lte".to_owned(),
            wanted_metric: None,
            metric: 80,
        }],
        lease: Lease {
            duration_ms: 3000,
            remaining_ms: Some(2100),
        },
        log: Log::default(),
        agent: Agent {
            version: "0.1.0".to_owned(),
            pid: 4711,
            instance: "8d1f0c6e2b7a9435".to_owned(),
            started,
            uptime_s: 7400,
            config: None,
        },
    }
}

/// A TCP connection that was reset; `port` distinguishes it from others.
pub(super) fn event(port: u16) -> Event {
    Event {
        at: now(),
        uplink: "cable".to_owned(),
        family: Family::V4,
        protocol: 6,
        source: [192, 0, 2, 7].into(),
        source_port: Some(port),
        destination: [203, 0, 113, 5].into(),
        destination_port: Some(443),
        reason: Reason::Gate,
        answer: Answer::Reset,
    }
}
