//! Flows of clients behind the host stay with their member of a balance group.

use failover_policy::{Family, UplinkSet};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use failover_agent::config::Config;

use crate::{fixtures::*, namespaces::Host, netns::*};

/// All share the traffic evenly.
fn even(interfaces: &[&str]) -> Config {
    let mut config = config(interfaces);
    for uplink in &mut config.uplinks {
        uplink.rank = 0;
    }
    config
}

/// A client behind the host, and a provider with a server behind all of its uplinks; everything that goes out is masqueraded.
struct Routed {
    client: Host,
    /// Goes on as long as this does.
    _provider: Host,
}

/// A connection through the host, and the address that it has outside.
struct Flow {
    stream: TcpStream,
    outside: IpAddr,
}

impl Routed {
    fn new(uplinks: usize) -> Routed {
        let (client, provider) = (Host::new(), Host::new());
        ip("link add lan type veth peer name eth");
        client.take("eth");
        ip("link set dev lan up");
        for line in [
            "addr add 10.1.0.1/24 dev lan",
            "-6 addr add 2001:db8:100::1/64 dev lan nodad",
        ] {
            ip(line);
        }
        client.run(|| {
            ip("addr add 10.1.0.2/24 dev eth");
            ip("-6 addr add 2001:db8:100::2/64 dev eth nodad");
            ip("route add default via 10.1.0.1");
            ip("-6 route add default via 2001:db8:100::1");
        });
        ethernet_uplinks(uplinks);
        default_routes(uplinks, 500);
        for n in 0..uplinks {
            provider.take(&format!("far{n}"));
            provider.run(move || {
                ip(&format!("addr add 10.0.{n}.1/24 dev far{n}"));
                ip(&format!("-6 addr add 2001:db8:{n}::1/64 dev far{n} nodad"));
            });
        }
        // The cables were down for a moment.
        for n in 0..uplinks {
            for line in [
                format!("route replace default via 10.0.{n}.1 dev up{n} proto dhcp metric 50{n}"),
                format!(
                    "-6 route replace default via 2001:db8:{n}::1 dev up{n} proto static metric 50{n}"
                ),
            ] {
                wait_for("the uplink is up", || {
                    let command = Command::new("ip").args(line.split(' ')).output();
                    command.unwrap().status.success()
                });
            }
        }
        provider.run(|| {
            ip("addr add 203.0.113.1/32 dev lo");
            ip("-6 addr add 2001:db8:113::1/128 dev lo nodad");
            let listener = TcpListener::bind("[::]:80").unwrap();
            thread::spawn(move || serve(&listener));
        });
        for (path, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
        }
        let nat = "table inet nat { chain out { type nat hook postrouting priority srcnat; oifname \"up*\" masquerade; }; }";
        let nft = Command::new("nft").arg(nat).output().unwrap();
        assert!(nft.status.success(), "{nft:?}");
        Routed {
            client,
            _provider: provider,
        }
    }

    /// Opens connections to the server.
    fn flows(&self, server: &'static str, count: usize) -> Vec<Flow> {
        self.client.run(move || {
            let open = |_| {
                let server: SocketAddr = server.parse().unwrap();
                let mut stream =
                    TcpStream::connect_timeout(&server, Duration::from_secs(20)).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                let outside = ask(&mut stream).unwrap();
                Flow { stream, outside }
            };
            (0..count).map(open).collect()
        })
    }
}

/// Answers every byte with the 16 bytes of the address that the client has for the server.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        thread::spawn(move || {
            let IpAddr::V6(peer) = stream.peer_addr().unwrap().ip() else {
                return;
            };
            while stream.read_exact(&mut [0]).is_ok() {
                if stream.write_all(&peer.octets()).is_err() {
                    return;
                }
            }
        });
    }
}

fn ask(stream: &mut TcpStream) -> std::io::Result<IpAddr> {
    stream.write_all(b"?")?;
    let mut octets = [0; 16];
    stream.read_exact(&mut octets)?;
    Ok(IpAddr::from(octets).to_canonical())
}

/// Those that leave by the uplinks `n`; the others are given up.
fn of_uplinks(mut flows: Vec<Flow>, n: &[usize]) -> Vec<Flow> {
    let ours = |flow: &Flow| {
        n.iter().any(|n| {
            let text = flow.outside.to_string();
            text == format!("10.0.{n}.2")
                || text == format!("2001:db8:{n}::2").replace(":0::", "::")
        })
    };
    flows.retain(ours);
    assert!(flows.len() > 4, "hardly any flow left by {n:?}");
    flows
}

fn assert_alive(flows: &mut [Flow], when: &str) {
    for flow in flows {
        match ask(&mut flow.stream) {
            Ok(outside) => assert_eq!(outside, flow.outside, "{when}"),
            Err(error) => panic!("{when}: flow of {}: {error}", flow.outside),
        }
    }
}

#[test]
#[ignore = "needs root"]
fn forwarded_flows_of_staying_members_stay_put() {
    isolated(|| {
        let server = "203.0.113.1:80";
        let routed = Routed::new(3);
        let config = even(&["up0", "up1", "up2"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        let mut activate = |uplinks: UplinkSet| {
            let confirmed = router.activate(Family::V4, uplinks).unwrap();
            assert_eq!(confirmed.problems, Vec::<String>::new());
        };
        // One alone, as after a start: its flows stay when the others come.
        activate(only(A));
        let mut flows = routed.flows(server, 20);
        // To the kernel a bucket is unused if its last packet came in the same tick as the group.
        thread::sleep(Duration::from_millis(50));
        assert_alive(&mut flows, "the first is alone");
        activate(members(&[A, B]));
        assert_alive(&mut flows, "the second joins");
        activate(members(&[A, B, C]));
        assert_alive(&mut flows, "the third joins");
        flows = of_uplinks(flows, &[0]);
        assert_eq!(flows.len(), 20);

        flows.extend(routed.flows(server, 60));
        assert_alive(&mut flows, "all are there");
        for n in 0..3 {
            of_uplinks(routed.flows(server, 60), &[n]);
        }

        activate(members(&[A, C]));
        flows = of_uplinks(flows, &[0, 2]);
        assert_alive(&mut flows, "the second leaves");
        activate(members(&[A, B, C]));
        assert_alive(&mut flows, "the second joins again");
        activate(only(C));
        flows = of_uplinks(flows, &[2]);
        assert_alive(&mut flows, "the first two leave");
        activate(members(&[B, C]));
        assert_alive(&mut flows, "the second is back");
    });
}

#[test]
#[ignore = "needs root"]
fn forwarded_ipv6_flows_stay_with_the_member_that_is_left() {
    isolated(|| {
        let server = "[2001:db8:113::1]:80";
        let routed = Routed::new(2);
        let config = even(&["up0", "up1"]);
        let state = state();
        let (mut router, _) = router(&config, state.path());
        for (left, n) in [(A, 0), (B, 1)] {
            router.activate(Family::V6, members(&[A, B])).unwrap();
            let mut flows = of_uplinks(routed.flows(server, 60), &[n]);
            assert!(flows.len() < 60, "the other has some, too");
            router.activate(Family::V6, only(left)).unwrap();
            assert_alive(&mut flows, "the other leaves");
        }
    });
}
