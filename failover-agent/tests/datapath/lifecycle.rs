//! Programs on interfaces: attached, adopted, replaced, removed.

use failover_policy::{Family, PerFamily};
use std::{fs, net::UdpSocket, time::Duration};

use failover_agent::{
    config::AttachMode,
    datapath::{CutMode, Datapath, Gate, Hook, Inbound, LinkLayer, Removal, has_tcx, remove_pins},
};

use crate::lab::{Lab, Peer, bpftool, lab, modes, quiet_uplink, sh, until, uplink};

/// Sends `count` datagrams to the peer's discard port.
fn send(count: u64) {
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    for _ in 0..count {
        socket.send_to(b"datagram", "10.0.0.2:9").unwrap();
    }
}

fn sent(datapath: &Datapath) -> u64 {
    datapath.counters(uplink()).unwrap().tx_packets
}

/// Packets that the peer has received.
fn arrived(peer: &Peer) -> u64 {
    let text = peer.run(|| sh("ip -s -j link show far"));
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

fn qdiscs() -> String {
    sh("tc qdisc show dev uplink")
}

#[test]
#[ignore = "needs root"]
fn a_restart_adopts_programs_counters_and_gates() {
    for (mode, hook) in modes() {
        lab(|lab| {
            let _peer = Peer::connect();
            let mut first = lab.open(mode);
            let attached = first.attach(uplink(), LinkLayer::Ethernet).unwrap();
            assert_eq!((attached.hook, attached.adopted), (hook, false));
            first.set_gate(uplink(), Family::V4, Gate::Closed).unwrap();
            send(10);
            let before = first.counters(uplink()).unwrap();
            assert!(before.tx_packets >= 10);
            drop(first);

            send(10);
            let mut second = lab.open(mode);
            assert!(
                second.counters(uplink()).unwrap().tx_packets >= before.tx_packets + 10,
                "counted in between"
            );
            let attached = second.attach(uplink(), LinkLayer::Ethernet).unwrap();
            assert_eq!((attached.hook, attached.adopted), (hook, true));
            assert_eq!(
                second.gates(uplink()).unwrap(),
                PerFamily::new(Gate::Closed, Gate::Open)
            );

            let before = sent(&second);
            send(10);
            assert!(
                (10..20).contains(&(sent(&second) - before)),
                "one program counts, not two"
            );
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_restart_may_change_the_hook_from_tcx_and_back() {
    lab(|lab| {
        let _peer = Peer::connect();
        lab.open(AttachMode::Tcx)
            .attach(uplink(), LinkLayer::Ethernet)
            .unwrap();
        for (mode, hook) in modes().into_iter().rev() {
            let mut datapath = lab.open(mode);
            let attached = datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
            assert_eq!((attached.hook, attached.adopted), (hook, false));
            // The kernel frees an unpinned link a moment later.
            until("one program counts", || {
                let before = sent(&datapath);
                send(10);
                (10..20).contains(&(sent(&datapath) - before))
            });
            assert_eq!(qdiscs().contains("clsact"), hook == Hook::ClsactOwned);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn programs_of_others_still_run() {
    for (mode, _) in modes() {
        lab(|lab| {
            let peer = Peer::connect();
            let mut other = has_tcx().then(|| lab.open_other());
            if let Some(other) = &mut other {
                other.attach(uplink(), LinkLayer::Ethernet).unwrap();
            }
            let mut datapath = lab.open(mode);
            datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
            let theirs = || other.as_ref().map(sent);
            let (ours, before, there) = (sent(&datapath), theirs(), arrived(&peer));
            send(10);
            assert!(sent(&datapath) >= ours + 10);
            assert!(theirs() >= before.map(|before| before + 10));
            until("all arrive", || arrived(&peer) >= there + 10);

            // A classic filter behind ours that drops everything.
            sh("tc qdisc add dev uplink clsact 2>/dev/null; \
                tc filter add dev uplink egress prio 9 bpf da bytecode '1,6 0 0 2'");
            let (ours, there) = (sent(&datapath), arrived(&peer));
            send(10);
            assert!(sent(&datapath) >= ours + 10);
            assert_eq!(arrived(&peer), there, "their filter drops");
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_qdisc_of_others_is_left_alone() {
    lab(|lab| {
        quiet_uplink();
        sh("tc qdisc add dev uplink clsact");
        let mut datapath = lab.open(AttachMode::Clsact);
        assert_eq!(
            datapath.attach(uplink(), LinkLayer::Ethernet).unwrap().hook,
            Hook::Clsact
        );
        datapath.retain(&[]).unwrap();
        assert!(qdiscs().contains("clsact"));
        assert_eq!(sh("tc filter show dev uplink egress"), "");

        // Ours, but another program's filter moved in.
        sh("tc qdisc del dev uplink clsact");
        assert_eq!(
            datapath.attach(uplink(), LinkLayer::Ethernet).unwrap().hook,
            Hook::ClsactOwned
        );
        sh("tc filter add dev uplink ingress prio 9 bpf da bytecode '1,6 0 0 4294967295'");
        assert_eq!(datapath.remove().problems, [""; 0]);
        assert!(sh("tc filter show dev uplink ingress").contains("pref 9"));
        assert_eq!(sh("tc filter show dev uplink egress"), "");
    });
}

#[test]
#[ignore = "needs root"]
fn an_interface_made_anew_is_attached_afresh() {
    for (mode, _) in modes() {
        lab(|lab| {
            let peer = Peer::connect();
            let mut datapath = lab.open(mode);
            let old = uplink();
            datapath.attach(old, LinkLayer::Ethernet).unwrap();
            sh("ip link del uplink");
            assert!(datapath.attach(old, LinkLayer::Ethernet).is_err());
            peer.cable();
            datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
            datapath.retain(&[uplink()]).unwrap();
            let before = sent(&datapath);
            send(10);
            assert!(sent(&datapath) >= before + 10);

            // The same index again: the pinned link belongs to the interface that is gone.
            let index = uplink();
            sh("ip link del uplink");
            sh(&format!(
                "ip link add uplink index {index} type veth peer name far"
            ));
            assert_eq!(uplink(), index);
            assert!(!datapath.attach(index, LinkLayer::Ethernet).unwrap().adopted);
            sh("ip addr add 10.0.0.1/24 dev uplink && ip link set uplink up && ip link set far up");
            sh("ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev uplink");
            let before = sent(&datapath);
            send(10);
            assert!(sent(&datapath) >= before + 10);
        });
    }
}

#[test]
#[ignore = "needs root"]
fn retain_forgets_the_others() {
    lab(|lab| {
        let peer = Peer::connect();
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
        datapath
            .set_gate(uplink(), Family::V4, Gate::Closed)
            .unwrap();
        datapath
            .set_exempt(uplink(), &["10.0.0.0/24".parse().unwrap()])
            .unwrap();
        datapath.renew_lease(Duration::from_secs(60)).unwrap();
        datapath.retain(&[uplink()]).unwrap();
        assert_eq!(datapath.gates(uplink()).unwrap().v4, Gate::Closed);

        datapath.retain(&[]).unwrap();
        assert_eq!(
            datapath.gates(uplink()).unwrap(),
            PerFamily::both(Gate::Open)
        );
        assert_eq!(fs::read_dir(lab.bpf.join("links")).unwrap().count(), 0);
        assert_eq!(
            bpftool("map dump pinned", &lab.bpf.join("exempt")),
            serde_json::json!([])
        );
        let before = arrived(&peer);
        send(10);
        until("all arrive", || arrived(&peer) >= before + 10);
    });
}

#[test]
#[ignore = "needs root"]
fn remove_leaves_nothing() {
    for (mode, _) in modes() {
        lab(|lab| {
            quiet_uplink();
            let before = qdiscs();
            let mut datapath = lab.open(mode);
            datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
            assert_eq!(datapath.remove().problems, [""; 0]);
            assert!(!lab.bpf.exists());
            assert_eq!(qdiscs(), before);
        });
    }
}

#[test]
#[ignore = "needs root"]
fn reset_after_a_kill_leaves_nothing_and_says_so() {
    for (mode, _) in modes() {
        lab(|lab| {
            quiet_uplink();
            let before = qdiscs();
            lab.open(mode)
                .attach(uplink(), LinkLayer::Ethernet)
                .unwrap();
            let Removal { removed, problems } = remove_pins(&lab.bpf);
            assert_eq!(problems, [""; 0]);
            assert!(!lab.bpf.exists());
            assert_eq!(qdiscs(), before);
            let expected = if mode == AttachMode::Tcx {
                "-egress"
            } else {
                "clsact qdisc on uplink"
            };
            assert!(
                removed.iter().any(|line| line.ends_with(expected)),
                "{removed:?}"
            );
            assert!(
                removed.iter().any(|line| line.ends_with("/counters")),
                "{removed:?}"
            );
            assert_eq!(
                remove_pins(&lab.bpf),
                Removal::default(),
                "a second time there is nothing"
            );
        });
    }
}

#[test]
#[ignore = "needs root"]
fn files_of_others_are_left_alone() {
    lab(|lab| {
        lab.open(AttachMode::Auto);
        fs::create_dir(lab.bpf.join("mine")).unwrap();
        assert_eq!(remove_pins(&lab.bpf).problems.len(), 1);
        assert!(lab.bpf.join("mine").exists() && !lab.bpf.join("uplinks").exists());
    });
}

#[test]
#[ignore = "needs root"]
fn pins_that_cannot_be_adopted_are_replaced() {
    lab(|lab| {
        quiet_uplink();
        let attach = |lab: &Lab| {
            lab.open(AttachMode::Auto)
                .attach(uplink(), LinkLayer::Ethernet)
                .unwrap()
        };
        assert!(!attach(lab).adopted);
        assert!(attach(lab).adopted);

        // Another ABI version, behind the settings' lease and mark.
        let settings = lab.bpf.join("settings");
        let value = format!(
            "hex {} ff ff ff ff {}",
            ["00"; 12].join(" "),
            ["00"; 32].join(" ")
        );
        sh(&format!(
            "bpftool map update pinned {} key hex 00 00 00 00 value {value}",
            settings.display()
        ));
        assert!(!attach(lab).adopted);
        assert!(attach(lab).adopted);

        // Half of the pins are gone.
        fs::remove_file(lab.bpf.join("uplinks")).unwrap();
        assert!(!attach(lab).adopted);

        // A link where a map should be; another map where there are no links.
        let other = match has_tcx() {
            true => format!("links/{}-egress", uplink()),
            false => "counters".to_owned(),
        };
        fs::remove_file(&settings).unwrap();
        fs::rename(lab.bpf.join(other), &settings).unwrap();
        assert!(!attach(lab).adopted);
    });
}

#[test]
#[ignore = "needs root"]
fn bpftool_prints_names_and_words() {
    lab(|lab| {
        let ifindex = quiet_uplink();
        let mut datapath = lab.open(AttachMode::Auto);
        let attached = datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        datapath
            .set_gate(ifindex, Family::V6, Gate::Closed)
            .unwrap();
        datapath
            .set_exempt(ifindex, &["10.0.0.0/24".parse().unwrap()])
            .unwrap();

        datapath.set_inbound(ifindex, Inbound::Keep).unwrap();
        datapath
            .set_cut_mode(ifindex, Family::V4, CutMode::Reset)
            .unwrap();
        datapath
            .set_addresses(ifindex, &["10.0.0.1".parse().unwrap()])
            .unwrap();
        datapath.set_allow_marks(&[7]).unwrap();

        let dump =
            |map: &str| bpftool("map dump pinned", &lab.bpf.join(map))[0]["formatted"].clone();
        let uplinks = dump("uplinks");
        assert_eq!(uplinks["key"], ifindex);
        assert_eq!(
            uplinks["value"],
            serde_json::json!({
                "gate_ipv4": "Open", "gate_ipv6": "Closed", "link_layer": "Ethernet", "hook": format!("{:?}", attached.hook),
                "cut_mode_ipv4": "Reset", "cut_mode_ipv6": "Drop", "inbound": "Keep",
                "source_ipv4": [10, 0, 0, 1], "source_ipv6": vec![0; 16],
            })
        );
        assert_eq!(dump("counters")["values"][0]["value"]["tx_packets"], 0);
        assert_eq!(dump("settings")["value"]["probe_mark"], crate::lab::MARK);
        assert_eq!(dump("settings")["value"]["allow_marks"][0], 7);
        assert_eq!(dump("addresses")["value"]["ifindex"], ifindex);
        assert_eq!(dump("limits")["value"]["icmp"]["tokens"], 0);
        let exempt = dump("exempt");
        assert_eq!(exempt["key"]["prefix_len"], 32 + 96 + 24);
        assert_eq!(exempt["key"]["data"]["ifindex"], ifindex);
    });
}
