//! What an address's message says of the address itself.

use std::net::IpAddr;

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

/// An address of an interface.
pub(crate) struct Assigned {
    /// The interface's own.
    pub(crate) ip: IpAddr,
    /// The other end's, on a point-to-point link. On other links the kernel repeats the own one.
    pub(crate) peer: Option<IpAddr>,
    /// All of them: the header has room for the first eight only.
    pub(crate) flags: AddressFlags,
}

impl Assigned {
    /// None if the message has no address.
    pub(crate) fn read(message: &AddressMessage) -> Option<Assigned> {
        let (mut local, mut peer) = (None, None);
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        Some(Assigned {
            ip: local.or(peer)?,
            peer,
            flags,
        })
    }
}
