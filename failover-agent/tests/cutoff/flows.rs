//! Connection tracking: local and forwarded flows.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use failover_agent::cutoff::{Cutoff, Scope};

use crate::{
    lab::{addresses, cable, sh, wait_for},
    namespaces::{Host, isolated},
};

/// Entries as `conntrack` lists them.
fn entries(options: &str) -> Vec<String> {
    sh(&format!("conntrack -L {options} 2>/dev/null"))
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}

/// A router with a client behind it and two uplinks to the same provider, where a server has 203.0.113.1. `nat` says what
/// becomes of sources.
struct Router {
    client: Host,
    provider: Host,
}

impl Router {
    fn new(nat: &str) -> Router {
        let (client, provider) = (Host::new(), Host::new());
        cable("lan", &client, "eth");
        client.run(|| {
            sh("
                ip addr add 10.1.0.2/24 dev eth
                ip route add default via 10.1.0.1
            ")
        });
        cable("up0", &provider, "far0");
        cable("up1", &provider, "far1");
        provider.run(|| {
            sh("
                ip addr add 192.0.2.1/30 dev far0
                ip addr add 198.51.100.1/30 dev far1
                ip addr add 203.0.113.1/32 dev lo
            ")
        });
        sh(&format!(
            "
            ip addr add 10.1.0.1/24 dev lan
            ip addr add 192.0.2.2/30 dev up0
            ip addr add 198.51.100.2/30 dev up1
            ip route add default via 192.0.2.1
            sysctl -qw net.ipv4.ip_forward=1
            nft -f - <<'END'
table ip nat {{
  chain out {{
    type nat hook postrouting priority srcnat;
    {nat}
  }}
}}
END"
        ));
        Router { client, provider }
    }

    /// What failover does to the route.
    fn switch(&self) {
        sh("ip route replace default via 198.51.100.1");
    }
}

const MASQUERADE: &str = "oifname { up0, up1 } masquerade";
const SNAT: &str = "oifname up0 snat to 192.0.2.2
    oifname up1 snat to 198.51.100.2";

fn udp_flow_continues(nat: &'static str) {
    isolated(move || {
        let router = Router::new(nat);
        let server = router
            .provider
            .run(|| UdpSocket::bind("203.0.113.1:53").unwrap());
        server
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let client = router
            .client
            .run(|| UdpSocket::bind("10.1.0.2:4000").unwrap());
        let source = || {
            client.send_to(b"x", "203.0.113.1:53").unwrap();
            server.recv_from(&mut [0; 8]).unwrap().1.ip().to_string()
        };
        assert_eq!(source(), "192.0.2.2");
        // Of the other uplink, and of no uplink.
        sh("
            conntrack -I -p udp -s 10.1.0.7 -d 203.0.113.1 --sport 7 --dport 53 --src-nat 198.51.100.2 --timeout 100
            conntrack -I -p udp -s 10.1.0.7 -d 10.1.0.8 --sport 7 --dport 53 --timeout 100
        ");
        router.switch();

        let ended = Cutoff::open().delete_flows(&addresses("192.0.2.2"));
        assert_eq!(ended.problems, Vec::<String>::new());
        assert_eq!((ended.tcp, ended.udp, ended.other), (0, 1, 0));
        assert_eq!(source(), "198.51.100.2");
        assert_eq!(entries("-p udp -s 10.1.0.7").len(), 2);
    });
}

#[test]
#[ignore = "needs root"]
fn masqueraded_udp_continues_by_the_new_uplink() {
    udp_flow_continues(MASQUERADE);
}

#[test]
#[ignore = "needs root"]
fn snatted_udp_continues_by_the_new_uplink() {
    udp_flow_continues(SNAT);
}

#[test]
#[ignore = "needs root"]
fn snatted_tcp_client_is_told_by_its_next_segment() {
    isolated(|| {
        let router = Router::new(SNAT);
        let server = router
            .provider
            .run(|| TcpListener::bind("203.0.113.1:80").unwrap());
        let mut client = router
            .client
            .run(|| TcpStream::connect("203.0.113.1:80").unwrap());
        let (mut peer, source) = server.accept().unwrap();
        assert_eq!(source.ip().to_string(), "192.0.2.2");
        client.write_all(b"before").unwrap();
        peer.read_exact(&mut [0; 6]).unwrap();
        router.switch();

        let ended = Cutoff::open().delete_flows(&addresses("192.0.2.2"));
        assert_eq!((ended.tcp, ended.udp, ended.other), (1, 0, 0), "{ended:?}");
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.write_all(b"after").unwrap();
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

/// Connection tracking for what leaves this host. What arrives is dropped, so that nobody answers.
fn tracked(zones: &str) {
    sh(&format!(
        "
        ip addr add 192.0.2.1/32 dev lo
        ip addr add 192.0.2.2/32 dev lo
        ip addr add 2001:db8::1/128 dev lo nodad
        ip addr add 2001:db8::2/128 dev lo nodad
        nft -f - <<'END'
table inet track {{
  chain zones {{
    type filter hook output priority raw;
    {zones}
  }}
  chain output {{
    type filter hook output priority 0;
    ct state new accept
  }}
  chain arrive {{
    type filter hook prerouting priority raw;
    meta l4proto udp drop
  }}
}}
END"
    ));
}

/// Makes so many UDP flows from one address, to different ports.
fn udp_flows(local: &str, remotes: &[&str], count: usize) {
    let socket = UdpSocket::bind((local, 0)).unwrap();
    let mut made = 0;
    for remote in remotes {
        for port in 1..=60_000u16 {
            if made == count {
                return;
            }
            socket.send_to(b"", (*remote, port)).unwrap();
            made += 1;
        }
    }
    assert_eq!(made, count);
}

#[test]
#[ignore = "needs root"]
fn deletes_by_source_in_every_zone_and_spares_inbound() {
    isolated(|| {
        tracked(
            "udp dport 7 ct zone set 7
             udp dport 8 ct original zone set 8",
        );
        for (own, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            udp_flows(own, &[other], 9);
            udp_flows(other, &[other], 9);
            udp_flows(other, &[own], 9); // towards the address
        }
        let count = |options: &str| entries(&format!("-p udp {options}")).len();
        let total = || count("-f ipv4") + count("-f ipv6");
        wait_for("all flows", || total() == 54);

        let cutoff = Cutoff::open();
        assert_eq!(cutoff.missing(), Vec::<String>::new());
        let ended = cutoff.delete_flows(&addresses("192.0.2.1"));
        assert_eq!(ended.problems, Vec::<String>::new());
        assert_eq!((ended.tcp, ended.udp, ended.other), (0, 9, 0));
        assert_eq!((total(), count("-f ipv4 -s 192.0.2.1")), (45, 0));
        let ended = cutoff.delete_flows(&addresses("2001:db8::9 192.0.2.1 2001:db8::1"));
        assert_eq!(ended.problems, Vec::<String>::new());
        assert_eq!(ended.udp, 9);
        assert_eq!((total(), count("-f ipv6 -s 2001:db8::1")), (36, 0));
        assert_eq!(cutoff.delete_flows(&Scope::default()).udp, 0);
        assert_eq!(total(), 36);
    });
}

#[test]
#[ignore = "needs root"]
fn deletes_one_thousand_of_a_hundred_thousand() {
    isolated(|| {
        tracked("");
        let limit: usize = sh("cat /proc/sys/net/netfilter/nf_conntrack_max")
            .trim()
            .parse()
            .unwrap();
        let half = (limit / 4).min(50_000);
        for (own, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            udp_flows(own, &[other], 500);
            udp_flows(other, &[own, other], half - 500);
        }
        let count = || {
            let text = sh("cat /proc/sys/net/netfilter/nf_conntrack_count");
            text.trim().parse::<usize>().unwrap()
        };
        let total = count();
        assert!(total >= 2 * half, "{total}");
        let ended = Cutoff::open().delete_flows(&addresses("192.0.2.1 2001:db8::1"));
        eprintln!("{} of {total} flows deleted in {:?}", ended.udp, ended.took);
        assert_eq!(ended.problems, Vec::<String>::new());
        assert_eq!(ended.udp, 1000);
        assert!(ended.took < Duration::from_secs(10), "{ended:?}");
        // Other flows (neighbour discovery) may come and go.
        assert!(count().abs_diff(total - 1000) < 50, "{}", count());
    });
}

#[test]
#[ignore = "needs root"]
fn has_nothing_to_do_without_connection_tracking() {
    isolated(|| {
        let ended = Cutoff::open().delete_flows(&addresses("192.0.2.1"));
        assert_eq!((ended.udp, ended.problems), (0, Vec::new()));
    });
}
