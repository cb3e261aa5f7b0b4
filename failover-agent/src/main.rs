//! failover-agent: parse, log, run, exit code. Everything else is in the library.

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use failover_agent::{
    cli::{Cli, Verb},
    failure::Failure,
    logging, store, verbs,
};

/// How long the agent waits at its end for the reader of its log.
const LAST_LINES: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    if let Some(code) = store::serve() {
        return code;
    }
    let cli = Cli::parse();
    let result =
        logging::init(cli.global.verbose, cli.global.log_format).and_then(|()| verbs::run(&cli));
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A `Failure` already says in one line what caused it; of any other error the whole chain is printed.
            let failure = error.downcast_ref::<Failure>();
            match failure {
                Some(failure) => logging::say(&format!("failover-agent: {failure}")),
                None => logging::say(&format!("failover-agent: {error:#}")),
            }
            ExitCode::from(failure.map_or(1, Failure::exit_code))
        }
    };
    let agent = matches!(cli.verb, Verb::Run(_));
    logging::flush(agent.then_some(LAST_LINES));
    code
}
