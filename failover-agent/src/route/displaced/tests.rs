use std::fs;

use failover_policy::Family;
use rtnetlink::packet_route::route::{RouteAttribute, RouteCacheInfo, RouteProtocol};

use super::*;
use crate::route::message::Hop;

/// A default route of the loopback interface, which every namespace has.
fn route(family: Family, protocol: RouteProtocol, gateway: &str, metric: u32) -> RouteMessage {
    let hop = Hop {
        ifindex: 1,
        gateway: Some(gateway.parse().unwrap()),
        onlink: false,
    };
    let everywhere = (message::everywhere(family), 0);
    message::unicast(family, 254, u8::from(protocol), everywhere, hop, metric)
}

fn dhcp(gateway: &str, metric: u32) -> RouteMessage {
    route(Family::V4, RouteProtocol::Dhcp, gateway, metric)
}

/// Advertised by a router, with so many ticks left.
fn advertised(router: &str, ticks: i32) -> RouteMessage {
    let mut route = route(Family::V6, RouteProtocol::Ra, router, 40);
    // `struct rta_cacheinfo`: its third word is the lifetime.
    let mut words = [0; 32];
    words[8..12].copy_from_slice(&ticks.to_ne_bytes());
    let info = RouteCacheInfo::parse(&words).unwrap();
    route.attributes.push(RouteAttribute::CacheInfo(info));
    route
}

fn displaced(directory: &std::path::Path) -> Displaced {
    Displaced::load(&Store::from(directory))
}

fn texts(displaced: &Displaced) -> Vec<String> {
    let routes = displaced.routes();
    routes.iter().map(message::describe).collect()
}

#[test]
fn a_newer_word_of_the_same_owner_ends_the_record_and_what_stood_beside_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (low, high) = (dhcp("192.0.2.1", 20), dhcp("192.0.2.1", 700));
    let others = [
        route(Family::V4, RouteProtocol::Static, "192.0.2.9", 30),
        route(Family::V6, RouteProtocol::Dhcp, "2001:db8::1", 30),
    ];
    let mut first = displaced(dir.path());
    first.record(std::slice::from_ref(&low), &[low.clone(), high.clone()]);
    first.observe(others.iter().chain([&high]));
    assert_eq!(texts(&first), [message::describe(&low)]);
    // A later run knows as much.
    let mut later = displaced(dir.path());
    later.observe(others.iter().chain([&high]));
    assert_eq!(texts(&later), [message::describe(&low)]);
    for (what, newer) in [
        ("another metric", dhcp("192.0.2.1", 701)),
        ("another gateway", dhcp("192.0.2.254", 700)),
        ("the same", low.clone()),
    ] {
        let mut now = displaced(dir.path());
        now.observe([&high, &newer].into_iter());
        assert_eq!(texts(&now), [""; 0], "{what}");
        now.record(std::slice::from_ref(&low), &[low.clone(), high.clone()]);
    }
    // One that stood beside and was gone meanwhile is said anew.
    let mut now = displaced(dir.path());
    now.observe(others.iter());
    assert_eq!(texts(&now), [message::describe(&low)]);
    now.observe([&high].into_iter());
    assert_eq!(texts(&now), [""; 0]);
    assert!(!dir.path().join(FILE).exists());
}

#[test]
fn routes_that_are_displaced_together_do_not_end_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let both = [dhcp("192.0.2.1", 20), dhcp("192.0.2.2", 30)];
    let mut displaced = displaced(dir.path());
    displaced.record(&both, &both);
    displaced.observe([].into_iter());
    assert_eq!(texts(&displaced).len(), 2);
    // The client renews one of them.
    displaced.observe([&both[1]].into_iter());
    assert_eq!(texts(&displaced), [message::describe(&both[0])]);
    displaced.record(&both[1..], &both[1..]);
    assert_eq!(texts(&displaced).len(), 2);
}

#[test]
fn a_lease_ends_what_was_recorded_of_a_link_local_address() {
    let dir = tempfile::tempdir().unwrap();
    let source = |mut route: RouteMessage, source: &str| {
        let source: std::net::IpAddr = source.parse().unwrap();
        route
            .attributes
            .push(RouteAttribute::PrefSource(source.into()));
        route
    };
    let link_local = || {
        let boot = route(Family::V4, RouteProtocol::Boot, "169.254.0.1", 20);
        source(boot, "169.254.7.7")
    };
    let lease = source(dhcp("192.0.2.1", 700), "192.0.2.7");
    let mut displaced = displaced(dir.path());
    displaced.record(&[link_local()], &[link_local()]);
    displaced.observe([&lease].into_iter());
    assert_eq!(texts(&displaced), [""; 0]);
    // Not the other way round: a lease is more than the absence of one.
    displaced.record(std::slice::from_ref(&lease), std::slice::from_ref(&lease));
    displaced.observe([&link_local()].into_iter());
    assert_eq!(texts(&displaced), [message::describe(&lease)]);
}

#[test]
fn each_router_speaks_for_itself_and_its_lifetime_goes_on_while_it_is_displaced() {
    let dir = tempfile::tempdir().unwrap();
    let routers = [advertised("fe80::1", 300_000), advertised("fe80::2", 2)];
    let over = advertised("fe80::3", -100);
    let mut first = displaced(dir.path());
    let standing = [routers[0].clone(), routers[1].clone(), over.clone()];
    first.record(&standing, &standing);
    // What is over is nobody's any more.
    assert_eq!(texts(&first).len(), 2);
    first.observe([&over].into_iter());
    std::thread::sleep(Duration::from_millis(60));
    let mut later = displaced(dir.path());
    let lifetimes = |displaced: &Displaced| -> Vec<Option<Duration>> {
        displaced.routes().iter().map(message::lifetime).collect()
    };
    let left = lifetimes(&later);
    let first_left = left[0].unwrap();
    assert!(first_left < Duration::from_secs(3000), "{left:?}");
    assert!(first_left > Duration::from_secs(2900), "{left:?}");
    assert_eq!(left[1], Some(Duration::ZERO));
    later.observe([].into_iter());
    assert_eq!(lifetimes(&later).len(), 1);
    // It advertises itself again.
    later.observe([&routers[0]].into_iter());
    assert_eq!(texts(&later), [""; 0]);
}

#[test]
fn lifetimes_are_put_back_as_they_are() {
    let expires = |route: &RouteMessage| -> Option<u32> {
        let attributes = message::reinstall(route).attributes;
        attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Expires(seconds) => Some(*seconds),
            _ => None,
        })
    };
    for (ticks, seconds) in [
        (0, None),
        (1, Some(1)),
        (300_000, Some(3000)),
        (-1, Some(0)),
        (i32::MIN, Some(0)),
    ] {
        assert_eq!(expires(&advertised("fe80::1", ticks)), seconds, "{ticks}");
    }
}

#[test]
fn a_damaged_entry_is_set_aside_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let both = [dhcp("192.0.2.1", 20), dhcp("192.0.2.2", 30)];
    displaced(dir.path()).record(&both, &both);
    let path = dir.path().join(FILE);
    let record = fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&record).unwrap();
    json["routes"][0]["message"] = "0z".into();
    fs::write(&path, json.to_string()).unwrap();
    assert_eq!(texts(&displaced(dir.path())), [message::describe(&both[1])]);
    let aside = dir.path().join("displaced.json.damaged");
    assert_eq!(fs::read_to_string(aside).unwrap(), json.to_string());
    assert_eq!(texts(&displaced(dir.path())), [message::describe(&both[1])]);
}

#[test]
fn what_cannot_be_read_is_no_loss_before_something_else_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (there, away) = (dir.path().join("run"), dir.path().join("away"));
    let route = dhcp("192.0.2.1", 20);
    displaced(&there).record(std::slice::from_ref(&route), &[]);
    // A file in place of the directory says nothing about what is in there.
    fs::rename(&there, &away).unwrap();
    fs::write(&there, "").unwrap();
    let mut unread = displaced(&there);
    let error = unread.catch_up(Patience::Last).unwrap_err().to_string();
    assert!(error.contains("displaced.json: "), "{error}");
    unread.observe([].into_iter());
    unread.retain(&[]);
    assert!(texts(&unread).is_empty());

    fs::remove_file(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    unread.catch_up(Patience::Last).unwrap();
    assert_eq!(texts(&unread), [message::describe(&route)]);
    assert_eq!(texts(&displaced(&there)), [message::describe(&route)]);
}
