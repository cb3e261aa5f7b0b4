//! What the kernel has of the programs is read back, and put back.

use failover_policy::{Family, PerFamily};
use std::{fs, net::UdpSocket, time::Duration};

use failover_agent::{
    config::AttachMode,
    datapath::{CutMode, Datapath, Gate, Hook, LinkLayer, Verdict},
};

use crate::{
    lab::{Lab, Peer, lab, modes, quiet_uplink, sh, until, uplink},
    packets::ethernet,
    verdicts::{udp4, udp6, verdict},
};

/// A datagram to the peer's discard port.
fn send() {
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    socket.send_to(b"datagram", "10.0.0.2:9").unwrap();
}

/// Whether the closed gate cuts.
fn cuts(datapath: &Datapath) -> bool {
    let cut = || datapath.counters(uplink()).unwrap().cut_packets;
    let before = cut();
    send();
    cut() > before
}

fn closed(lab: &Lab, mode: AttachMode) -> Datapath {
    let mut datapath = lab.open(mode);
    datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
    datapath.renew_lease(Duration::from_secs(3600)).unwrap();
    datapath
        .set_gate(uplink(), Family::V4, Gate::Closed)
        .unwrap();
    datapath
}

/// Something is missing, with these words; attaching puts it back, with gates and counters as they were.
fn mended(datapath: &mut Datapath, words: &str) {
    let missing = datapath.missing(uplink()).unwrap().unwrap_or_default();
    assert!(missing.contains(words), "{words}: {missing}");
    let attached = datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
    assert!(!attached.adopted, "{words}");
    assert_eq!(datapath.missing(uplink()).unwrap(), None, "{words}");
    assert_eq!(datapath.gates(uplink()).unwrap().v4, Gate::Closed);
    assert!(cuts(datapath), "{words}");
}

#[test]
#[ignore = "needs root"]
fn tcx_links_that_another_program_detaches_or_unpins() {
    lab(|lab| {
        let _peer = Peer::connect();
        let mut datapath = closed(lab, AttachMode::Tcx);
        assert_eq!(datapath.missing(uplink()).unwrap(), None);
        let pin = |direction: &str| {
            let name = format!("links/{}-{direction}", uplink());
            lab.bpf.join(name).display().to_string()
        };
        for direction in ["egress", "ingress"] {
            sh(&format!("bpftool link detach pinned {}", pin(direction)));
            mended(&mut datapath, &format!("{direction} program"));
            fs::remove_file(pin(direction)).unwrap();
            until("the kernel frees the link", || {
                let missing = datapath.missing(uplink()).unwrap();
                missing.is_some_and(|missing| missing.contains("detached"))
            });
            mended(&mut datapath, &format!("{direction} program"));
        }
        // Everything at once, with the pins of the maps.
        fs::remove_dir_all(&lab.bpf).unwrap();
        datapath.pin_maps().unwrap();
        until("the kernel frees the links", || {
            let missing = datapath.missing(uplink()).unwrap();
            missing.is_some_and(|missing| missing.contains("detached"))
        });
        mended(&mut datapath, "egress program");
        let counters = datapath.counters(uplink()).unwrap();
        drop(datapath);
        let mut datapath = lab.open(AttachMode::Tcx);
        assert!(
            datapath
                .attach(uplink(), LinkLayer::Ethernet)
                .unwrap()
                .adopted
        );
        assert!(cuts(&datapath));
        assert!(datapath.counters(uplink()).unwrap().cut_packets > counters.cut_packets);
    });
}

#[test]
#[ignore = "needs root"]
fn entries_of_maps_that_another_program_deletes() {
    lab(|lab| {
        let ifindex = quiet_uplink();
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        for map in ["uplinks", "counters"] {
            sh(&format!(
                "bpftool map delete pinned {} key {ifindex} 0 0 0",
                lab.bpf.join(map).display()
            ));
            assert!(datapath.missing(ifindex).unwrap().is_some(), "{map}");
            datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
            assert_eq!(datapath.missing(ifindex).unwrap(), None, "{map}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn clsact_qdiscs_and_filters_that_another_program_removes() {
    lab(|lab| {
        let _peer = Peer::connect();
        let mut datapath = closed(lab, AttachMode::Clsact);
        for direction in ["egress", "ingress"] {
            sh(&format!("tc filter del dev uplink {direction} pref 1"));
            mended(&mut datapath, &format!("{direction} filter"));
        }
        sh("tc qdisc del dev uplink clsact");
        mended(&mut datapath, "clsact qdisc");

        // Another program's takes its place: no gate can cut, and none is said to.
        sh("tc qdisc del dev uplink clsact && tc qdisc add dev uplink handle ffff: ingress");
        let missing = datapath.missing(uplink()).unwrap().unwrap();
        assert!(missing.contains("`ingress`"), "{missing}");
        let refused = datapath.attach(uplink(), LinkLayer::Ethernet).unwrap_err();
        let refused = format!("{refused:#}");
        assert!(
            refused.contains("tc qdisc add dev uplink clsact"),
            "{refused}"
        );
        assert_eq!(datapath.obstacle(uplink()), Some(refused.as_str()));
        assert_eq!(
            datapath.gates(uplink()).unwrap(),
            PerFamily::both(Gate::Open)
        );
        assert_eq!(datapath.hook(uplink()).unwrap(), None);
        assert!(!cuts(&datapath));
        assert!(
            datapath
                .set_gate(uplink(), Family::V4, Gate::Closed)
                .is_err()
        );
        assert_eq!(sh("tc filter show dev uplink ingress"), "");

        // The cure that the message names.
        sh("tc qdisc del dev uplink ingress; tc qdisc add dev uplink clsact");
        let attached = datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
        assert_eq!(attached.hook, Hook::Clsact);
        datapath
            .set_gate(uplink(), Family::V4, Gate::Closed)
            .unwrap();
        assert!(cuts(&datapath));
    });
}

#[test]
#[ignore = "needs root"]
fn a_stop_leaves_the_qdiscs_of_others_and_minds_none_that_is_gone() {
    for (then, left) in [
        ("tc qdisc add dev uplink handle ffff: ingress", "ingress"),
        ("tc qdisc add dev uplink clsact", "clsact"),
        ("true", ""),
    ] {
        lab(|lab| {
            quiet_uplink();
            let mut datapath = lab.open(AttachMode::Clsact);
            let attached = datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
            assert_eq!(attached.hook, Hook::ClsactOwned);
            sh("tc qdisc del dev uplink clsact");
            // A filter keeps the qdisc that has taken the place of ours.
            sh(then);
            if left == "clsact" {
                sh("tc filter add dev uplink ingress prio 9 bpf da bytecode '1,6 0 0 4294967295'");
            }
            datapath.remove().into_result().unwrap();
            assert!(!lab.bpf.exists());
            assert!(sh("tc qdisc show dev uplink").contains(left));
        });
    }
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_was_elsewhere_gets_its_programs_again() {
    lab(|lab| {
        let peer = Peer::connect();
        for (mode, _) in modes() {
            let mut datapath = closed(lab, mode);
            let theirs = peer.namespace();
            let ours = nix::unistd::gettid();
            // With the index that it has there, or another, since that one is taken meanwhile.
            for taken in [false, true] {
                sh(&format!("ip link set uplink netns {theirs}"));
                let there = peer.run(uplink);
                if taken {
                    // The other end would get the first index that is free, which may be this one.
                    sh(&format!(
                        "ip -o link | grep -q '^{there}:' \
                         || ip link add taken index {there} type veth peer name free index {}",
                        there + 1000
                    ));
                }
                peer.run(move || sh(&format!("ip link set uplink netns {ours}")));
                sh("ip addr add 10.0.0.1/24 dev uplink && ip link set uplink up");
                datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
                datapath.retain(&[uplink()]).unwrap();
                assert_eq!(datapath.missing(uplink()).unwrap(), None);
                datapath
                    .set_gate(uplink(), Family::V4, Gate::Closed)
                    .unwrap();
                until("the peer is known", || {
                    send();
                    sh("ip neigh show 10.0.0.2").contains("lladdr")
                });
                assert!(cuts(&datapath), "{mode:?}");
                assert_eq!(uplink() != there, taken);
            }
            datapath.remove().into_result().unwrap();
            sh("ip link del taken 2> /dev/null || true");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn each_family_is_cut_in_its_own_mode() {
    lab(|lab| {
        let ifindex = quiet_uplink();
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        datapath.renew_lease(Duration::from_secs(3600)).unwrap();
        for family in Family::ALL {
            datapath.set_gate(ifindex, family, Gate::Closed).unwrap();
        }
        for answered in Family::ALL {
            for family in Family::ALL {
                let mode = match family == answered {
                    true => CutMode::Reset,
                    false => CutMode::Drop,
                };
                datapath.set_cut_mode(ifindex, family, mode).unwrap();
            }
            for (family, packet) in [(Family::V4, udp4()), (Family::V6, udp6())] {
                let expected = match family == answered {
                    true => Verdict::Answer,
                    false => Verdict::Drop,
                };
                assert_eq!(
                    verdict(&datapath, ifindex, &ethernet(&packet)),
                    expected,
                    "{family}, of which {answered} is answered"
                );
            }
        }
    });
}
