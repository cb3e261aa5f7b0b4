//! A run's beginning and end: the locks, the first scan of the uplinks, the edges; and the clean-up, whatever happened in between.

use failover_policy::PerUplink;
use tracing::{error, info, warn};

use super::{
    Agent,
    again::again,
    forget,
    hooks::warn_of_missing_programs,
    restart::Program,
    setup::{clean_up, prepare, take_away, warn_of_duplicates},
    signals::Signals,
    survive::survive,
};
use crate::{
    clock::Clock,
    config::{Config, Origin},
    control::{self, Lock, NamespaceLock, Server},
    datapath::{self, Datapath},
    failure::Failure,
    route::{Link, Observer, Router},
    store::Store,
};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What was displaced is restored, everything of ours is removed.
    Stopped,
    /// Everything stands, for the program that takes over in this process.
    Restarting,
}

/// Runs the agent until SIGINT or SIGTERM, then restores what it displaced and removes everything of its own; or until it
/// is to be restarted. `origin` is the file that `config` came from; `store` keeps what outlives the run.
///
/// # Errors
///
/// [`Failure::Leftover`] if not everything could be cleaned up. Another [`Failure`] when something that the user can cure prevents the
/// start: nothing was changed then, or after a restart everything cleaned up. Any other error after everything was cleaned up.
pub async fn run(
    config: Config,
    origin: Option<Origin>,
    program: &Program,
    store: &Store,
) -> anyhow::Result<Ended> {
    let clock = Clock::start();
    let mut signals = Signals::install()?;
    let options = datapath::Options {
        bpf_dir: config.dirs.bpf.clone(),
        attach: config.datapath.attach,
        probe_mark: config.route.mark,
    };
    again("what is needed", || datapath::check_requirements(&options))?;
    let lock = Lock::acquire(&config.dirs.run)?;
    let namespace_lock = NamespaceLock::acquire(&config.dirs.run)?;
    let (mut router, observer, links, missing) =
        match again("scanning the uplinks", || survey(&config, store)) {
            // Nobody else would take away what the program before this one has left in place.
            Err(error) if lock.was_handed_over() => {
                return Err(unless_left(take_away(&config, store), error));
            }
            found => found?,
        };
    for failure in &missing {
        warn!("{failure} (waiting until it is there)");
    }
    for (uplink, link) in config.uplinks.iter().zip(links.values()) {
        warn_of_duplicates(&uplink.name, link);
    }
    warn_of_missing_programs(&config);

    // Up to here nothing was changed; from here on everything is cleaned up, whatever happens.
    let life = async {
        let mut datapath = again("loading the programs", || Datapath::open(&options))?;
        let active = again("preparing", || {
            prepare(&config, &links, &mut router, &mut datapath)
        })?;
        let edges = Edges::open(&lock, observer, &mut datapath)?;
        let mut agent = Agent::new(
            Setting {
                config,
                origin,
                program,
                store,
            },
            clock,
            active,
            &mut router,
            &mut datapath,
        );
        let served = agent.serve(edges, &mut signals).await;
        agent.end(served, &mut signals).await
    };
    let result = survive(life).await;
    if let Ok(Ended::Restarting) = result {
        lock.hand_over();
        namespace_lock.hand_over();
        return result;
    }
    let mut problems = clean_up(router, &options.bpf_dir);
    forget(store);
    problems.extend(store.finish());
    // The server has tried to remove them itself: what is still there is left.
    if let Err(error) = control::remove_sockets(&lock) {
        problems.push(format!("{error:#}"));
    }
    problems.extend(lock.release());
    match result {
        Err(error) => Err(unless_left(problems, error)),
        Ok(_) if !problems.is_empty() => Err(Failure::Leftover { problems }.into()),
        Ok(ended) => {
            info!("stopped: routes restored, programs removed");
            Ok(ended)
        }
    }
}

/// Scans everything that the agent begins with, and changes nothing.
fn survey(
    config: &Config,
    store: &Store,
) -> anyhow::Result<(Router, Observer, PerUplink<Link>, Vec<Failure>)> {
    let mut router = Router::connect(&config.route, store)?;
    let interfaces: Vec<&str> = config
        .uplinks
        .iter()
        .map(|uplink| uplink.interface.as_str())
        .collect();
    let observer = Observer::open(&router, &interfaces)?;
    let (links, missing) = router.await_uplinks(config)?;
    Ok((router, observer, links, missing))
}

/// Takes away what the agent has left in place for a program that cannot be executed because of `error`; the error to end with.
pub(crate) fn give_up(config: &Config, store: &Store, error: anyhow::Error) -> anyhow::Error {
    unless_left(take_away(config, store), error)
}

/// The error that the agent ends with: its own, or that something is left, which matters more.
fn unless_left(problems: Vec<String>, error: anyhow::Error) -> anyhow::Error {
    if problems.is_empty() {
        return error;
    }
    error!("{error:#}");
    Failure::Leftover { problems }.into()
}

/// What the agent was started with.
pub(super) struct Setting<'a> {
    pub(super) config: Config,
    pub(super) origin: Option<Origin>,
    pub(super) program: &'a Program,
    pub(super) store: &'a Store,
}

/// What else talks to the loop.
pub(super) struct Edges {
    pub(super) observer: Observer,
    pub(super) server: Server,
    pub(super) log: datapath::Log,
    pub(super) ended: datapath::Events,
}

impl Edges {
    fn open(lock: &Lock, observer: Observer, datapath: &mut Datapath) -> anyhow::Result<Self> {
        Ok(Edges {
            observer,
            server: again("the control socket", || Server::bind(lock))?,
            log: datapath.take_log()?,
            ended: datapath.take_events()?,
        })
    }
}
