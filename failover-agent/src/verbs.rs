//! What each verb of the command line does.

mod reset;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    agent::{self, Ended, Program},
    cli::{CheckArgs, Cli, DirFlags, DoctorArgs, EventsArgs, RunArgs, UplinkFlags, Verb},
    config::{Config, Dirs, Origin, nearest},
    control::{self, Request, Response},
    doctor,
    failure::Failure,
    logging, output, route,
    store::Store,
};

/// How long a restart may take, and how often the new program is asked whether it runs.
const RESTART: Duration = Duration::from_secs(10);
const RESTART_POLL: Duration = Duration::from_millis(50);

/// How long a restart waits for the reader of the log.
const LAST_LINES: Duration = Duration::from_millis(200);

/// How long the agent waits for its threads at its end.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// Carries out the command line.
///
/// # Errors
///
/// A [`Failure`] that the user can cure, or any other error.
pub fn run(cli: &Cli) -> Result<()> {
    let dirs = &cli.global.dirs;
    match &cli.verb {
        Verb::Run(args) => run_agent(args, dirs),
        Verb::Check(args) => check(args, dirs),
        Verb::Status(args) => status(dirs, args.json),
        Verb::Switch(args) => {
            let uplink = args.uplink.clone();
            command(dirs, &args.uplink, &Request::Switch { uplink })
        }
        Verb::Drill(args) => {
            let request = Request::Drill {
                uplink: args.uplink.clone(),
                // An index that does not fit is refused as too long.
                for_ms: u64::try_from(args.duration.as_millis()).unwrap_or(u64::MAX),
            };
            command(dirs, &args.uplink, &request)
        }
        Verb::Reload => command(dirs, "", &Request::Reload),
        Verb::Restart => restart(dirs),
        Verb::Events(args) => events(dirs, *args),
        Verb::Doctor(args) => doctor(args, dirs),
        Verb::Reset(args) => reset::reset(args, dirs),
    }
}

fn check(args: &CheckArgs, dirs: &DirFlags) -> Result<()> {
    let config = Config::from_file(&args.config)?;
    agent::warn_of_missing_programs(&config);
    if !args.file_only {
        let store = Store::read_only(&config.dirs.clone().overridden(dirs)?);
        route::Router::connect(&config.route, &store)?.discover(&config)?;
    }
    output::print(&config)
}

fn run_agent(args: &RunArgs, dirs: &DirFlags) -> Result<()> {
    let config = Config::from_args(args, dirs)?;
    let origin = args.config.clone().map(|file| Origin {
        file,
        dirs: dirs.clone(),
    });
    let program = Program::this()?;
    let store = Store::resume(&config.dirs);
    let runtime = runtime()?;
    let kept = config.clone();
    let ended = runtime.block_on(agent::run(config, origin, &program, &store));
    // The wait is bounded, since a dead network file system may hold a thread for ever.
    runtime.shutdown_timeout(LAST_THREADS);
    match ended? {
        Ended::Stopped => Ok(()),
        Ended::Restarting => {
            // The lines still in the queue are lost when this program is replaced.
            let handover = store.hand_over();
            logging::flush(Some(LAST_LINES));
            match program.execute(handover.as_ref()) {
                Ok(never) => match never {},
                Err(error) => Err(agent::give_up(&kept, &store, error)),
            }
        }
    }
}

fn status(dirs: &DirFlags, json: bool) -> Result<()> {
    let dirs = Dirs::default().overridden(dirs)?;
    match runtime()?.block_on(control::query(&dirs.run, &Request::Status))? {
        Response::Status(status) if json => {
            output::print_line(serde_json::to_string_pretty(&status)?)
        }
        Response::Status(status) => output::print(control::render(&status)),
        other => Err(unexpected(other)),
    }
}

/// Sends a command to the agent. `name` is the uplink that it is about; empty if there is none.
fn command(dirs: &DirFlags, name: &str, request: &Request) -> Result<()> {
    let dirs = Dirs::default().overridden(dirs)?;
    match runtime()?.block_on(control::query(&dirs.run, request))? {
        Response::Done(done) => output::print_line(done)?,
        Response::Refused(reason) => return Err(Failure::Refused { reason }.into()),
        Response::UnknownUplink(names) => {
            let cure = match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("choose one of: {}", names.join(", ")),
            };
            let uplink = name.to_owned();
            return Err(Failure::UnknownUplink { uplink, cure }.into());
        }
        other => return Err(unexpected(other)),
    }
    Ok(())
}

/// Makes the agent restart its program, and waits until the new program answers.
fn restart(dirs: &DirFlags) -> Result<()> {
    let run_dir = Dirs::default().overridden(dirs)?.run;
    let runtime = runtime()?;
    let agent = || match runtime.block_on(control::query(&run_dir, &Request::Status))? {
        Response::Status(status) => Ok(status.agent),
        other => Err(unexpected(other)),
    };
    let before = agent()?;
    command(dirs, "", &Request::Restart)?;
    // A process of another PID namespace cannot be seen; a zombie has no program any more.
    let runs = || fs::read_link(format!("/proc/{}/exe", before.pid)).is_ok();
    let visible = runs();
    let deadline = Instant::now() + RESTART;
    while Instant::now() < deadline {
        thread::sleep(RESTART_POLL);
        if visible && !runs() {
            bail!("the program could not be restarted and has ended: see its log");
        }
        if let Ok(now) = agent()
            && now.instance != before.instance
        {
            return output::print_line(format_args!(
                "restarted: version {}, process {}",
                now.version, now.pid
            ));
        }
    }
    bail!(
        "the program has not restarted within {} s: see its log; routes stand as they were",
        RESTART.as_secs()
    )
}

fn unexpected(response: Response) -> anyhow::Error {
    match response {
        Response::Error(error) => anyhow!("the agent reports an error: {error}"),
        other => anyhow!("unexpected answer from the agent: {other:?}"),
    }
}

fn events(dirs: &DirFlags, args: EventsArgs) -> Result<()> {
    let dirs = Dirs::default().overridden(dirs)?;
    let report = |response: Response| {
        let line = match response {
            response if args.json => serde_json::to_string(&response)?,
            Response::Event(event) => event.to_string(),
            Response::Lost(lost) => format!("{lost} events were lost: this reader is too slow"),
            other => return Err(unexpected(other)),
        };
        output::print_line(line).map(|()| true)
    };
    runtime()?.block_on(control::events(&dirs.run, args.follow, report))
}

fn doctor(args: &DoctorArgs, flags: &DirFlags) -> Result<()> {
    let runtime = runtime()?;
    let mut config = match &args.config {
        Some(file) => Config::from_file(file)?,
        None if args.flags != UplinkFlags::default() => Config::from_flags(&args.flags)?,
        None => Config::from_file(&runtime.block_on(running_config(flags))?)?,
    };
    config.dirs = config.dirs.overridden(flags)?;
    let report = runtime.block_on(doctor::examine(&config))?;
    if args.json {
        output::print_line(serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(doctor::render(&report))?;
    }
    match report.failure() {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

/// The file from which the running agent was configured.
async fn running_config(flags: &DirFlags) -> Result<PathBuf> {
    let dirs = Dirs::default().overridden(flags)?;
    let unknown = |problem: &str| Failure::ConfigInvalid {
        place: "doctor".to_owned(),
        problem: problem.to_owned(),
        cure: "give --config FILE, or --uplink for each uplink".to_owned(),
    };
    let status = match control::query(&dirs.run, &Request::Status).await {
        Ok(Response::Status(status)) => status,
        Ok(other) => return Err(unexpected(other)),
        Err(error) => match error.downcast_ref() {
            Some(Failure::NotRunning { .. }) => {
                return Err(unknown("no configuration is given, and no agent is running").into());
            }
            _ => return Err(error),
        },
    };
    let file = status.agent.config;
    let file = file.ok_or_else(|| unknown("the running agent was configured by flags"))?;
    // A relative path counts from the directory in which the agent was started.
    Ok(Path::new(&format!("/proc/{}/cwd", status.agent.pid)).join(file))
}

/// A single-threaded runtime: enough for a few packets a second, and the cheapest.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Idle blocking threads would take signals that are meant to wait for the program that a restart starts.
        .thread_keep_alive(Duration::ZERO)
        .build()
        .context("starting the runtime")
}
