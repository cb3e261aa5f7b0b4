//! Other programs that change routes and rules on the same host: what they undo is put back and told, a route conflict is recognized, and
//! floods of their changes neither wake the agent nor hide anything from it.
//!
//! The others are real: `ip` and a shell, through netlink, in the host's namespace.

mod conflict;
mod echoes;
mod fixtures;
mod flood;
mod foreign;
mod neighbour;
mod overrun;
mod repairs;
mod scale;
