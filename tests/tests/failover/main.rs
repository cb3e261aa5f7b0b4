//! The real agent on a real kernel with real traffic: what it does about each way in which an uplink can fail, and what it leaves alone.
//!
//! Nothing here depends on how fast the machine is: a test waits for what must happen, and what must not happen is read from the agent's
//! log, from the kernel's notifications and from the traffic's own record, which miss nothing.

mod faults;
mod fixtures;
mod ipv6;
mod losses;
mod many;
mod others;
mod pauses;
mod preference;
mod startup;
mod traffic;
