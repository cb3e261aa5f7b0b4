//! What each verb of the command line does.

use anyhow::{Context as _, Result, bail};

use crate::{
    agent,
    cli::{Cli, DirFlags, ResetArgs, RunArgs, Verb},
    config::{Config, Dirs, RouteConfig},
    control::{self, Lock, Request, Response},
    datapath, route,
};

/// Does what the command line says.
///
/// # Errors
///
/// A [`Failure`](crate::failure::Failure) that the user can cure, or whatever went wrong.
pub fn run(cli: &Cli) -> Result<()> {
    let dirs = &cli.global.dirs;
    match &cli.verb {
        Verb::Run(args) => run_agent(args, dirs),
        Verb::Check(args) => {
            print!("{}", Config::from_file(&args.config)?);
            Ok(())
        }
        Verb::Status(args) => status(dirs, args.json),
        Verb::Reset(args) => reset(args, dirs),
    }
}

fn run_agent(args: &RunArgs, dirs: &DirFlags) -> Result<()> {
    let config = Config::from_args(args, dirs)?;
    runtime()?.block_on(agent::run(config, args.config.clone()))
}

fn status(dirs: &DirFlags, json: bool) -> Result<()> {
    let dirs = Dirs::default().overridden(dirs)?;
    match runtime()?.block_on(control::query(&dirs.run, &Request::Status))? {
        Response::Status(status) if json => println!("{}", serde_json::to_string_pretty(&status)?),
        Response::Status(status) => print!("{}", control::render(&status)),
        Response::Error(error) => bail!("the agent answers: {error}"),
    }
    Ok(())
}

fn reset(args: &ResetArgs, flags: &DirFlags) -> Result<()> {
    let config = args.config.as_deref().map(Config::from_file).transpose()?;
    let (route, dirs) = match config {
        Some(config) => (config.route, config.dirs),
        None => (RouteConfig::default(), Dirs::default()),
    };
    let dirs = dirs.overridden(flags)?;
    let lock = Lock::acquire(&dirs.run)?;
    // Each is tried, whatever becomes of the other.
    let routes = route::reset(&route, &dirs.state).context("removing routes and rules");
    let pins = datapath::remove_pins(&dirs.bpf).context("removing programs and maps");
    let sockets = control::remove_sockets(&lock);
    let mut problems = Vec::new();
    let mut changes = 0;
    match routes {
        Ok(report) => {
            changes += report.changes.len();
            report.changes.iter().for_each(|line| println!("{line}"));
            problems.extend(report.problems);
        }
        Err(error) => problems.push(format!("{error:#}")),
    }
    for removed in [pins, sockets] {
        match removed {
            Ok(removed) => {
                changes += removed.len();
                removed.iter().for_each(|line| println!("removed {line}"));
            }
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    if !problems.is_empty() {
        bail!("not everything could be reset: {}", problems.join("; "));
    }
    if changes == 0 {
        println!("nothing to reset: no trace of an agent");
    }
    Ok(())
}

/// One thread is enough for a few packets a second, and costs the least.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}
