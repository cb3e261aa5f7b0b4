//! ICMP and ICMPv6 echo through surge-ping, bound to one interface, one source address and the probe mark.
//!
//! surge-ping reads the socket in a task of its own, which runs once the runtime has asked the kernel what can be read. A timer may fire
//! before that.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::BorrowedFd,
    time::Duration,
};

use failover_policy::Outcome;
use futures_util::{FutureExt as _, future::BoxFuture};
use nix::libc;
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::{
    ProbeSpec,
    identity::Identity,
    patience::{Look, Patience},
};
use crate::datapath::{ProbeSockets, Registration};

/// Type 0 of RFC 792.
const ICMP_ECHO_REPLY: u8 = 0;
/// Type 129 of RFC 4443.
const ICMPV6_ECHO_REPLY: u8 = 129;

/// How often the runtime is given a chance to read a socket before a probe is judged. Each time it reads all that is there, or 128
/// messages.
const READINGS: usize = 64;

/// The socket that probes one uplink in one family.
pub(super) struct Link {
    interface: String,
    source: Option<IpAddr>,
    mark: u32,
    timeout: Duration,
    sockets: ProbeSockets,
    /// Opened when it is needed, and again after it has become useless (interface or address gone).
    client: Option<(Client, Identity)>,
    /// Makes closed gates pass what `client` sends.
    registration: Option<Registration>,
}

/// How one probe ended.
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    /// Whether the socket has become useless.
    pub(super) reopen: bool,
    /// Why the probe is blind, if it is.
    pub(super) obstacle: Option<String>,
}

impl Answer {
    fn lost() -> Self {
        Answer {
            outcome: Outcome::Lost,
            reopen: false,
            obstacle: None,
        }
    }

    /// The probe is lost, and the socket useless.
    fn link_lost() -> Self {
        Answer {
            reopen: true,
            ..Answer::lost()
        }
    }

    fn blind(obstacle: String) -> Self {
        Answer {
            outcome: Outcome::Blind,
            reopen: true,
            obstacle: Some(obstacle),
        }
    }

    /// No answer had arrived when the agent last checked, which it could not do for a while.
    fn slept(time: Duration) -> Self {
        Answer {
            reopen: false,
            ..Answer::blind(format!(
                "the agent was paused: the end of a probe's timeout was noticed {} ms late",
                time.as_millis()
            ))
        }
    }

    /// For a target on the uplink's own link, which is not probed.
    pub(super) fn on_link(target: IpAddr) -> Self {
        Answer {
            reopen: false,
            ..Answer::blind(format!(
                "target {target} is on the uplink's own network: choose one beyond the gateway"
            ))
        }
    }
}

impl Link {
    pub(super) fn new(spec: &ProbeSpec, sockets: ProbeSockets) -> Self {
        Link {
            interface: spec.interface.clone(),
            source: spec.source,
            mark: spec.mark,
            timeout: spec.timeout,
            sockets,
            client: None,
            registration: None,
        }
    }

    pub(super) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// Drops the socket; the next probe opens a new one.
    pub(super) fn close(&mut self) {
        self.client = None;
        self.registration = None;
    }

    /// Sends an echo request. The returned future ends with its answer, within the timeout.
    pub(super) fn probe(&mut self, target: IpAddr, round: u64) -> BoxFuture<'static, Answer> {
        let (client, identity) = match self.client() {
            Ok(client) => client,
            Err(error) => return std::future::ready(answer_to_io_error(&error)).boxed(),
        };
        let mut patience = Patience::new(Instant::now(), self.timeout);
        // 16 bits are enough: a probe ends long before the sequence number wraps around.
        let sequence = PingSequence((round & 0xffff) as u16);
        let source = self.source;
        async move {
            let payload = identity.payload();
            let mut pinger = client.pinger(target, identity.identifier).await;
            // The agent measures the timeout itself. surge-ping's own timeout starts only after the request was handed to the kernel, which
            // can take long when a neighbour does not answer, and it does not read the socket before it judges.
            pinger.timeout(Duration::MAX);
            let answer = pinger.ping(sequence, &payload);
            let mut answer = std::pin::pin!(answer);
            let (result, waited) = loop {
                if let Ok(result) = timeout_at(patience.next(), &mut answer).await {
                    break (result, patience.slept(Instant::now()));
                }
                let read = tokio::select! {
                    biased;
                    result = &mut answer => Some(result),
                    () = read_all(&client) => None,
                };
                if let Some(result) = read {
                    break (result, patience.slept(Instant::now()));
                }
                match patience.look(Instant::now()) {
                    Look::Wait { .. } => {}
                    Look::Lost => return Answer::lost(),
                    Look::Slept(time) => return Answer::slept(time),
                }
            };
            match result {
                // The kernel also reports "unreachable" when the source address is gone (`ip_route_output_key_hash_rcu` in
                // `net/ipv4/route.c`); that is the same as a socket that cannot be bound.
                Err(SurgeError::IOError(error)) => {
                    answer_to_io_error(&source.and_then(bind_error).unwrap_or(error))
                }
                result => answer_to(result, waited),
            }
        }
        .boxed()
    }

    fn client(&mut self) -> io::Result<(Client, Identity)> {
        let (client, identity) = match self.client.take() {
            Some(client) => client,
            None => self.open()?,
        };
        if self.registration.is_none() {
            self.register(&client, identity.identifier);
        }
        Ok(self.client.insert((client, identity)).clone())
    }

    fn open(&self) -> io::Result<(Client, Identity)> {
        let source = self.source.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let client = open(&self.interface, source, self.mark)?;
        let identity = Identity::random()?;
        identity.guard(&client, source)?;
        Ok((client, identity))
    }

    /// Makes closed gates pass the probes. If the kernel refuses, the next probe tries again: by an open gate probes need no registration,
    /// and those that a closed gate cuts are counted.
    fn register(&mut self, client: &Client, identifier: PingIdentifier) {
        let identifier = Some(identifier.0);
        match register(&self.sockets, client, &self.interface, identifier) {
            Ok(registration) => self.registration = Some(registration),
            Err(error) => warn!(
                "{}: a closed gate will cut the next probe: {error:#}",
                self.interface
            ),
        }
    }
}

/// Waits until surge-ping has read what is in the socket: an answer that has arrived is not missing.
async fn read_all(client: &Client) {
    let socket = client.get_socket();
    // SAFETY: `socket` keeps the descriptor open as long as this future.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.get_native_sock()) };
    let socket = socket2::SockRef::from(&fd);
    for _ in 0..READINGS {
        // The call does not block. Anything but a message is left to the task that reads the socket.
        if socket.peek(&mut [MaybeUninit::uninit()]).is_err() {
            return;
        }
        yield_now().await;
    }
}

/// Opens a socket that probes by one interface and from one address.
pub(crate) fn open(interface: &str, source: IpAddr, mark: u32) -> io::Result<Client> {
    let config = Config::builder()
        .kind(match source {
            IpAddr::V4(_) => ICMP::V4,
            IpAddr::V6(_) => ICMP::V6,
        })
        // A datagram ICMP socket would need net.ipv4.ping_group_range; the agent has CAP_NET_RAW anyway.
        .sock_type_hint(socket2::Type::RAW)
        .interface(interface)
        .bind(SocketAddr::new(source, 0))
        .build();
    let client = Client::new(&config)?;
    set_mark(&client, mark)?;
    Ok(client)
}

/// Makes closed gates pass what a client sends by `interface`.
pub(crate) fn register(
    sockets: &ProbeSockets,
    client: &Client,
    interface: &str,
    identifier: Option<u16>,
) -> anyhow::Result<Registration> {
    let socket = client.get_socket();
    // SAFETY: `socket` keeps the descriptor open for the whole call.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.get_native_sock()) };
    sockets.register(&socket2::SockRef::from(&fd), interface, identifier)
}

/// Why a socket cannot have this source address any more; `None` if it can.
fn bind_error(source: IpAddr) -> Option<io::Error> {
    UdpSocket::bind((source, 0)).err()
}

/// Marks everything that the client sends, so that the agent's rules route it.
fn set_mark(client: &Client, mark: u32) -> io::Result<()> {
    let socket = client.get_socket();
    // SAFETY: `socket` keeps the descriptor open for the whole call.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.get_native_sock()) };
    socket2::SockRef::from(&fd).set_mark(mark)
}

/// Judges what surge-ping returned. `waited`: the answer may have been in the socket for a while.
fn answer_to(result: Result<(IcmpPacket, Duration), SurgeError>, waited: bool) -> Answer {
    match result {
        Ok((packet, rtt)) if is_echo_reply(&packet) => Answer {
            outcome: Outcome::Reply {
                rtt: (!waited).then_some(rtt),
            },
            reopen: false,
            obstacle: None,
        },
        // surge-ping returns Ok for ICMP errors too: the network reports that it cannot reach the target.
        Ok(_) | Err(SurgeError::Timeout { .. }) => Answer::lost(),
        Err(SurgeError::IOError(error)) => answer_to_io_error(&error),
        Err(error) => Answer::blind(format!("probes cannot be sent: {error}")),
    }
}

/// Whether a packet is an echo reply: surge-ping accepts every ICMP message about a probe as an answer.
pub(crate) fn is_echo_reply(packet: &IcmpPacket) -> bool {
    match packet {
        IcmpPacket::V4(packet) => packet.get_icmp_type().0 == ICMP_ECHO_REPLY,
        IcmpPacket::V6(packet) => packet.get_icmpv6_type().0 == ICMPV6_ECHO_REPLY,
    }
}

/// Whether a socket error says something about the link (lost) or about this host (blind).
fn answer_to_io_error(error: &io::Error) -> Answer {
    match error.raw_os_error() {
        // No route to the target: a loss, since reaching the target is the uplink's purpose.
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ETIMEDOUT) => {
            Answer::lost()
        }
        // The interface is gone or down: a loss, and the socket is useless.
        Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO) => Answer::link_lost(),
        // `NF_DROP` in an output chain.
        Some(libc::EPERM | libc::EACCES) => Answer::blind(format!(
            "a firewall of this host refuses the probes ({error}): let ICMP echo requests pass"
        )),
        // The address is gone (EADDRNOTAVAIL, EINVAL): another may follow, and if none does, the policy learns of it. Or memory or
        // descriptors are short. None of that says anything about the link.
        _ => Answer::blind(format!("probes cannot be sent: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(errno: i32) -> Outcome {
        answer_to_io_error(&io::Error::from_raw_os_error(errno)).outcome
    }

    #[test]
    fn errors_of_the_link_are_losses_and_errors_of_the_host_are_blindness() {
        assert_eq!(outcome(libc::ENETUNREACH), Outcome::Lost);
        assert_eq!(outcome(libc::ENODEV), Outcome::Lost);
        assert_eq!(outcome(libc::EPERM), Outcome::Blind);
        assert_eq!(outcome(libc::EMFILE), Outcome::Blind);
        assert_eq!(outcome(libc::EADDRNOTAVAIL), Outcome::Blind);
    }

    #[test]
    fn an_address_that_is_not_there_is_no_fault_of_the_link() {
        assert!(bind_error("127.0.0.1".parse().unwrap()).is_none());
        // A documentation address (RFC 5737).
        let error = bind_error("192.0.2.77".parse().unwrap()).unwrap();
        assert_eq!(answer_to_io_error(&error).outcome, Outcome::Blind);
    }

    #[test]
    fn a_socket_is_reopened_only_when_it_is_of_no_more_use() {
        let reopen = |errno| answer_to_io_error(&io::Error::from_raw_os_error(errno)).reopen;
        assert!(!reopen(libc::EHOSTUNREACH));
        assert!(reopen(libc::ENODEV));
    }
}
