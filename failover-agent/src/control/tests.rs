//! Client and server over a real socket.

use std::{
    future::Future,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{events as events_of, testing, *};
use crate::failure::Failure;

/// A server that answers with the test status for as long as `test` runs. The test may block, since it has a thread of its own.
fn with_server(test: impl FnOnce(&Path) + Send + 'static) {
    with_events(|run_dir, _| test(run_dir));
}

fn with_events(test: impl FnOnce(&Path, &Events) + Send + 'static) {
    run(async {
        let dir = TempDir::new().unwrap();
        let run_dir = dir.path().to_owned();
        let lock = Lock::acquire(&run_dir).unwrap();
        let server = Server::bind(&lock).unwrap();
        let (requests, mut received) = mpsc::channel(1);
        let events = Events::default();
        let server = tokio::spawn(server.serve(requests, events.clone()));
        let agent = tokio::spawn(async move {
            while let Some((request, way_back)) = received.recv().await {
                let response = match request {
                    Request::Status => Response::Status(Box::new(testing::status())),
                    order => Response::Done(format!("{order:?}")),
                };
                // A client may have closed the connection by now.
                way_back.send(response).ok();
            }
        });
        let test = tokio::task::spawn_blocking(move || test(&run_dir, &events));
        test.await.unwrap();
        agent.abort();
        // Without a receiver the server ends, and takes its socket with it.
        tokio::time::timeout(Duration::from_secs(30), server)
            .await
            .unwrap()
            .unwrap();
        assert!(!socket_path(lock.run_dir()).exists());
    });
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

fn connect(run_dir: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket_path(run_dir)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

fn read_line(stream: &UnixStream) -> serde_json::Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn assert_answers(run_dir: &Path) {
    let response = run(query(run_dir, &Request::Status)).unwrap();
    assert_eq!(response, Response::Status(Box::new(testing::status())));
}

#[test]
fn status_makes_the_round_trip() {
    with_server(|run_dir| {
        assert_answers(run_dir);
        let mode = std::fs::metadata(socket_path(run_dir))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660);
    });
}

#[test]
fn one_connection_carries_many_requests_and_garbage_between_them() {
    with_server(|run_dir| {
        let mut stream = connect(run_dir);
        for _ in 0..2 {
            stream.write_all(b"{\"request\":\"status\"}\n").unwrap();
            assert_eq!(read_line(&stream)["status"]["version"], 1);
            for garbage in [
                &b"\n"[..],
                b"{}\n",
                b"{\"request\":\"dance\"}\n",
                b"\xff\x00\xfe\n",
            ] {
                stream.write_all(garbage).unwrap();
                let error = read_line(&stream)["error"].as_str().unwrap().to_owned();
                assert!(error.starts_with("not a request: "), "{error}");
            }
        }
    });
}

#[test]
fn orders_are_lines_too() {
    with_server(|run_dir| {
        let mut stream = connect(run_dir);
        for (line, order) in [
            (
                &b"{\"request\":\"switch\",\"uplink\":\"lte\"}\n"[..],
                "Switch { uplink: \"lte\" }",
            ),
            (
                b"{\"request\":\"drill\",\"uplink\":\"lte\",\"for_ms\":30000}\n",
                "Drill { uplink: \"lte\", for_ms: 30000 }",
            ),
        ] {
            stream.write_all(line).unwrap();
            assert_eq!(read_line(&stream)["done"], order);
        }
        // A switch without a name must not be taken for `auto`.
        stream.write_all(b"{\"request\":\"switch\"}\n").unwrap();
        assert!(read_line(&stream)["error"].is_string());
    });
}

#[test]
fn events_of_the_past_are_listed() {
    with_events(|run_dir, events| {
        for port in 0..150 {
            events.publish(testing::event(port));
        }
        let mut ports = Vec::new();
        let report = |response| {
            let Response::Event(event) = response else {
                panic!("{response:?}")
            };
            ports.extend(event.source_port);
            Ok(true)
        };
        run(events_of(run_dir, false, report)).unwrap();
        assert_eq!(ports, (50..150).collect::<Vec<_>>());
        let mut stream = connect(run_dir);
        stream.write_all(b"{\"request\":\"events\"}\n").unwrap();
        let first = read_line(&stream);
        assert_eq!(first["event"]["uplink"], "cable");
        assert_eq!(first["event"]["reason"], "gate");
    });
}

#[test]
fn followed_events_come_as_they_happen_until_the_client_leaves() {
    with_events(|run_dir, events| {
        events.publish(testing::event(1));
        let mut ports = Vec::new();
        let report = |response| {
            let Response::Event(event) = response else {
                panic!("{response:?}")
            };
            // The next event can be published only once this one has arrived.
            let port = event.source_port.unwrap();
            ports.push(port);
            events.publish(testing::event(port + 1));
            Ok(port < 300)
        };
        run(events_of(run_dir, true, report)).unwrap();
        assert_eq!(ports, (1..=300).collect::<Vec<_>>());
        assert_answers(run_dir);
    });
}

#[test]
fn slow_client_loses_events_and_learns_how_many() {
    with_events(|run_dir, events| {
        let mut slow = connect(run_dir);
        slow.write_all(b"{\"request\":\"events\",\"follow\":true}\n")
            .unwrap();
        // While it does not read, there are far more events than the socket and its queue hold.
        events.publish(testing::event(0));
        let mut lines = BufReader::new(slow);
        let mut next = || {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            serde_json::from_str::<serde_json::Value>(&line).unwrap()
        };
        assert_eq!(next()["event"]["source_port"], 0);
        for port in 1..=20_000 {
            events.publish(testing::event(port));
        }
        let (mut got, mut lost) = (0, 0);
        loop {
            let line = next();
            if let Some(number) = line["lost"].as_u64() {
                lost += number;
            } else {
                got += 1;
                if line["event"]["source_port"] == 20_000 {
                    break;
                }
            }
        }
        assert!(lost > 0);
        assert_eq!(got + lost, 20_000);
        // The other clients have not noticed.
        assert_answers(run_dir);
    });
}

#[test]
fn followers_leave_room_for_requests() {
    with_events(|run_dir, events| {
        events.publish(testing::event(0));
        let follow = || {
            let mut stream = connect(run_dir);
            stream
                .write_all(b"{\"request\":\"events\",\"follow\":true}\n")
                .unwrap();
            let line = read_line(&stream);
            (stream, line)
        };
        let mut followers: Vec<_> = (0..16).map(|_| follow()).collect();
        assert!(followers.iter().all(|(_, line)| line["event"].is_object()));
        assert!(follow().1["error"].is_string());
        assert_answers(run_dir);
        followers.pop();
        let again = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            follow().1["event"].is_object()
        });
        assert!(again);
    });
}

#[test]
fn events_are_lines_for_people() {
    let text = testing::event(40_000).to_string();
    let expected = "2026-01-02T03:04:05.000Z  cable  TCP 192.0.2.7:40000 -> 203.0.113.5:443: gate closed, reset";
    assert_eq!(text, expected);
    let ping = Event {
        protocol: 58,
        source: "2001:db8::1".parse().unwrap(),
        source_port: None,
        destination: "2001:db8::2".parse().unwrap(),
        destination_port: None,
        reason: Reason::Stale,
        answer: Answer::Dropped,
        ..testing::event(0)
    };
    let text = ping.to_string();
    assert!(
        text.ends_with("ICMPv6 2001:db8::1 -> 2001:db8::2: another uplink's address, dropped"),
        "{text}"
    );
}

#[test]
fn an_endless_line_is_refused() {
    with_server(|run_dir| {
        let mut stream = connect(run_dir);
        // Exactly the limit, so that no unread byte turns the server's close into a reset.
        stream.write_all(&[b'x'; 4096]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(
            answer,
            "{\"error\":\"a request is a line of up to 4096 bytes\"}\n"
        );
        assert_answers(run_dir);
    });
}

#[test]
fn silent_and_vanished_clients_disturb_no_other() {
    with_server(|run_dir| {
        let silent: Vec<_> = (0..8).map(|_| connect(run_dir)).collect();
        for _ in 0..100 {
            // The server may have too many clients for a moment and have closed this connection.
            connect(run_dir)
                .write_all(b"{\"request\":\"status\"}\n")
                .ok();
            connect(run_dir).write_all(b"{\"req").ok();
        }
        // The vanished clients may fill the server for a moment.
        let answered = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            run(query(run_dir, &Request::Status)).is_ok()
        });
        assert!(answered);
        drop(silent);
    });
}

#[test]
fn a_client_that_never_reads_disturbs_no_other() {
    with_server(|run_dir| {
        let mut deaf = connect(run_dir);
        deaf.set_nonblocking(true).unwrap();
        // Answers are longer than requests: first the answers fill the socket, then the server stops reading, and then the requests fill
        // it.
        let filled = (0..100_000).any(|_| {
            let written = deaf.write(b"{\"request\":\"status\"}\n");
            written.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        });
        assert!(filled);
        assert_answers(run_dir);
    });
}

#[test]
fn too_many_clients_are_turned_away_until_one_leaves() {
    with_server(|run_dir| {
        let mut clients: Vec<_> = (0..32).map(|_| connect(run_dir)).collect();
        let mut extra = connect(run_dir);
        let mut answer = Vec::new();
        assert_eq!(extra.read_to_end(&mut answer).unwrap(), 0);
        clients.pop();
        let answered = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            run(query(run_dir, &Request::Status)).is_ok()
        });
        assert!(answered);
    });
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    run(async {
        let dir = TempDir::new().unwrap();
        let path = socket_path(dir.path());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let error = query(dir.path(), &Request::Status).await.unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Failure::NotRunning { .. })),
            "{error:#}"
        );

        let lock = Lock::acquire(dir.path()).unwrap();
        let server = Server::bind(&lock).unwrap();
        drop(connect(dir.path()));
        drop(server);
        assert!(!path.exists());

        std::fs::write(&path, "precious").unwrap();
        let error = Server::bind(&lock).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error:#}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    });
}

#[test]
fn without_an_agent_the_socket_is_named() {
    let error = run(query(Path::new("/nonexistent"), &Request::Status)).unwrap_err();
    let Some(Failure::NotRunning { socket }) = error.downcast_ref() else {
        panic!("{error:#}")
    };
    assert_eq!(*socket, PathBuf::from("/nonexistent/control.sock"));
}
