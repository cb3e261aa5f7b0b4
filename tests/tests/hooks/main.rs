//! Programs that the agent runs: what they are told, what becomes of those that misbehave, and what they are for: the router's own
//! services and its DNS after a switch.

mod fixtures;
mod misbehaving;
mod own_traffic;
mod told;
