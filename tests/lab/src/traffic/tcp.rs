//! TCP clients that note when and how their connection ends.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::poll::PollFlags;

use super::SocketError;
use crate::{
    namespace::Namespace,
    wait::{paced, wait_for},
    worker::{Stop, Worker, lock},
};

/// How long connecting may take.
fn patience() -> Duration {
    paced(5000)
}

/// What a client does with its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TcpMode {
    /// Sends a few bytes every so often.
    Steady(Duration),
    /// Sends nothing.
    Idle,
    /// Sends as much as fits.
    Bulk,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When the client learned of it.
    pub at: Instant,
    /// The error; `None` when the server closed it.
    pub error: Option<SocketError>,
}

/// What is known of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct TcpState {
    /// The client's own address.
    pub local: SocketAddr,
    /// The server's.
    pub peer: SocketAddr,
    /// Bytes given to the kernel.
    pub sent_bytes: u64,
    /// Bytes echoed.
    pub received_bytes: u64,
    /// When something was last given to the kernel.
    pub last_send: Option<Instant>,
    /// When something was last received.
    pub last_receive: Option<Instant>,
    /// How it ended; `None` while it is open.
    pub ended: Option<Ended>,
}

/// A connection in use; closed when dropped.
#[derive(Debug)]
pub struct TcpClient {
    state: Arc<Mutex<TcpState>>,
    _worker: Worker,
}

impl TcpClient {
    pub(crate) fn start(
        namespace: &Namespace,
        target: SocketAddr,
        mode: TcpMode,
    ) -> Result<TcpClient> {
        let stream = namespace.run(|| {
            let stream = TcpStream::connect_timeout(&target, patience())
                .with_context(|| format!("cannot connect to {target}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        })?;
        let state = Arc::new(Mutex::new(TcpState {
            local: stream.local_addr()?,
            peer: target,
            sent_bytes: 0,
            received_bytes: 0,
            last_send: None,
            last_receive: None,
            ended: None,
        }));
        let client = Client {
            stream,
            mode,
            state: state.clone(),
        };
        let worker = Worker::start(namespace, "tcp-client", move |stop| client.run(&stop))?;
        Ok(TcpClient {
            state,
            _worker: worker,
        })
    }

    /// What is known of it now.
    pub fn state(&self) -> TcpState {
        *lock(&self.state)
    }

    /// Waits until the client has learned that its connection has ended.
    ///
    /// # Errors
    /// When it has not within `timeout`.
    pub fn wait_ended(&self, timeout: Duration) -> Result<Ended> {
        wait_for("the connection has ended", timeout, || {
            let state = self.state();
            state.ended.ok_or_else(|| format!("{state:?}"))
        })
    }

    /// Waits until something has been received after `after`, and says when.
    ///
    /// # Errors
    /// When nothing does within `timeout`.
    pub fn wait_received_after(&self, after: Instant, timeout: Duration) -> Result<Instant> {
        wait_for("something is received", timeout, || {
            let state = self.state();
            let at = state.last_receive.filter(|at| *at > after);
            at.ok_or_else(|| format!("{state:?}"))
        })
    }
}

/// The client's thread.
struct Client {
    stream: TcpStream,
    mode: TcpMode,
    state: Arc<Mutex<TcpState>>,
}

impl Client {
    fn run(mut self, stop: &Stop) {
        let mut next_send = Instant::now();
        loop {
            let (events, timeout) = match self.mode {
                TcpMode::Steady(_) => (
                    PollFlags::POLLIN,
                    Some(next_send.saturating_duration_since(Instant::now())),
                ),
                TcpMode::Idle => (PollFlags::POLLIN, None),
                TcpMode::Bulk => (PollFlags::POLLIN | PollFlags::POLLOUT, None),
            };
            let Some(ready) = stop.wait(&[(self.stream.as_fd(), events)], timeout) else {
                return;
            };
            let due = match self.mode {
                TcpMode::Steady(_) => Instant::now() >= next_send,
                TcpMode::Idle => false,
                TcpMode::Bulk => ready[0].contains(PollFlags::POLLOUT),
            };
            let mut result = Ok(());
            if due {
                result = self.send();
                if let TcpMode::Steady(interval) = self.mode {
                    next_send = (next_send + interval).max(Instant::now());
                }
            }
            // POLLERR and POLLHUP too: reading tells what it is.
            if result.is_ok() && !(ready[0] & !PollFlags::POLLOUT).is_empty() {
                result = self.receive();
            }
            if let Err(error) = result {
                let error = error.map(|error| SocketError::now(&error));
                lock(&self.state).ended = Some(Ended {
                    at: Instant::now(),
                    error,
                });
                return;
            }
        }
    }

    /// `Err(None)` means that the server has closed the connection.
    fn send(&mut self) -> Result<(), Option<io::Error>> {
        static ZEROS: [u8; 65536] = [0; 65536];
        let bytes = match self.mode {
            TcpMode::Bulk => &ZEROS[..],
            TcpMode::Steady(_) | TcpMode::Idle => &ZEROS[..16],
        };
        let at = Instant::now();
        match self.stream.write(bytes) {
            Ok(length) => {
                let mut state = lock(&self.state);
                state.sent_bytes += length as u64;
                state.last_send = Some(at);
                Ok(())
            }
            Err(error) => would_block_is_fine(error),
        }
    }

    fn receive(&mut self) -> Result<(), Option<io::Error>> {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(None),
            Ok(length) => {
                let mut state = lock(&self.state);
                state.received_bytes += length as u64;
                state.last_receive = Some(Instant::now());
                Ok(())
            }
            Err(error) => would_block_is_fine(error),
        }
    }
}

fn would_block_is_fine(error: io::Error) -> Result<(), Option<io::Error>> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(Some(error)),
    }
}
