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

/// How long the program may take to come up again, and how often it is asked.
const RESTART: Duration = Duration::from_secs(10);
const RESTART_POLL: Duration = Duration::from_millis(50);

/// How long a restart waits for whoever reads the log.
const LAST_LINES: Duration = Duration::from_millis(200);

/// How long the agent's threads are waited for at its end.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// Does what the command line says.
///
/// # Errors
///
/// A [`Failure`] that the user can cure, or whatever went wrong.
pub fn run(cli: &Cli) -> Result<()> {
    let dirs = &cli.global.dirs;
    match &cli.verb {
        Verb::Run(args) => run_agent(args, dirs),
        Verb::Check(args) => check(args, dirs),
        Verb::Status(args) => status(dirs, args.json),
        Verb::Switch(args) => {
            let uplink = args.uplink.clone();
            order(dirs, &args.uplink, &Request::Switch { uplink })
        }
        Verb::Drill(args) => {
            let request = Request::Drill {
                uplink: args.uplink.clone(),
                // What does not fit is refused as too long.
                for_ms: u64::try_from(args.duration.as_millis()).unwrap_or(u64::MAX),
            };
            order(dirs, &args.uplink, &request)
        }
        Verb::Reload => order(dirs, "", &Request::Reload),
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
        let store = Store::look(&config.dirs.clone().overridden(dirs)?);
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
    // Nobody waits without end for a thread that a dead network file system holds.
    runtime.shutdown_timeout(LAST_THREADS);
    match ended? {
        Ended::Stopped => Ok(()),
        Ended::Restarting => {
            // The lines that wait end with this program.
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

/// Has the agent carry out an order, for the uplink called `name` if it is for one.
fn order(dirs: &DirFlags, name: &str, request: &Request) -> Result<()> {
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

/// Has the agent start its program anew, and waits until that one answers.
fn restart(dirs: &DirFlags) -> Result<()> {
    let run_dir = Dirs::default().overridden(dirs)?.run;
    let runtime = runtime()?;
    let agent = || match runtime.block_on(control::query(&run_dir, &Request::Status))? {
        Response::Status(status) => Ok(status.agent),
        other => Err(unexpected(other)),
    };
    let before = agent()?;
    order(dirs, "", &Request::Restart)?;
    // A process of another process namespace cannot be seen; one that has ended, but was not waited for, has no program any more.
    let runs = || fs::read_link(format!("/proc/{}/exe", before.pid)).is_ok();
    let visible = runs();
    let deadline = Instant::now() + RESTART;
    while Instant::now() < deadline {
        thread::sleep(RESTART_POLL);
        if visible && !runs() {
            bail!("the program could not be started anew, and has ended: look at its log");
        }
        if let Ok(now) = agent()
            && now.instance != before.instance
        {
            return output::print_line(format_args!(
                "it runs: version {}, process {}",
                now.version, now.pid
            ));
        }
    }
    bail!(
        "the program has not come up again within {} s: look at its log; routes stand as they were",
        RESTART.as_secs()
    )
}

fn unexpected(response: Response) -> anyhow::Error {
    match response {
        Response::Error(error) => anyhow!("the agent answers: {error}"),
        other => anyhow!("the agent's answer makes no sense here: {other:?}"),
    }
}

fn events(dirs: &DirFlags, args: EventsArgs) -> Result<()> {
    let dirs = Dirs::default().overridden(dirs)?;
    let tell = |response: Response| {
        let line = match response {
            response if args.json => serde_json::to_string(&response)?,
            Response::Event(event) => event.to_string(),
            Response::Lost(lost) => format!("{lost} events were lost: this reader is too slow"),
            other => return Err(unexpected(other)),
        };
        output::print_line(line).map(|()| true)
    };
    runtime()?.block_on(control::events(&dirs.run, args.follow, tell))
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

/// The file that the running agent was configured from.
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
                return Err(unknown("no configuration, and no agent runs that has one").into());
            }
            _ => return Err(error),
        },
    };
    let file = status.agent.config;
    let file = file.ok_or_else(|| unknown("the running agent was configured by flags"))?;
    // A relative path is meant from where the agent was started.
    Ok(Path::new(&format!("/proc/{}/cwd", status.agent.pid)).join(file))
}

/// One thread is enough for a few packets a second, and costs the least.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Threads that wait for more to do would take signals that are to wait for the program's new start.
        .thread_keep_alive(Duration::ZERO)
        .build()
        .context("starting the runtime")
}
