//! Local sockets.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    thread,
    time::Duration,
};

use failover_agent::cutoff::{Cutoff, Scope};
use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit},
};
use socket2::{Domain, Socket, Type};

use crate::{
    lab::{addresses, bound, connected, listener, sh, wait_for},
    namespaces::isolated,
};

/// Addresses of the uplink that is cut off end in 1, those of others in 2.
fn two_uplinks() {
    sh("
        ip addr add 192.0.2.1/32 dev lo
        ip addr add 192.0.2.2/32 dev lo
        ip addr add 2001:db8::1/128 dev lo nodad
        ip addr add 2001:db8::2/128 dev lo nodad
    ");
}

/// A closed gate: no farewell of a destroyed socket reaches its peer. And what `rules` say.
fn closed_gate(rules: &str) {
    sh(&format!(
        "nft -f - <<'END'
table inet gate {{
  chain output {{
    type filter hook output priority 0;
    ip saddr 192.0.2.1 tcp flags & rst == rst drop
    ip6 saddr 2001:db8::1 tcp flags & rst == rst drop
    {rules}
  }}
}}
END"
    ));
}

/// TCP states of the sockets that hold an address, as `ss` names them.
fn states(address: &str) -> BTreeSet<String> {
    sh(&format!("ss -Htan src {address}"))
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

fn aborted(socket: &Socket) -> bool {
    let error = socket.take_error().unwrap();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionAborted)
}

fn receive(socket: &Socket) -> io::Result<usize> {
    socket.recv(&mut [MaybeUninit::uninit(); 16])
}

#[test]
#[ignore = "needs root"]
fn destroys_tcp_in_every_state_but_listening() {
    isolated(|| {
        two_uplinks();
        closed_gate(
            "tcp dport 1002 tcp flags & syn == syn drop
             tcp sport 1003 tcp flags & syn == syn drop
             tcp dport 1004 tcp flags & fin == fin drop",
        );
        let servers: Vec<Socket> = (1000..1010)
            .map(|port| listener(&format!("192.0.2.2:{port}")))
            .collect();
        let accept = |port: usize| servers[port - 1000].accept().unwrap().0;
        let start = |local: &str, remote: &str| {
            let socket = bound(Type::STREAM, local);
            socket.set_nonblocking(true).unwrap();
            let remote: SocketAddr = remote.parse().unwrap();
            assert_eq!(
                socket.connect(&remote.into()).unwrap_err().raw_os_error(),
                Some(Errno::EINPROGRESS as i32)
            );
            socket
        };

        let established = connected(Type::STREAM, "192.0.2.1:0", "192.0.2.2:1001");
        let syn_sent = start("192.0.2.1:0", "192.0.2.2:1002");
        let own_server = listener("192.0.2.1:1003");
        let _syn_received = start("192.0.2.2:0", "192.0.2.1:1003");
        let fin_wait_1 = connected(Type::STREAM, "192.0.2.1:0", "192.0.2.2:1004");
        fin_wait_1.shutdown(Shutdown::Write).unwrap();
        let fin_wait_2 = connected(Type::STREAM, "192.0.2.1:0", "192.0.2.2:1005");
        let _peer = accept(1005);
        fin_wait_2.shutdown(Shutdown::Write).unwrap();
        let close_wait = connected(Type::STREAM, "192.0.2.1:0", "192.0.2.2:1006");
        accept(1006).shutdown(Shutdown::Write).unwrap();
        // Both peers below have port 1004, which no FIN of ours reaches.
        let _peer_of_fin_wait_1 = accept(1004);
        let closing = connected(Type::STREAM, "192.0.2.1:0", "192.0.2.2:1004");
        closing.shutdown(Shutdown::Write).unwrap();
        let peer_of_closing = accept(1004);
        peer_of_closing.shutdown(Shutdown::Write).unwrap();
        let last_ack = connected(Type::STREAM, "192.0.2.1:0", "192.0.2.2:1004");
        let peer_of_last_ack = accept(1004);
        peer_of_last_ack.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive(&last_ack).unwrap(), 0);
        last_ack.shutdown(Shutdown::Write).unwrap();
        let expected = [
            "ESTAB",
            "SYN-SENT",
            "SYN-RECV",
            "FIN-WAIT-1",
            "FIN-WAIT-2",
            "CLOSE-WAIT",
            "CLOSING",
            "LAST-ACK",
            "LISTEN",
        ];
        wait_for("every state", || {
            let states = states("192.0.2.1");
            expected.iter().all(|state| states.contains(*state))
        });
        let unrelated = connected(Type::STREAM, "192.0.2.2:0", "192.0.2.2:1007");
        // The peer sends its SYN again after a second, which would make another socket in SYN-RECV.
        sh("nft add rule inet gate output tcp dport 1003 tcp flags \\& syn == syn drop");

        let cutoff = Cutoff::open();
        assert_eq!(cutoff.missing(), Vec::<String>::new());
        let ended = cutoff.destroy_sockets(&addresses("192.0.2.1"));
        assert_eq!(ended.problems, Vec::<String>::new());
        assert!(ended.tcp >= 8, "{ended:?}");
        assert_eq!((ended.udp, ended.other), (0, 0));

        assert_eq!(states("192.0.2.1"), BTreeSet::from(["LISTEN".to_owned()]));
        for socket in [&established, &syn_sent, &fin_wait_2, &close_wait] {
            assert!(aborted(socket), "{socket:?}");
        }

        // The others still work, and so does the server on the uplink's own address.
        unrelated.send(b"still here").unwrap();
        assert_eq!(receive(&accept(1007)).unwrap(), 10);
        sh("nft flush table inet gate");
        let _client = connected(Type::STREAM, "192.0.2.2:0", "192.0.2.1:1003");
        own_server.accept().unwrap();

        assert_eq!(
            cutoff
                .destroy_sockets(&addresses("192.0.2.9 2001:db8::9"))
                .tcp,
            0
        );
        assert_eq!(cutoff.destroy_sockets(&Scope::default()).tcp, 0);
    });
}

#[test]
#[ignore = "needs root"]
fn tells_an_application_that_only_waits() {
    isolated(|| {
        two_uplinks();
        closed_gate("");
        let _server = listener("192.0.2.2:1001");
        let client = connected(Type::STREAM, "192.0.2.1:0", "192.0.2.2:1001");
        client
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| receive(&client));
            thread::sleep(Duration::from_millis(50));
            assert_eq!(
                Cutoff::open().destroy_sockets(&addresses("192.0.2.1")).tcp,
                1
            );
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        });
    });
}

#[test]
#[ignore = "needs root"]
fn destroys_ipv6_and_mapped_sockets() {
    isolated(|| {
        two_uplinks();
        closed_gate("");
        let _servers = [listener("[2001:db8::2]:1001"), listener("192.0.2.2:1001")];
        let v4 = || connected(Type::STREAM, "192.0.2.1:0", "192.0.2.2:1001");
        let v6 = || connected(Type::STREAM, "[2001:db8::1]:0", "[2001:db8::2]:1001");
        let mapped = || {
            connected(
                Type::STREAM,
                "[::ffff:192.0.2.1]:0",
                "[::ffff:192.0.2.2]:1001",
            )
        };
        let others = [
            connected(Type::STREAM, "[2001:db8::2]:0", "[2001:db8::2]:1001"),
            connected(
                Type::STREAM,
                "[::ffff:192.0.2.2]:0",
                "[::ffff:192.0.2.2]:1001",
            ),
        ];
        let cutoff = Cutoff::open();
        let check = |of: &str, dies: &[&Socket], lives: &[&Socket]| {
            let ended = cutoff.destroy_sockets(&addresses(of));
            assert_eq!(ended.problems, Vec::<String>::new());
            assert_eq!(ended.tcp, dies.len(), "{ended:?}");
            for socket in dies {
                assert!(aborted(socket), "{socket:?}");
            }
            for socket in lives.iter().copied().chain(&others) {
                socket.send(b"x").unwrap();
            }
        };
        let (a, b, c) = (v4(), v6(), mapped());
        check("192.0.2.1", &[&a, &c], &[&b]);
        let (a, c) = (v4(), mapped());
        check("2001:db8::1", &[&b], &[&a, &c]);
        let b = v6();
        check(
            "192.0.2.7 192.0.2.1 2001:db8::7 2001:db8::1 2001:db8::8",
            &[&a, &b, &c],
            &[],
        );
    });
}

#[test]
#[ignore = "needs root"]
fn destroys_connected_udp_only() {
    isolated(|| {
        two_uplinks();
        let udp = |local: &str, remote: &str| connected(Type::DGRAM, local, remote);
        let twin = || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            let address = |text: &str| text.parse::<SocketAddr>().unwrap().into();
            socket.bind(&address("192.0.2.1:4000")).unwrap();
            socket.connect(&address("192.0.2.2:53")).unwrap();
            socket
        };
        let die = [
            udp("192.0.2.1:0", "192.0.2.2:53"),
            udp("[2001:db8::1]:0", "[2001:db8::2]:53"),
            udp("[::ffff:192.0.2.1]:0", "[::ffff:192.0.2.2]:53"),
            twin(),
            twin(),
            twin(),
        ];
        let live = [
            bound(Type::DGRAM, "192.0.2.1:5000"),
            bound(Type::DGRAM, "0.0.0.0:5001"),
            udp("192.0.2.2:0", "192.0.2.2:53"),
            udp("[2001:db8::2]:0", "[2001:db8::2]:53"),
        ];
        let ended = Cutoff::open().destroy_sockets(&addresses("192.0.2.1 2001:db8::1"));
        assert_eq!(ended.problems, Vec::<String>::new());
        assert_eq!((ended.tcp, ended.udp), (0, die.len()));
        for socket in &die {
            assert!(aborted(socket), "{socket:?}");
        }
        for socket in &live {
            assert!(socket.take_error().unwrap().is_none(), "{socket:?}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn destroys_ten_thousand() {
    isolated(|| {
        two_uplinks();
        closed_gate("");
        sh("
            sysctl -qw net.core.somaxconn=20000
            sysctl -qw net.ipv4.tcp_max_syn_backlog=20000
        ");
        // The server's ends wait in its queue, where they need no descriptor.
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let count = usize::try_from(limit)
            .unwrap()
            .saturating_sub(500)
            .min(10_000);
        let servers: Vec<Socket> = (1000..1010)
            .map(|port| listener(&format!("192.0.2.2:{port}")))
            .collect();
        let clients: Vec<Socket> = (0..count)
            .map(|n| {
                let port = 1000 + n % servers.len();
                connected(Type::STREAM, "192.0.2.1:0", &format!("192.0.2.2:{port}"))
            })
            .collect();
        let servers_ends = || {
            sh("ss -Htn state established src 192.0.2.2")
                .lines()
                .count()
        };
        wait_for("all connections", || servers_ends() == count);

        let ended = Cutoff::open().destroy_sockets(&addresses("192.0.2.1"));
        eprintln!(
            "{} of {count} TCP sockets destroyed in {:?}",
            ended.tcp, ended.took
        );
        assert_eq!(ended.problems, Vec::<String>::new());
        assert_eq!(ended.tcp, count);
        assert!(clients.iter().all(aborted));
        assert_eq!(servers_ends(), count);
        assert!(ended.took < Duration::from_secs(10), "{ended:?}");
    });
}
