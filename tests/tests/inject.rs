//! Calls that fail: those whose failure once ended the agent. `cargo xtask inject` lets all kinds fail.
#![cfg(target_arch = "x86_64")]

use std::env;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use failover_lab::Scenario;
use failover_tests::inject::{Arguments, run};

/// So many calls fail: half a minute.
const SAMPLE: &str = "12";

/// Injections by their names.
fn survives(names: &[&str]) -> Result<()> {
    inject(&["inject", "--jobs", "2"], names)
}

/// The same where the agent itself goes on.
fn goes_on(names: &[&str]) -> Result<()> {
    inject(&["inject", "--jobs", "2", "--uninterrupted"], names)
}

fn inject(command: &[&str], names: &[&str]) -> Result<()> {
    let only = names.iter().flat_map(|name| ["--only", name]);
    run(Arguments::try_parse_from(
        command.iter().copied().chain(only),
    )?)
}

/// Other calls in every run; `INJECT_SEED`, which is printed, chooses the same ones again.
#[test]
#[ignore = "needs root"]
fn a_sample_of_failing_calls_is_survived() -> Scenario {
    let seed = match env::var("INJECT_SEED") {
        Ok(text) => text.parse().context("INJECT_SEED")?,
        Err(_) => fastrand::u64(..),
    };
    let settings = ["plain", "clsact", "group"];
    let setting = settings[fastrand::Rng::with_seed(seed).usize(..settings.len())];
    println!("INJECT_SEED={seed}");
    let command = format!("inject --setting {setting} --jobs 2 --sample {SAMPLE} --seed {seed}");
    run(Arguments::try_parse_from(command.split(' '))?)?;
    Ok(())
}

/// For as long as the disk hangs, the reset waits for the record of displaced routes.
#[test]
#[ignore = "needs root"]
fn a_record_that_is_read_late_is_no_loss() -> Scenario {
    survives(&[
        "plain/reset/first/hang/file open run",
        "plain/start/first/hang/file open run",
    ])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_start_goes_on_after_a_refusal_of_the_moment() -> Scenario {
    goes_on(&[
        "plain/start/first/ENOMEM/bpf MAP_UPDATE_ELEM SETTINGS",
        "plain/start/last/ENOMEM/bpf MAP_CREATE",
        "plain/start/first/EBUSY/netlink route RTM_GETLINK dump",
        "plain/start/first/ENOMEM/bind unix",
    ])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn refused_notifications_end_nothing() -> Scenario {
    survives(&[
        "plain/reload/first/EPERM/setsockopt netlink notifications",
        "plain/switch/first/ENOMEM/receive netlink notifications",
    ])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_refused_thread_ends_nothing() -> Scenario {
    survives(&[
        "plain/start/first/EAGAIN/clone",
        "plain/switch/first/EAGAIN/clone",
    ])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn what_a_stop_could_not_remove_a_reset_removes() -> Scenario {
    survives(&[
        "plain/stop/last/EROFS/file unlink run",
        "plain/stop/first/EPERM/ioctl 0x8933",
        "clsact/stop/first/EPERM/netlink route RTM_DELTFILTER",
    ])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_gate_that_could_not_be_set_is_tried_again() -> Scenario {
    survives(&[
        "plain/switch/first/EPERM/bpf MAP_UPDATE_ELEM UPLINKS",
        "plain/switch/last/ENOMEM/bpf MAP_UPDATE_ELEM UPLINKS",
    ])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_socket_that_could_not_be_registered_is_tried_again() -> Scenario {
    survives(&[
        "plain/start/last/ENOMEM/bpf MAP_UPDATE_ELEM PROBES",
        "plain/start/last/ENOMEM/bpf MAP_UPDATE_ELEM ECHOES",
        "plain/start/last/ENOBUFS/getsockopt icmp v4",
    ])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_qdisc_of_an_interface_that_could_not_be_noted_is_no_others() -> Scenario {
    survives(&[
        "clsact/start/first/ENOMEM/bpf MAP_UPDATE_ELEM COUNTERS",
        "clsact/start/first/EPERM/bpf MAP_UPDATE_ELEM UPLINKS",
    ])?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_switch_that_netlink_refuses_in_the_middle_leaves_gates_as_the_routes_are() -> Scenario {
    survives(&[
        "plain/switch/first/ENOBUFS/netlink route RTM_NEWROUTE main v4",
        "plain/switch/last/EPERM/netlink route RTM_NEWROUTE main v4",
        "plain/switch/first/EPERM/netlink route RTM_NEWROUTE main v6",
        "plain/switch/last/ENOBUFS/netlink route RTM_NEWROUTE main v6",
    ])?;
    Ok(())
}

/// The group that is left stands as nexthop objects in IPv4, as one multipath route in IPv6.
#[test]
#[ignore = "needs root"]
fn a_group_stands_again_after_a_switch_that_netlink_refuses_in_the_middle() -> Scenario {
    survives(&[
        "group/switch/first/ENOBUFS/netlink route RTM_NEWROUTE main v4",
        "group/switch/last/EPERM/netlink route RTM_NEWROUTE main v4",
        "group/switch/first/EPERM/netlink route RTM_NEWROUTE main v6",
        "group/switch/last/EPERM/netlink route RTM_DELNEXTHOP",
    ])?;
    Ok(())
}
