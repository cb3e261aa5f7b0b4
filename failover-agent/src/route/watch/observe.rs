//! The kernel's notifications: interfaces, addresses, default routes, routes to something on an uplink's link, rules, nexthop objects,
//! neighbours that do not answer, qdiscs and filters that go.
//!
//! A filter in the kernel (`filter.rs`) drops everything else (and what we did ourselves) before it wakes us: the changes of a
//! full routing table cost nothing. What remains is compared with what was known (`notification.rs`): only a difference is a
//! [`Change`].

use std::{collections::VecDeque, future::pending, io, time::Duration};

use anyhow::{Context, Result};
use nix::libc::ENOBUFS;
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use socket2::SockRef;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{change::Change, filter, notification::Known};
use crate::netlink::{RECEIVE_BUFFER, messages};
use crate::route::router::Router;

/// The stream of changes.
pub struct Observer {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// Of the socket through which we make changes ourselves.
    own_port: u32,
    protocol: u8,
    known: Known,
    changes: VecDeque<Change>,
    /// When everything is begun again, because the kernel refused something.
    again: Option<Instant>,
    /// Until then nothing is received: the socket failed.
    deaf: bool,
}

/// How long after a refusal the kernel is asked again.
const AGAIN: Duration = Duration::from_secs(1);

impl Observer {
    /// Starts to observe the interfaces with these names, in the network namespace of the calling thread, which must be in
    /// a tokio runtime. Changes made through `router` are not reported. To be opened before [`Router::discover`], so that
    /// nothing is missed in between.
    ///
    /// # Errors
    /// No netlink.
    pub fn open(router: &Router, interfaces: &[&str]) -> Result<Observer> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            let groups = [
                MulticastGroup::Link,
                MulticastGroup::Neigh,
                MulticastGroup::Ipv4Ifaddr,
                MulticastGroup::Ipv4Route,
                MulticastGroup::Ipv4Rule,
                MulticastGroup::Ipv6Ifaddr,
                MulticastGroup::Ipv6Route,
                MulticastGroup::Ipv6Rule,
                MulticastGroup::Nexthop,
                MulticastGroup::Tc,
            ];
            let mask = groups
                .iter()
                .fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
            socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
            Ok(socket)
        };
        // First listen, then look: what appears in between is announced.
        let socket = open().context("cannot observe routing changes")?;
        let protocol = router.config.protocol;
        let observer = Observer {
            socket,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            own_port: router.netlink.port(),
            protocol,
            known: Known::new(protocol, interfaces.iter().copied()),
            changes: VecDeque::new(),
            again: None,
            deaf: false,
        };
        observer.filter()?;
        Ok(observer)
    }

    /// Gives the kernel the filter. To be called when an uplink has got another interface index; what it lets pass of the
    /// new one begins here, and whoever hears of the change looks at everything that was before.
    fn filter(&self) -> Result<()> {
        let program = filter::program(self.own_port, self.protocol, &self.known.indexes());
        SockRef::from(self.socket.socket_ref())
            .attach_filter(&program)
            .context("cannot filter routing changes")
    }

    /// Observes the interfaces with these names from now on, in place of the ones before.
    pub fn watch<'a>(&mut self, interfaces: impl Iterator<Item = &'a str>) {
        self.known.watch(interfaces);
        self.try_to_filter();
    }

    /// Gives the kernel the filter, or tries again later. Until then it lets pass what was wanted before.
    fn try_to_filter(&mut self) {
        if let Err(error) = self.filter() {
            warn!("{error:#}: tried again in a second, and then everything is looked at");
            self.again = Some(Instant::now() + AGAIN);
        }
    }

    /// The next change. Cancelling loses nothing. Where the socket fails, nothing is heard for a second; then everything may have changed.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return change;
            }
            self.buffer.clear();
            let again = self.again;
            let received = tokio::select! {
                () = async {
                    match again {
                        Some(time) => sleep_until(time).await,
                        None => pending().await,
                    }
                } => {
                    self.resync();
                    return Change::Resync;
                }
                received = self.socket.recv(&mut self.buffer), if !self.deaf => received,
            };
            match received {
                Ok(()) => self.take_in(),
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {
                    self.resync();
                    return Change::Resync;
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        warn!(
            "cannot receive routing changes: {error}: tried again in a second, and then everything is looked at"
        );
        self.again = Some(Instant::now() + AGAIN);
        self.deaf = true;
    }

    /// After an overrun. The kernel goes on losing notifications, without another word, until everything that is still
    /// queued has been read (`NETLINK_S_CONGESTED` in `net/netlink/af_netlink.c`).
    fn resync(&mut self) {
        self.again = None;
        self.deaf = false;
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.failed(&error);
                    break;
                }
            }
        }
        self.known.forget();
        self.try_to_filter();
    }

    fn take_in(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        for message in messages(&buffer) {
            let change = message.map_err(Into::into);
            match change.and_then(|message| self.known.read(message)) {
                Ok(change) => {
                    if matches!(change, Some(Change::Link { replaced: true, .. })) {
                        self.try_to_filter();
                    }
                    self.changes.extend(change);
                }
                // Better to look once too often than to miss something.
                Err(error) => {
                    tracing::debug!("routing change not understood: {error:#}");
                    self.changes.push_back(Change::Resync);
                }
            }
        }
        self.buffer = buffer;
    }
}
