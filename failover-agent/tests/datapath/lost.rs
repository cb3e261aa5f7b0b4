//! Addresses that uplinks have lost: until when packets with them are stale.

use std::{net::IpAddr, time::Duration};

use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, LinkLayer, Verdict},
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    lab::{lab, quiet_uplink},
    packets::*,
    verdicts::{udp4, udp6, verdict},
};

const HOUR: Duration = Duration::from_secs(3600);

/// Sleep, suspend and clock ticks apart.
const SLACK: Duration = Duration::from_secs(60);

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

#[test]
#[ignore = "needs root"]
fn they_end_an_hour_after_the_last_packet_over_a_restart_too() {
    lab(|lab| {
        let ifindex = quiet_uplink();
        let open = || {
            let mut datapath = lab.open(AttachMode::Auto);
            datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
            datapath.renew_lease(Duration::from_secs(600)).unwrap();
            datapath
        };
        let is_cut = |datapath: &Datapath, packet: &[u8]| {
            verdict(datapath, ifindex, &ethernet(packet)) == Verdict::Drop
        };
        let both: [IpAddr; 2] = [HOST4, HOST6].map(|text| text.parse().unwrap());
        let mut datapath = open();
        datapath.set_addresses(ifindex, &both).unwrap();
        assert_eq!(datapath.lost_addresses(), [] as [IpAddr; 0]);
        datapath.set_addresses(ifindex, &[]).unwrap();
        assert_eq!(datapath.lost_addresses().len(), 2);
        assert!(is_cut(&datapath, &udp4()) && is_cut(&datapath, &udp6()));
        assert_eq!(datapath.expire_addresses(now()).unwrap().len(), 0);

        // As if the address had been lost long ago: only the packet counts.
        let pin = lab.bpf.join("addresses");
        let age = |address: &str| {
            crate::lab::sh(&format!(
                "bpftool map update pinned {} key hex {address} value hex ff ff ff ff 00 00 00 00",
                pin.display()
            ));
        };
        age("00 00 00 00 00 00 00 00 00 00 ff ff c0 00 02 01");
        age("20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01");
        assert!(is_cut(&datapath, &udp4()));
        drop(datapath);
        let mut datapath = open();
        let expired = datapath.expire_addresses(now().max(HOUR)).unwrap();
        assert_eq!(expired, both[1..], "it was used just now");
        assert!(is_cut(&datapath, &udp4()) && !is_cut(&datapath, &udp6()));
        let used = now();
        assert_eq!(
            datapath.expire_addresses(used + HOUR - SLACK).unwrap(),
            [] as [IpAddr; 0]
        );
        assert_eq!(
            datapath.expire_addresses(used + HOUR + SLACK).unwrap(),
            both[..1]
        );
        assert!(!is_cut(&datapath, &udp4()));
        assert_eq!(datapath.lost_addresses(), [] as [IpAddr; 0]);
    });
}
