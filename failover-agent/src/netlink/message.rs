//! Messages written by hand, and datagrams taken apart.

use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable, NLMSG_ALIGNTO, NetlinkBuffer, NetlinkSerializable,
    NlasIterator,
};

use super::error::{Error, Refused};

/// The kernel's own words for what was wrong (`include/uapi/linux/netlink.h`).
const NLMSGERR_ATTR_MSG: u16 = 1;

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

/// The messages in a datagram.
pub(crate) fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>, DecodeError>> {
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
                let error = format!("netlink: malformed message: {error}");
                Err(DecodeError::from(error))
            }
        })
    })
}

/// Reads the payload of `NLMSG_ERROR` or `NLMSG_DONE`: the negative error number (0: done), the header of what was asked
/// (ERROR only), attributes.
///
/// # Errors
/// [`Error::Refused`] for any number but 0; there is none.
pub(super) fn answer(payload: &[u8], header_len: usize) -> Result<(), Error> {
    let (code, rest) = payload
        .split_first_chunk::<4>()
        .ok_or_else(|| DecodeError::from("netlink: answer too short"))?;
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Ok(());
    }
    let message = NlasIterator::new(rest.get(header_len..).unwrap_or_default())
        .flatten()
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            let text = attribute.value();
            String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned()
        });
    Err(Error::Refused(Refused {
        errno: -code,
        message,
    }))
}
