//! Blocking netlink: requests, answers, dumps, whatever the protocol (routing, socket diagnosis, netfilter).
//!
//! | file | concern |
//! |---|---|
//! | `socket.rs` | the socket: asking, and collecting what is answered |
//! | `message.rs` | messages written by hand, datagrams taken apart |
//! | `error.rs` | what can go wrong: the kernel refuses, or netlink itself fails |

mod error;
mod message;
mod socket;

pub(crate) use self::{
    error::{Error, Refused},
    message::{Message, Request, messages},
    socket::{Netlink, RECEIVE_BUFFER},
};
