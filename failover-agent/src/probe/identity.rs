//! How a probe socket recognizes the answers to its own probes: by an identifier and a token, which no other host can guess, and a classic
//! BPF program (`linux/filter.h`) that makes the kernel drop everything else before it wakes the agent.

use std::{io, net::IpAddr, os::fd::BorrowedFd};

use bytes::Bytes;
use socket2::{SockFilter, SockRef};
use surge_ping::{Client, PingIdentifier};

use crate::classic_bpf::{
    JUMP_IF_EQUAL, LOAD_8_BEHIND_X, LOAD_16_BEHIND_X, LOAD_32_BEHIND_X,
    LOAD_IPV4_HEADER_LENGTH_TO_X, LOAD_X, RETURN,
};

/// Follows the token; explains the packet to a person who captures the traffic.
const NAME: &[u8] = b"failover-agent probe";

/// Size of `struct icmphdr` and `struct icmp6hdr`: the token stands behind it.
const HEADER: u32 = 8;
/// Offset of the identifier in an echo message.
const IDENTIFIER: u32 = 4;
/// Size of an IPv4 header without options, as our requests have it.
const IPV4_HEADER: u32 = 20;
/// Size of an IPv6 header.
const IPV6_HEADER: u32 = 40;

// Types of RFC 792.
const ECHO_REPLY: u32 = 0;
const UNREACHABLE: u32 = 3;
const ECHO_REQUEST: u32 = 8;
const TIME_EXCEEDED: u32 = 11;

// Types of RFC 4443.
const UNREACHABLE_V6: u32 = 1;
const TIME_EXCEEDED_V6: u32 = 3;
const ECHO_REQUEST_V6: u32 = 128;
const ECHO_REPLY_V6: u32 = 129;

/// What distinguishes the probes of one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) identifier: PingIdentifier,
    token: [u32; 2],
}

impl Identity {
    /// A new random identity, which no other host can predict.
    ///
    /// # Errors
    ///
    /// The kernel has no random numbers.
    pub(crate) fn random() -> io::Result<Self> {
        let word = || getrandom::u32().map_err(io::Error::from);
        let [high, low, ..] = word()?.to_be_bytes();
        Ok(Identity {
            identifier: PingIdentifier(u16::from_be_bytes([high, low])),
            token: [word()?, word()?],
        })
    }

    /// The payload of the probes.
    pub(crate) fn payload(&self) -> Bytes {
        let token = self.token.map(u32::to_be_bytes);
        Bytes::from([token.as_flattened(), NAME].concat())
    }

    /// Makes the kernel drop, from now on, what is no answer to a probe of this identity before it reaches `client`, which has the family
    /// of `source`.
    ///
    /// # Errors
    ///
    /// The kernel refuses the filter.
    pub(crate) fn guard(&self, client: &Client, source: IpAddr) -> io::Result<()> {
        let socket = client.get_socket();
        // SAFETY: `socket` keeps the descriptor open for the whole call.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.get_native_sock()) };
        SockRef::from(&fd).attach_filter(&self.filter(source))
    }

    /// Passes an echo reply with our identifier and token, and an ICMP error that quotes a request of ours up to the token. An error that
    /// quotes less could come from any host; then the probe is lost by its timeout.
    ///
    /// A raw IPv4 socket gets packets with their IP header, a raw IPv6 socket without.
    fn filter(&self, source: IpAddr) -> Vec<SockFilter> {
        let (start, reply, errors, quote) = match source {
            IpAddr::V4(_) => (
                (LOAD_IPV4_HEADER_LENGTH_TO_X, 0),
                ECHO_REPLY,
                [UNREACHABLE, TIME_EXCEEDED],
                (IPV4_HEADER, ECHO_REQUEST),
            ),
            IpAddr::V6(_) => (
                (LOAD_X, 0),
                ECHO_REPLY_V6,
                [UNREACHABLE_V6, TIME_EXCEEDED_V6],
                (IPV6_HEADER, ECHO_REQUEST_V6),
            ),
        };
        let (quoted_header, request) = quote;
        // From here on offsets count from the ICMP header, to which X points. A load beyond the packet's end drops it.
        let mut error = self.checks(HEADER + quoted_header, request);
        let mut answer = self.checks(0, reply);
        // Jumps over the rest of this program to the next one.
        let jump = |code, number, over: usize| {
            SockFilter::new(code, u8::try_from(over).unwrap_or(u8::MAX), 0, number)
        };
        let mut program = vec![
            SockFilter::new(start.0, 0, 0, start.1),
            SockFilter::new(LOAD_8_BEHIND_X, 0, 0, 0),
            jump(JUMP_IF_EQUAL, errors[0], answer.len() + 1),
            jump(JUMP_IF_EQUAL, errors[1], answer.len()),
        ];
        program.append(&mut answer);
        program.append(&mut error);
        program
    }

    /// Passes the packet if there is an echo message of this type and identity at this offset, and drops it otherwise.
    fn checks(&self, offset: u32, kind: u32) -> Vec<SockFilter> {
        let checks = [
            (LOAD_8_BEHIND_X, offset, kind),
            (
                LOAD_16_BEHIND_X,
                offset + IDENTIFIER,
                u32::from(self.identifier.0),
            ),
            (LOAD_32_BEHIND_X, offset + HEADER, self.token[0]),
            (LOAD_32_BEHIND_X, offset + HEADER + 4, self.token[1]),
        ];
        let mut program = Vec::new();
        for (load, offset, expected) in checks {
            program.push(SockFilter::new(load, 0, 0, offset));
            program.push(SockFilter::new(JUMP_IF_EQUAL, 1, 0, expected));
            program.push(SockFilter::new(RETURN, 0, 0, 0));
        }
        program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
        program
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

    /// An echo message of this type, as it would carry the identity.
    fn echo(identity: &Identity, kind: u32) -> Vec<u8> {
        let mut message = vec![u8::try_from(kind).unwrap(), 0, 0, 0];
        message.extend(identity.identifier.0.to_be_bytes());
        message.extend([0, 7]);
        message.extend(identity.payload());
        message
    }

    /// An ICMP error of this type that quotes a request, cut to this length.
    fn error(identity: &Identity, kind: u32, source: IpAddr, length: usize) -> Vec<u8> {
        let mut message = vec![u8::try_from(kind).unwrap(), 0, 0, 0, 0, 0, 0, 0];
        let (header, request) = match source {
            IpAddr::V4(_) => (IPV4_HEADER, ECHO_REQUEST),
            IpAddr::V6(_) => (IPV6_HEADER, ECHO_REQUEST_V6),
        };
        message.extend(vec![0x45; header as usize]);
        message.extend(echo(identity, request));
        message.truncate(length);
        message
    }

    /// Whether the kernel passes a message to a socket with the filter. A UNIX domain socket runs the same program on the same bytes.
    fn passes(identity: &Identity, source: IpAddr, message: &[u8]) -> bool {
        let (far, near) = UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        SockRef::from(&near)
            .attach_filter(&identity.filter(source))
            .unwrap();
        // A router record of 12 bytes makes the header longer than usual.
        let header: &[u8] = match source {
            IpAddr::V4(_) => &[0x48; 32],
            IpAddr::V6(_) => &[],
        };
        far.send(&[header, message].concat()).unwrap();
        let mut buffer = [0; 200];
        match near.recv(&mut buffer) {
            Ok(length) => {
                assert_eq!(length, header.len() + message.len(), "cut off");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                false
            }
        }
    }

    #[test]
    fn only_answers_to_own_probes_pass() {
        let own = Identity::random().unwrap();
        let Identity { identifier, token } = own.clone();
        let strangers = [
            Identity {
                identifier: PingIdentifier(identifier.0 ^ 1),
                token,
            },
            Identity {
                identifier,
                token: [token[0] ^ 1, token[1]],
            },
            Identity {
                identifier,
                token: [token[0], token[1] ^ 0x8000_0000],
            },
        ];
        for (source, reply, request, unreachable, exceeded) in [
            (V4, ECHO_REPLY, ECHO_REQUEST, UNREACHABLE, TIME_EXCEEDED),
            (
                V6,
                ECHO_REPLY_V6,
                ECHO_REQUEST_V6,
                UNREACHABLE_V6,
                TIME_EXCEEDED_V6,
            ),
        ] {
            assert!(passes(&own, source, &echo(&own, reply)));
            assert!(
                !passes(&own, source, &echo(&own, request)),
                "its own request"
            );
            assert!(
                !passes(&own, source, &echo(&own, reply)[..15]),
                "half a token"
            );
            for kind in [unreachable, exceeded] {
                assert!(passes(&own, source, &error(&own, kind, source, 200)));
                let least = 8 + 8 + if source == V4 { 20 } else { 40 };
                assert!(!passes(&own, source, &error(&own, kind, source, least)));
                assert!(!passes(&own, source, &[u8::try_from(kind).unwrap()]));
            }
            for stranger in &strangers {
                assert!(!passes(&own, source, &echo(stranger, reply)));
                assert!(!passes(
                    &own,
                    source,
                    &error(stranger, unreachable, source, 200)
                ));
            }
            assert!(!passes(&own, source, &[]));
        }
    }

    #[test]
    fn no_two_identities_are_alike() {
        let tokens: std::collections::BTreeSet<_> = (0..100)
            .map(|_| Identity::random().unwrap().token)
            .collect();
        assert_eq!(tokens.len(), 100);
    }
}
