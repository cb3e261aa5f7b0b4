//! An application on the host with many idle connections.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use failover_lab::{Lab, TARGET_V4};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, Script, client::connect, start_agent, switch};
use crate::{
    Family, Settings,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

pub(crate) const IDLE: Family = Family {
    figures: &[Figure {
        name: "cut-idle-ms",
        about: "1,000 idle TCP connections of one application on the host, from the decision to switch, with the new route still to be put in before the gate is closed, to the last one's error",
        unit: "ms",
        goal: Goal::AtMost(30.0),
    }],
    measure: |settings| Ok(vec![idle(settings)?]),
};

/// Number of connections.
const CONNECTIONS: usize = 1000;

/// Where the other ends listen.
const PORT: u16 = 1000;

fn idle(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().build()?;
    let by_hand = Lab::builder().build()?;
    let agent = start_agent(settings, &lab)?;
    let mut samples = Samples::default();
    for _ in 0..settings.choose(15, 2) {
        let server = listen(&lab)?;
        let application = Application::start(&lab)?;
        let switched = switch(&agent, "lte", "lte")?;
        let last = application.last_error()?;
        let last = last.context("not every connection was told")?;
        samples.push_ms(last.saturating_duration_since(switched.decided));
        switch(&agent, "auto", "cable")?;
        drop(server);
    }
    let mut reference = Samples::default();
    for _ in 0..settings.choose(3, 1) {
        let _server = listen(&by_hand)?;
        let application = Application::start(&by_hand)?;
        let _script = Script::switch(&by_hand)?;
        let switched = Instant::now();
        let last = application.last_error()?;
        reference.push_ms(last.map_or(PATIENCE, |last| last.saturating_duration_since(switched)));
    }
    Ok(Measurement {
        samples,
        reference: Reference {
            what: "the same when `ip route` makes the other uplink active and `iptables` DROPs what leaves by the old one; 3000 means not all have an error in 3 s",
            value: ReferenceValue::Measured(reference),
        },
    })
}

/// The other ends: connections that nobody accepts are as good as any, and cost no thread.
fn listen(lab: &Lab) -> Result<Socket> {
    lab.internet().namespace().run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(TARGET_V4, PORT).into())?;
        socket.listen(i32::try_from(2 * CONNECTIONS)?)?;
        Ok(socket)
    })
}

/// Its thread waits for errors, as any event loop does.
struct Application(JoinHandle<Result<Option<Instant>>>);

impl Application {
    /// Connects, and goes to sleep.
    fn start(lab: &Lab) -> Result<Application> {
        let host = lab.host().namespace();
        let connections = (0..CONNECTIONS).map(|_| connect(host, TARGET_V4, PORT));
        let connections = connections.collect::<Result<Vec<_>>>()?;
        let thread = host.spawn("idle-clients", move || wait(&connections))?;
        Ok(Application(thread))
    }

    /// When the last connection had its error; `None` if not all had one in time.
    fn last_error(self) -> Result<Option<Instant>> {
        self.0.join().ok().context("the application has panicked")?
    }
}

fn wait(connections: &[TcpStream]) -> Result<Option<Instant>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, connection) in connections.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
        epoll.add(connection.as_fd(), event)?;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut open = connections.len();
    let mut last = None;
    while open > 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut events = [EpollEvent::empty(); 64];
        let timeout = EpollTimeout::try_from(left.max(Duration::from_millis(1)))?;
        let count = match epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        for event in &events[..count] {
            let connection = &connections[usize::try_from(event.data())?];
            let error = connection.take_error()?;
            ensure!(error.is_some(), "an idle connection was closed, not cut");
            epoll.delete(connection.as_fd())?;
            open -= 1;
            last = Some(Instant::now());
        }
    }
    Ok(last)
}
