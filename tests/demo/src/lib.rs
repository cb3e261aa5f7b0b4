//! The demonstration: a real agent in a real laboratory, through a failover and a failback, told line by line.
//!
//! The data flows one way: `scenario` does things and waits for their effects by `watch`, which turns what the agent logs
//! (`agent_log`) and what the streams notice into [`Event`]s; `timeline` puts them in order, `screen` shows them, `summary` counts.

mod agent_log;
mod event;
mod scenario;
mod screen;
mod summary;
mod timeline;
mod watch;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use failover_lab::agent_path;
use serde::Serialize;

pub use event::Event;
pub use summary::{GapSplit, Packets, PerStream, Phase, Summary};
pub use timeline::Entry;

use self::{screen::Screen, timeline::Timeline, watch::CANNOT_WRITE};

/// Settings of the agent, shown to the reader and given to the agent as they are.
const PROBE: &str = r#"targets  = ["192.0.2.1", "198.51.100.1"]   # pinged by both uplinks, all the time; one answer is enough
interval = "100ms"
timeout  = "100ms"
fall     = 3                               # bad rounds in a row: the uplink is Down
rise     = 5                               # good rounds in a row: it is Up again
hold     = "1s"                            # and so long without a bad one before traffic goes back to it"#;

/// What the user wants.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The agent's executable; by default the one beside this program.
    pub agent: Option<PathBuf>,
    /// Data on standard output, text on standard error.
    pub json: bool,
    /// Break the second uplink too: no failover can happen.
    pub break_backup: bool,
}

/// What `--json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of this schema; grows when a key's meaning changes or a key goes away.
    pub version: u32,
    /// Whether failover and failback happened within their bounds.
    pub ok: bool,
    /// Why not; null when they did.
    pub error: Option<String>,
    /// Everything that happened, in order of time.
    pub timeline: Vec<Entry>,
    /// The figures; null when not ok.
    pub summary: Option<Summary>,
}

/// [`Report::version`].
pub const VERSION: u32 = 1;

/// Runs the demonstration. 0: failover and failback happened; 1: they did not, or could not be tried.
pub fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failover-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether failover and failback happened; if not, why has been told.
fn run(options: &Options) -> Result<bool> {
    let agent = agent(options)?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the laboratory is made of network namespaces, for which root is needed: `cargo xtask build-and-run` gets it by sudo, \
         or run this as root"
    );
    let mut screen = Screen::new(options.json);
    screen.intro(options).context(CANNOT_WRITE)?;
    let mut timeline = Timeline::new();
    let outcome = scenario::run(options, &agent, &mut timeline, &mut screen);
    // All is removed by now; nothing is said about a failure that only Ctrl-C has caused.
    timeline.finish(&mut screen).context(CANNOT_WRITE)?;
    let (summary, error) = match outcome {
        Ok(outcome) => {
            screen
                .summary(&outcome.summary, outcome.map.as_deref())
                .context(CANNOT_WRITE)?;
            (Some(outcome.summary), None)
        }
        Err(error) => {
            let error = format!("{error:#}");
            eprintln!("\nfailover-demo: {}", error.trim_end());
            (None, Some(error))
        }
    };
    let ok = error.is_none();
    if options.json {
        let report = Report {
            version: VERSION,
            ok,
            error,
            timeline: timeline.into_entries(),
            summary,
        };
        let json = serde_json::to_string_pretty(&report)?;
        writeln!(io::stdout(), "{json}").context("cannot write to standard output")?;
    }
    Ok(ok)
}

fn agent(options: &Options) -> Result<PathBuf> {
    let Some(agent) = &options.agent else {
        return agent_path();
    };
    // It is started in another directory's view of relative paths.
    let path = agent.canonicalize().ok().filter(|path| path.is_file());
    path.with_context(|| {
        format!(
            "no agent at {}: build it with `cargo build --release`, or let `cargo xtask build-and-run` do everything",
            agent.display()
        )
    })
}
