//! The agent's loop in its details, with the real agent: what is this host's own fault, programs that reset an uplink, links that are lost
//! or move, restarts and reloads at bad moments, and each family for itself.

mod blind;
mod families;
mod fixtures;
mod lost;
mod marks;
mod moved;
mod recovering;
mod reloads;
mod restarts;
