//! Fault injection; `cargo xtask inject` builds and runs it. Everything is in `failover_tests::inject`.

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    use clap::Parser as _;
    use failover_tests::inject::{Arguments, run};

    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failover-inject: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    eprintln!(
        "failover-inject: not supported on {}: it knows the registers of x86_64",
        std::env::consts::ARCH
    );
    ExitCode::FAILURE
}
