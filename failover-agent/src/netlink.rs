//! Blocking netlink: requests, answers, dumps, whatever the protocol (routing, socket diagnosis, netfilter).
//!
//! Blocking on purpose. The kernel works a request off inside `send`, and its answer lies in the receive queue when
//! `send` returns: there is nothing to wait for. So a switch is a handful of system calls in a row, without a
//! wake-up of the runtime in between.

use std::{io, time::Duration};

use anyhow::{Context, Result, bail};
use nix::libc::{EEXIST, ENOENT, ESRCH, nlmsghdr};
use rtnetlink::{
    packet_core::{
        DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_ALIGNTO,
        NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
        NetlinkSerializable, NlasIterator,
    },
    sys::{Socket, SocketAddr},
};
use socket2::SockRef;
use thiserror::Error;

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
/// The kernel's own words for what was wrong (`include/uapi/linux/netlink.h`).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The kernel refused a request.
#[derive(Debug, Error)]
#[error("{}{}", io::Error::from_raw_os_error(*errno), message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
pub(crate) struct Refused {
    /// Positive error number.
    pub(crate) errno: i32,
    /// What the kernel says about it.
    pub(crate) message: Option<String>,
}

impl Refused {
    /// What was to be added is there already.
    pub(crate) fn exists(&self) -> bool {
        self.errno == EEXIST
    }

    /// What was to be removed is not there (any more).
    pub(crate) fn missing(&self) -> bool {
        self.errno == ESRCH || self.errno == ENOENT
    }
}

/// Netlink itself has failed: the kernel may have carried out what it was asked, or not.
#[derive(Debug, Error)]
#[error("netlink: {0}: {1}")]
struct Unheard(&'static str, io::Error);

/// A change to ask of the kernel: the message and its `NLM_F_*` flags besides REQUEST and ACK.
pub(crate) type Request<M> = (M, u16);

/// A message of a protocol that we write by hand.
#[derive(Clone)]
pub(crate) struct Message {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// The protocol's header, then attributes.
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// Appends an attribute (`struct nlattr`), padded to a multiple of 4.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let start = self.payload.len();
        self.payload.resize(start + attribute.buffer_len(), 0);
        attribute.emit(&mut self.payload[start..]);
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

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
    ) -> Result<Vec<Result<(), Refused>>> {
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
    ) -> Result<Vec<Result<(), Refused>>> {
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
                    answers[index] = answer(message.payload(), HEADER_LEN)?;
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
    /// [`Refused`] in the chain if the kernel refuses; netlink itself fails.
    pub(crate) fn dump<T, M: NetlinkSerializable + Clone>(
        &mut self,
        request: &M,
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let entries = self.ask(request, NLM_F_DUMP, &mut decode)?;
            if let Some(entries) = entries {
                return Ok(entries);
            }
        }
        bail!("the kernel's list changes faster than it can be read")
    }

    /// Asks for one entry by its key.
    ///
    /// # Errors
    /// As for [`Netlink::dump`].
    pub(crate) fn get<T, M: NetlinkSerializable + Clone>(
        &mut self,
        request: &M,
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let entries = self.ask(request, NLM_F_ACK, &mut decode)?;
        Ok(entries.into_iter().flatten().next())
    }

    /// As [`Netlink::collect`]. What was only asked is asked again when netlink itself fails: an answer for which there was no memory is
    /// lost (`netlink_ack` in `net/netlink/af_netlink.c`).
    fn ask<T, M: NetlinkSerializable + Clone>(
        &mut self,
        request: &M,
        flags: u16,
        decode: &mut impl FnMut(&[u8]) -> Result<Option<T>>,
    ) -> Result<Option<Vec<T>>> {
        let mut failures = 0;
        loop {
            match self.collect(request.clone(), flags, &mut *decode) {
                Err(error) if error.is::<Unheard>() && failures < RETRIES => {
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
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>>,
    ) -> Result<Option<Vec<T>>> {
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
                let result = match message.message_type() {
                    NLMSG_DONE => answer(message.payload(), 0)?,
                    NLMSG_ERROR => answer(message.payload(), HEADER_LEN)?,
                    _ => {
                        entries.extend(decode(message.payload())?);
                        continue;
                    }
                };
                result?;
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

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut failures = 0;
        loop {
            match self.socket.send(bytes, 0) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(sent) => bail!("netlink: sent {sent} of {} bytes", bytes.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing was asked yet.
                Err(_) if failures < RETRIES => {
                    failures += 1;
                    self.renew();
                }
                Err(error) => return Err(Unheard("send", error).into()),
            }
        }
    }

    fn receive(&mut self) -> Result<()> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Unheard("receive", error).into()),
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

/// The messages in a datagram.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        Some(match NetlinkBuffer::new_checked(bytes) {
            Ok(message) => {
                // Each message starts at a multiple of this.
                let length = usize::try_from(message.length())
                    .unwrap_or(usize::MAX)
                    .next_multiple_of(NLMSG_ALIGNTO.into());
                bytes = bytes.get(length..).unwrap_or_default();
                Ok(message)
            }
            Err(error) => {
                bytes = &[];
                Err(error).context("netlink: malformed message")
            }
        })
    })
}

/// Reads the payload of `NLMSG_ERROR` or `NLMSG_DONE`: the negative error number (0: done), the header of what was asked
/// (ERROR only), attributes.
fn answer(payload: &[u8], header_len: usize) -> Result<Result<(), Refused>> {
    let (code, rest) = payload
        .split_first_chunk::<4>()
        .context("netlink: answer too short")?;
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Ok(Ok(()));
    }
    let message = NlasIterator::new(rest.get(header_len..).unwrap_or_default())
        .flatten()
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            let text = attribute.value();
            String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned()
        });
    Ok(Err(Refused {
        errno: -code,
        message,
    }))
}
