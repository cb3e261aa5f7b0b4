//! The socket.
//!
//! Blocking on purpose. The kernel works a request off inside `send`, and its answer lies in the receive queue when
//! `send` returns: there is nothing to wait for. So a switch is a handful of system calls in a row, without a
//! wake-up of the runtime in between.

use std::{io, time::Duration};

use nix::libc::nlmsghdr;
use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
        NLMSG_ERROR, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    },
    sys::{Socket, SocketAddr},
};
use socket2::SockRef;

use super::{
    error::{Error, Refused},
    message::{Request, answer, messages},
};

/// The kernel fills dumps in pieces of at most 32 KiB (`netlink_dump` in `net/netlink/af_netlink.c`).
pub(crate) const RECEIVE_BUFFER: usize = 64 * 1024;
/// Requests in one system call. If all are refused, the answers must fit into the receive queue: 208 KiB by default,
/// and each counts as about 1 KiB.
const BATCH: usize = 128;
/// A dump that changed while it was read is read again, at most this often.
const DUMP_ATTEMPTS: usize = 8;
/// How often something that may be done twice is done again when netlink itself fails.
const RETRIES: usize = 3;
/// The answer lies there when the request is sent. If it does not it never comes: there was no memory for it.
const LOST: Duration = Duration::from_secs(1);
const HEADER_LEN: usize = size_of::<nlmsghdr>();

/// The socket.
pub(crate) struct Netlink {
    protocol: isize,
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the network namespace of the calling thread. `protocol` is one of `rtnetlink::sys::protocols`.
    pub(crate) fn open(protocol: isize) -> io::Result<Netlink> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        set_up(&socket)?;
        Ok(Netlink {
            protocol,
            socket,
            port,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// Takes a fresh socket with the same address, in place of one that has failed. Where there is none to be had the old one stays.
    pub(crate) fn renew(&mut self) {
        let Ok(fresh) = Socket::new(self.protocol) else {
            return;
        };
        // Its address is free once it is closed.
        drop(std::mem::replace(&mut self.socket, fresh));
        let bound = self.socket.bind(&SocketAddr::new(self.port, 0));
        let bound = bound.or_else(|_| {
            self.port = self.socket.bind_auto()?.port_number();
            Ok::<_, io::Error>(())
        });
        if let Err(error) = bound.and_then(|()| set_up(&self.socket)) {
            tracing::debug!("a fresh netlink socket: {error}");
        }
    }

    /// The socket's address; notifications of changes that were made through it bear this number.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Asks for all of `requests`, [`BATCH`] in a system call. The kernel works them off in order, whatever became of
    /// the ones before.
    ///
    /// # Errors
    /// Netlink itself fails: any of the requests may have been carried out or not.
    pub(crate) fn commit<M: NetlinkSerializable>(
        &mut self,
        requests: Vec<Request<M>>,
    ) -> Result<Vec<Result<(), Refused>>, Error> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            answers.extend(self.commit_batch(requests.by_ref().take(BATCH).collect())?);
        }
        Ok(answers)
    }

    fn commit_batch<M: NetlinkSerializable>(
        &mut self,
        requests: Vec<Request<M>>,
    ) -> Result<Vec<Result<(), Refused>>, Error> {
        let first = self.sequence.wrapping_add(1);
        let last = requests.len() - 1;
        let mut bytes = Vec::new();
        let mut answers = Vec::with_capacity(requests.len());
        for (index, (message, flags)) in requests.into_iter().enumerate() {
            // A refusal is always answered, and in order. So when the last one is, whoever got no answer was heard.
            let ack = if index == last { NLM_F_ACK } else { 0 };
            self.append(&mut bytes, message, flags | ack);
            answers.push(Ok(()));
        }
        self.send(&bytes)?;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                let message = message?;
                let index = message.sequence_number().wrapping_sub(first);
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                // Anything else is a leftover of a dump that was given up.
                if index <= last && message.message_type() == NLMSG_ERROR {
                    answers[index] = match answer(message.payload(), HEADER_LEN) {
                        Err(Error::Refused(refused)) => Err(refused),
                        answer => Ok(answer?),
                    };
                    if index == last {
                        return Ok(answers);
                    }
                }
            }
        }
    }

    /// Asks for a list. `decode` gets the payload of each entry and may skip it.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses; the others if netlink itself fails.
    pub(crate) fn dump<T, M: NetlinkSerializable + Clone>(
        &mut self,
        request: &M,
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let entries = self.ask(request, NLM_F_DUMP, &mut decode)?;
            if let Some(entries) = entries {
                return Ok(entries);
            }
        }
        Err(Error::Unsteady)
    }

    /// Asks for one entry by its key.
    ///
    /// # Errors
    /// As for [`Netlink::dump`].
    pub(crate) fn get<T, M: NetlinkSerializable + Clone>(
        &mut self,
        request: &M,
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Option<T>, Error> {
        let entries = self.ask(request, NLM_F_ACK, &mut decode)?;
        Ok(entries.into_iter().flatten().next())
    }

    /// As [`Netlink::collect`]. What was only asked is asked again when netlink itself fails: an answer for which there was no memory is
    /// lost (`netlink_ack` in `net/netlink/af_netlink.c`).
    fn ask<T, M: NetlinkSerializable + Clone>(
        &mut self,
        request: &M,
        flags: u16,
        decode: &mut impl FnMut(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Option<Vec<T>>, Error> {
        let mut failures = 0;
        loop {
            match self.collect(request.clone(), flags, &mut *decode) {
                Err(error) if matches!(error, Error::Io { .. }) && failures < RETRIES => {
                    failures += 1;
                    self.renew();
                }
                entries => return entries,
            }
        }
    }

    /// All entries that come in answer; None if they changed meanwhile.
    fn collect<T, M: NetlinkSerializable>(
        &mut self,
        request: M,
        flags: u16,
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Option<Vec<T>>, Error> {
        let mut bytes = Vec::new();
        let sequence = self.append(&mut bytes, request, flags);
        self.send(&bytes)?;
        let mut entries = Vec::new();
        let mut intact = true;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                let message = message?;
                if message.sequence_number() != sequence {
                    continue;
                }
                intact &= message.flags() & NLM_F_DUMP_INTR == 0;
                // A dump that fails on the way ends with DONE and an error number, one that cannot start with ERROR.
                match message.message_type() {
                    NLMSG_DONE => answer(message.payload(), 0)?,
                    NLMSG_ERROR => answer(message.payload(), HEADER_LEN)?,
                    _ => {
                        entries.extend(decode(message.payload())?);
                        continue;
                    }
                }
                return Ok(intact.then_some(entries));
            }
        }
    }

    fn append<M: NetlinkSerializable>(
        &mut self,
        bytes: &mut Vec<u8>,
        message: M,
        flags: u16,
    ) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::InnerMessage(message),
        );
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
        self.sequence
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut failures = 0;
        loop {
            match self.socket.send(bytes, 0) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(sent) => {
                    let length = bytes.len();
                    return Err(Error::Truncated { sent, length });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing was asked yet.
                Err(_) if failures < RETRIES => {
                    failures += 1;
                    self.renew();
                }
                Err(source) => {
                    let call = "send";
                    return Err(Error::Io { call, source });
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let call = "receive";
                    return Err(Error::Io { call, source });
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// Prepares a socket that is bound.
fn set_up(socket: &Socket) -> io::Result<()> {
    socket.connect(&SocketAddr::new(0, 0))?;
    // Refusals with words, and without a copy of what was asked.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    // Let the kernel filter dumps, so that a full routing table is not copied to us.
    socket.set_netlink_get_strict_chk(true)?;
    SockRef::from(socket).set_read_timeout(Some(LOST))
}
