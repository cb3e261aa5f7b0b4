//! An application with one TCP connection.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use failover_lab::{DISCARD_PORT, ECHO_PORT, Namespace, TARGET_V4};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

/// What it does.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// Writes as much as the connection takes.
    Bulk,
    /// Writes a little this often, and reads the echo.
    Every(Duration),
}

/// How its connection ended.
pub(super) struct End {
    /// When the application was told.
    pub(super) at: Instant,
    /// What it was told.
    pub(super) error: io::Error,
    /// When it wrote; not noted of a bulk sender.
    pub(super) writes: Vec<Instant>,
}

/// A running one; ended when dropped.
pub(super) struct Client {
    stream: TcpStream,
    end: Receiver<End>,
}

impl Client {
    /// Connects from `namespace` to a server in the internet.
    pub(super) fn start(namespace: &Namespace, pace: Pace) -> Result<Client> {
        let port = match pace {
            Pace::Bulk => DISCARD_PORT,
            Pace::Every(_) => ECHO_PORT,
        };
        let stream = connect(namespace, TARGET_V4, port)?;
        stream.set_nodelay(true)?;
        let mut worker = stream.try_clone()?;
        let (sender, end) = channel();
        namespace.spawn("client", move || {
            let mut writes = Vec::new();
            let Err(error) = match pace {
                Pace::Bulk => write_all(&mut worker),
                Pace::Every(interval) => write_every(&mut worker, interval, &mut writes),
            };
            let at = Instant::now();
            // Nobody listens to one that was dropped.
            sender.send(End { at, error, writes }).ok();
        })?;
        Ok(Client { stream, end })
    }

    /// Waits for the end of the connection; `None` when it is not told of one in time.
    pub(super) fn wait(&self, patience: Duration) -> Result<Option<End>> {
        match self.end.recv_timeout(patience) {
            Ok(end) => match end.error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Ok(Some(end)),
                _ => Err(end.error).context("the connection ended otherwise than by a cut"),
            },
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("a client has panicked"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Wakes the thread; fails only when the connection has ended already.
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

/// Connects from `namespace`.
pub(super) fn connect(namespace: &Namespace, target: IpAddr, port: u16) -> Result<TcpStream> {
    let target = SocketAddr::new(target, port);
    namespace.run(|| {
        TcpStream::connect_timeout(&target, Duration::from_secs(5))
            .with_context(|| format!("cannot connect to {target}"))
    })
}

/// The type says that it ends by an error alone.
fn write_all(stream: &mut TcpStream) -> io::Result<std::convert::Infallible> {
    loop {
        stream.write_all(&[0; 65536])?;
    }
}

fn write_every(
    stream: &mut TcpStream,
    interval: Duration,
    writes: &mut Vec<Instant>,
) -> io::Result<std::convert::Infallible> {
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next {
            writes.push(now);
            stream.write_all(&[0; 16])?;
            next = now + interval;
        }
        let timeout = TimeSpec::from(next.saturating_duration_since(Instant::now()));
        let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        if ppoll(&mut ready, Some(timeout), None)? > 0 && stream.read(&mut [0; 4096])? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}
