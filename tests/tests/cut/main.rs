//! The cut by the real agent: what ends at once when an uplink is no longer to be used, and what is left alone.
//!
//! Real sockets, real captures. "At once" is bounded generously, since the machine may be busy; the bench measures it.

mod by_hand;
mod drain;
mod fixtures;
mod foreign;
mod inbound;
mod link;
mod local;
mod modes;
mod outage;
mod reachable;
mod routed;
mod router;
mod sockets;
mod unrelated;
