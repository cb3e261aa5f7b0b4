//! The benchmark; `cargo xtask bench` builds and runs it. Everything is in [`failover_bench`].

use std::process::ExitCode;

use clap::Parser as _;
use failover_bench::{Arguments, run};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failover-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
