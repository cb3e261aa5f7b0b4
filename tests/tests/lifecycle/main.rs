//! The agent's life cycle and its safety: stop, crash, restart, reset, its neighbours, what it reports, and what it refuses. With the real
//! binary.

mod bad_input;
mod clock;
mod clsact;
mod counters;
mod fixtures;
mod locks;
mod log;
mod neighbours;
mod output;
mod programs;
mod reload;
mod reset;
mod restart;
mod status;
mod stop;
