//! failover-agent: parse, log, run, exit code. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use failover_agent::{cli::Cli, failure::Failure, logging, verbs};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result =
        logging::init(cli.global.verbose, cli.global.log_format).and_then(|()| verbs::run(&cli));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A failure tells its causes in its own words; of anything else the whole chain is worth telling.
            let failure = error.downcast_ref::<Failure>();
            match failure {
                Some(failure) => eprintln!("failover-agent: {failure}"),
                None => eprintln!("failover-agent: {error:#}"),
            }
            let code = failure.map_or(1, Failure::exit_code);
            ExitCode::from(code)
        }
    }
}
