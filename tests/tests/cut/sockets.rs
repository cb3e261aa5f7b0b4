//! Sockets in the hands of a test.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use failover_lab::{Ended, Namespace, wait_for};
use failover_tests::fixtures::SOON;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::fixtures::AT_ONCE;

/// A TCP connection with both ends in hand.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    /// Open as long as the connection: it belongs to a server.
    _listener: TcpListener,
}

impl Pair {
    /// Connects to a server at `address`.
    pub(crate) fn connect(
        client: (&Namespace, Option<IpAddr>),
        server: (&Namespace, IpAddr),
    ) -> Result<Pair> {
        let (namespace, address) = server;
        let listener = namespace.run(|| Ok(TcpListener::bind((address, 0))?))?;
        let (namespace, source) = client;
        let client = connect_from(namespace, source, listener.local_addr()?, SOON)
            .with_context(|| format!("cannot connect to {address}"))?;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SOON))?;
        }
        Ok(Pair {
            client,
            server,
            _listener: listener,
        })
    }

    /// Sends something each way.
    pub(crate) fn exchange(&mut self) -> Result<()> {
        pass(&mut self.client, &mut self.server).context("client to server")?;
        pass(&mut self.server, &mut self.client).context("server to client")
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    from.write_all(b"ping")?;
    let mut buffer = [0; 4];
    to.read_exact(&mut buffer)?;
    ensure!(buffer == *b"ping", "{buffer:?}");
    Ok(())
}

fn tcp(
    namespace: &Namespace,
    source: Option<IpAddr>,
    interface: Option<&str>,
    target: IpAddr,
) -> Result<Socket> {
    let domain = if target.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    namespace.run(|| {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind_device(interface.map(str::as_bytes))?;
        if let Some(source) = source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        Ok(socket)
    })
}

/// Connects from an address.
pub(crate) fn connect_from(
    namespace: &Namespace,
    source: Option<IpAddr>,
    target: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream> {
    let socket = tcp(namespace, source, None, target.ip())?;
    socket.connect_timeout(&SockAddr::from(target), timeout)?;
    Ok(socket.into())
}

/// The error of connecting by a certain interface.
pub(crate) fn refusal_by(
    namespace: &Namespace,
    interface: &str,
    source: IpAddr,
    target: SocketAddr,
) -> Result<ErrorKind> {
    let socket = tcp(namespace, Some(source), Some(interface), target.ip())?;
    match socket.connect_timeout(&SockAddr::from(target), AT_ONCE) {
        Ok(()) => bail!("connected to {target} by {interface}"),
        Err(error) => Ok(error.kind()),
    }
}

/// A connection that nobody has answered yet (SYN-SENT).
pub(crate) fn half_open(namespace: &Namespace, target: SocketAddr) -> Result<Socket> {
    let socket = tcp(namespace, None, None, target.ip())?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(target)) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => Ok(socket),
        other => bail!("connecting is not in progress: {other:?}"),
    }
}

/// Waits for the error that a socket reports.
pub(crate) fn wait_for_error(
    timeout: Duration,
    take_error: impl Fn() -> io::Result<Option<io::Error>>,
) -> Result<ErrorKind> {
    wait_for(
        "the socket reports an error",
        timeout,
        || match take_error() {
            Ok(Some(error)) => Ok(error.kind()),
            other => Err(format!("{other:?}")),
        },
    )
}

/// Sends until the far end's end of the connection is known, as an application would that learns of it when it has something to say.
pub(crate) fn error_of_sending(stream: &mut TcpStream, timeout: Duration) -> Result<ErrorKind> {
    let deadline = Instant::now() + timeout;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    while Instant::now() < deadline {
        if let Err(error) = stream.write_all(b"ping") {
            return Ok(error.kind());
        }
        match stream.read(&mut [0; 64]) {
            Ok(0) => bail!("the far end has closed the connection"),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Ok(error.kind()),
            _ => {}
        }
    }
    bail!("the connection has not ended within {timeout:?}")
}

/// Checks that a connection was cut: RST or SOCK_DESTROY, whichever reached it first.
#[track_caller]
pub(crate) fn assert_cut(what: &str, ended: &Ended) {
    let kind = ended.error.map(|error| error.kind);
    assert!(
        matches!(
            kind,
            Some(ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
        ),
        "{what}: {ended:?}"
    );
}
