//! The one select! loop: inputs in, actions out.

mod cut;
mod drill;
mod events;
mod former;
mod orders;
mod report;
mod setup;
mod status;
mod switch;
mod sync;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tracing::{debug, info, warn};

pub(crate) use self::drill::remove as remove_drill;
use self::{
    drill::Store,
    setup::{clean_up, prepare},
    switch::SwitchRecord,
    sync::Sync,
};
use crate::{
    clock::Clock,
    config::{Config, UplinkConfig},
    control::{Events, Lock, Server},
    datapath::{self, Datapath},
    policy::{Action, Family, Input, Machine, Rules, TargetId, UplinkId, UplinkRules},
    probe::{ProbeSpec, Prober},
    route::{Link, Observer, Router},
};

/// Facts that may wait for the loop; more than a round of the greatest number of uplinks needs.
const INPUTS: usize = 1024;

/// Requests that may wait for the loop.
const REQUESTS: usize = 16;

/// How often standby gateways are looked up in the neighbour table: below the kernel's 60 s (`gc_stale_time`), after which it
/// may forget them.
const RESOLVE: Duration = Duration::from_secs(30);

/// Runs the agent until SIGINT or SIGTERM, then restores what it displaced and removes everything of its own. `source` is the
/// file that `config` came from, for the status.
///
/// # Errors
///
/// A [`Failure`](crate::failure::Failure) when something that the user can cure prevents the start: nothing was changed
/// then. Any other error after everything was cleaned up as far as possible.
pub async fn run(config: Config, source: Option<PathBuf>) -> anyhow::Result<()> {
    let clock = Clock::start();
    let mut signals = Signals::install()?;
    let options = datapath::Options {
        bpf_dir: config.dirs.bpf.clone(),
        attach: config.datapath.attach,
        probe_mark: config.route.mark,
    };
    datapath::check_requirements(&options)?;
    let lock = Lock::acquire(&config.dirs.run)?;
    let mut router = Router::connect(&config.route, &config.dirs.state)?;
    let interfaces: Vec<&str> = config
        .uplinks
        .iter()
        .map(|uplink| uplink.interface.as_str())
        .collect();
    let observer = Observer::open(&router, &interfaces)?;
    let links = router.discover(&config)?;

    // Up to here nothing was changed; from here on everything is cleaned up, whatever happens.
    let mut datapath = Datapath::open(&options)?;
    let result = async {
        let active = prepare(&config, &links, &mut router, &mut datapath)?;
        let edges = Edges::open(&lock, observer, &mut datapath)?;
        Agent::new(
            &config,
            source,
            clock,
            active,
            links,
            &mut router,
            &mut datapath,
        )
        .serve(edges, &mut signals)
        .await
    }
    .await;
    let cleaned = clean_up(router, datapath);
    result.and(cleaned)
}

/// The agent's state.
struct Agent<'a> {
    config: &'a Config,
    source: Option<PathBuf>,
    clock: Clock,
    machine: Machine,
    router: &'a mut Router,
    datapath: &'a mut Datapath,
    /// By uplink: what is known of its interface and its ways out.
    links: Vec<Link>,
    former: former::Former,
    probers: Vec<Prober>,
    inputs: mpsc::Receiver<Input>,
    history: switch::History,
    drills: Store,
    /// The policy's drill is not the one in the file.
    drill_unsaved: bool,
    sync: Sync,
    beside: cut::Beside,
    events: Events,
}

/// What else talks to the loop.
struct Edges {
    observer: Observer,
    server: Server,
    log: datapath::Log,
    ended: datapath::Events,
}

impl Edges {
    fn open(lock: &Lock, observer: Observer, datapath: &mut Datapath) -> anyhow::Result<Self> {
        Ok(Edges {
            observer,
            server: Server::bind(lock)?,
            log: datapath.take_log()?,
            ended: datapath.take_events()?,
        })
    }
}

impl<'a> Agent<'a> {
    fn new(
        config: &'a Config,
        source: Option<PathBuf>,
        clock: Clock,
        active: [Option<UplinkId>; 2],
        links: Vec<Link>,
        router: &'a mut Router,
        datapath: &'a mut Datapath,
    ) -> Self {
        let uplinks = config
            .uplinks
            .iter()
            .zip(&links)
            .map(|(uplink, link)| rules(uplink, link));
        let drills = Store::new(&config.dirs.state);
        let machine = Machine::new(Rules {
            uplinks: uplinks.collect(),
            active,
            drill: orders::earlier_drill(&drills, config, clock),
        });
        let (sender, inputs) = mpsc::channel(INPUTS);
        Agent {
            probers: start_probers(config, &links, clock, &sender),
            config,
            source,
            clock,
            machine,
            router,
            datapath,
            links,
            former: former::Former::default(),
            inputs,
            history: switch::History::default(),
            drills,
            drill_unsaved: false,
            sync: Sync::default(),
            beside: cut::Beside::open(),
            events: Events::default(),
        }
    }

    async fn serve(mut self, edges: Edges, signals: &mut Signals) -> anyhow::Result<()> {
        let Edges {
            mut observer,
            server,
            log,
            mut ended,
        } = edges;
        let (sender, mut requests) = mpsc::channel(REQUESTS);
        let mut server = std::pin::pin!(server.serve(sender, self.events.clone()));
        let mut log = std::pin::pin!(log.forward());
        // Three renewals per lease: two may be late or fail.
        let mut lease = tokio::time::interval(self.config.cutoff.lease / 3);
        lease.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A drill that was over before the start leaves no file.
        self.keep_drill();
        let mut warm = tokio::time::interval(RESOLVE);
        info!(uplinks = self.links.len(), "running");
        loop {
            self.act();
            let timer = self
                .machine
                .poll_timeout()
                .map(|time| self.clock.instant(time));
            tokio::select! {
                signal = signals.next() => {
                    info!("{signal}: stopping");
                    return Ok(());
                }
                _ = lease.tick() => {
                    if let Err(error) = self.datapath.renew_lease(self.config.cutoff.lease) {
                        warn!("the lease could not be renewed: {error:#}");
                    }
                }
                Some(input) = self.inputs.recv() => {
                    self.machine.handle(input, self.clock.now());
                    self.take_inputs();
                }
                () = sleep_until(timer) => {
                    // An answer that waits here must not be counted as missing.
                    self.take_inputs();
                    self.machine.handle_timeout(self.clock.now());
                }
                change = observer.next() => self.changed(&change?),
                () = sleep_until(self.sync.due()) => self.synchronize(),
                Some((request, reply)) = requests.recv() => {
                    if reply.send(self.respond(&request)).is_err() {
                        debug!("a control client left before its answer");
                    }
                }
                Some(cut) = self.beside.done() => self.finish_cut(&cut),
                flow = ended.next() => self.tell(&flow?),
                _ = warm.tick() => self.resolve_gateways(),
                () = &mut server => anyhow::bail!("the control socket is gone"),
                Err(error) = &mut log => return Err(error),
            }
        }
    }

    /// Takes what is there: rounds come in bursts.
    fn take_inputs(&mut self) {
        while let Ok(input) = self.inputs.try_recv() {
            self.machine.handle(input, self.clock.now());
        }
    }

    /// Carries out what the policy wants done.
    fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Switch {
                    family,
                    from,
                    to,
                    cause,
                    detected,
                    decided,
                } => self.switch(SwitchRecord::ordered(
                    family, from, to, cause, detected, decided,
                )),
                Action::Cut {
                    family,
                    uplink,
                    cause,
                } => self.cut(family, uplink, cause),
                Action::ProbeNow { uplink, family } => {
                    if let Some(prober) = self.prober(uplink, family) {
                        prober.probe_now();
                    }
                }
                Action::Note(note) => self.report(&note),
            }
        }
        self.log_switches();
        // Writing to the disk takes its time: not before a switch.
        if std::mem::take(&mut self.drill_unsaved) {
            self.keep_drill();
        }
    }

    fn prober(&self, uplink: UplinkId, family: Family) -> Option<&Prober> {
        self.probers
            .iter()
            .find(|prober| prober.probes(uplink, family))
    }

    fn name(&self, uplink: UplinkId) -> &str {
        &self.config.uplinks[uplink.0].name
    }
}

fn start_probers(
    config: &Config,
    links: &[Link],
    clock: Clock,
    inputs: &mpsc::Sender<Input>,
) -> Vec<Prober> {
    let mut probers = Vec::new();
    for (index, (uplink, link)) in config.uplinks.iter().zip(links).enumerate() {
        for family in Family::ALL {
            let targets: Vec<_> = targets(uplink, family).collect();
            if targets.is_empty() {
                continue;
            }
            let spec = ProbeSpec {
                uplink: UplinkId(index),
                family,
                interface: link.interface.clone(),
                targets,
                interval: uplink.probe.interval,
                timeout: uplink.probe.timeout,
                mark: config.route.mark,
                source: link.families[family as usize]
                    .as_ref()
                    .map(|path| path.source),
            };
            probers.push(Prober::spawn(spec, clock, inputs.clone()));
        }
    }
    probers
}

/// The targets of one family, with their places in the whole list.
fn targets(
    uplink: &UplinkConfig,
    family: Family,
) -> impl Iterator<Item = (TargetId, std::net::IpAddr)> {
    let all = uplink.probe.targets.iter().copied().enumerate();
    all.filter(move |(_, target)| target.is_ipv4() == (family == Family::V4))
        .map(|(index, target)| (TargetId(index), target))
}

fn rules(uplink: &UplinkConfig, link: &Link) -> UplinkRules {
    let probe = &uplink.probe;
    UplinkRules {
        fall: probe.fall,
        rise: probe.rise,
        quorum: probe.quorum,
        hold: probe.hold,
        drain: uplink.drain,
        interval: probe.interval,
        timeout: probe.timeout,
        targets: Family::ALL
            .map(|family| u32::try_from(targets(uplink, family).count()).unwrap_or(u32::MAX)),
        usable: Family::ALL.map(|family| link.families[family as usize].is_some()),
    }
}

async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(Instant::from(due)).await,
        None => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM, taken over before anything is changed. Those that come during the clean-up are swallowed: a second Ctrl-C does not
/// make it worse.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Self> {
        let install = |kind| signal(kind).context("installing a signal handler");
        Ok(Signals {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
