//! The one select! loop: inputs in, actions out.

mod report;
mod status;
mod switch;
mod sync;

 

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tracing::{debug, info, warn};

pub use self::switch::SwitchRecord;
use crate::{
    clock::Clock,
    config::{Config, UplinkConfig},
    control::{self, Request, Response},
    datapath::{self, Datapath},
    policy::{Action, Family, Input, Machine, Rules, TargetId, UplinkId, UplinkRules},
    probe::{ProbeSpec, Prober},
    route::{Link, Router},
};

/// Facts that may wait for the loop; more than a round of 64 uplinks needs.
const INPUTS: usize = 1024;

/// Runs the agent until SIGINT or SIGTERM, then restores what it displaced and removes everything of its own.
///
/// # Errors
/// A [`Failure`](crate::failure::Failure) when something that the user can cure prevents the start, before anything is changed. Any other error after
/// everything was cleaned up as far as possible.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let clock = Clock::start();
    let mut signals = Signals::install()?;
    datapath::check_privileges()?;
    let _lock = control::Lock::acquire(&config.dirs.run)?;
    let mut router = Router::connect(&config.route, &config.dirs.state).await?;
    let links = router.discover(&config).await?;
    let datapath = Datapath::open(&datapath::Options {
        bpf_dir: config.dirs.bpf.clone(),
        attach: config.datapath.attach,
        probe_mark: config.route.mark,
    })?;

    let mut agent = Agent::new(config, clock, router, datapath, links).await?;
    let result = match agent.start().await {
        Ok(edges) => agent.serve(edges, &mut signals).await,
        Err(error) => Err(error),
    };
    result.and(agent.stop().await)
}

/// The agent's state; the edges that run on their own are in [`Edges`].
struct Agent {
    config: Config,
    clock: Clock,
    machine: Machine,
    router: Router,
    datapath: Datapath,
    /// By uplink: what is known of its interface and its ways out.
    links: Vec<Link>,
    probers: Vec<Prober>,
    history: switch::History,
}

/// What talks to the loop.
struct Edges {
    inputs: mpsc::Receiver<Input>,
    changes: mpsc::Receiver<route::Change>,
    requests: mpsc::Receiver<(Request, oneshot::Sender<Response>)>,
}

impl Agent {
    async fn new(
        config: Config,
        clock: Clock,
        router: Router,
        datapath: Datapath,
        links: Vec<Link>,
    ) -> anyhow::Result<Self> {
        let mut active = [None; 2];
        for family in Family::ALL {
            active[family as usize] = router.current(family).await?.map(UplinkId);
        }
        let uplinks = config.uplinks.iter().zip(&links).map(|(uplink, link)| rules(uplink, link));
        let machine = Machine::new(Rules { uplinks: uplinks.collect(), active });
        Ok(Agent {
            config,
            clock,
            machine,
            router,
            datapath,
            links,
            probers: Vec::new(),
            history: switch::History::default(),
        })
    }

    /// Puts everything in place that changes no traffic yet, then starts the edges.
    async fn start(&mut self) -> anyhow::Result<Edges> {
        self.datapath.renew_lease(self.config.cutoff.lease)?;
        let ifindexes: Vec<u32> = self.links.iter().map(|link| link.ifindex).collect();
        self.datapath.retain(&ifindexes)?;
        for uplink in 0..self.links.len() {
            self.attach(UplinkId(uplink))?;
        }
        self.router.prepare(&self.links).await?;
        let changes = self.router.observe()?;
        let requests = control::serve(&self.config.dirs.run)?;
        let (sender, inputs) = mpsc::channel(INPUTS);
        self.start_probers(&sender);
        Ok(Edges { inputs, changes, requests })
    }

    /// Attaches the programs to one uplink's interface and tells them what passes closed gates.
    fn attach(&mut self, uplink: UplinkId) -> anyhow::Result<()> {
        let link = &self.links[uplink.0];
        let name = &self.config.uplinks[uplink.0].name;
        let attached = self
            .datapath
            .attach(link.ifindex, link.link_layer)
            .with_context(|| format!("uplink `{name}`: attaching to {}", link.interface))?;
        let prefixes: Vec<_> = link.families.iter().flatten().flat_map(|path| path.prefixes.clone()).collect();
        self.datapath.set_exempt(link.ifindex, &prefixes)?;
        info!(
            uplink = name,
            interface = link.interface,
            hook = ?attached.hook,
            adopted = attached.adopted,
            "{name}: programs attached",
        );
        Ok(())
    }

    fn start_probers(&mut self, inputs: &mpsc::Sender<Input>) {
        for (index, (uplink, link)) in self.config.uplinks.iter().zip(&self.links).enumerate() {
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
                    mark: self.config.route.mark,
                };
                let source = link.families[family as usize].as_ref().map(|path| path.source);
                self.probers.push(Prober::spawn(spec, source, self.clock, inputs.clone()));
            }
        }
    }

    async fn serve(&mut self, mut edges: Edges, signals: &mut Signals) -> anyhow::Result<()> {
        // Three renewals per lease: two may be late or fail.
        let mut lease = tokio::time::interval(self.config.cutoff.lease / 3);
        lease.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.act().await;
            let due = self.machine.poll_timeout().map(|time| Instant::from(self.clock.instant(time)));
            tokio::select! {
                signal = signals.next() => {
                    info!("{signal}: restoring routes and opening gates");
                    return Ok(());
                }
                _ = lease.tick() => {
                    if let Err(error) = self.datapath.renew_lease(self.config.cutoff.lease) {
                        warn!("the lease could not be renewed: {error:#}");
                    }
                }
                Some(input) = edges.inputs.recv() => {
                    self.machine.handle(input, self.clock.now());
                    // Rounds come in bursts: take what is there before acting.
                    while let Ok(input) = edges.inputs.try_recv() {
                        self.machine.handle(input, self.clock.now());
                    }
                }
                () = sleep_until(due) => self.machine.handle_timeout(self.clock.now()),
                Some(change) = edges.changes.recv() => self.changed(change).await,
                Some((request, reply)) = edges.requests.recv() => {
                    // A client that has gone away in the meantime needs no answer.
                    if reply.send(self.respond(&request)).is_err() {
                        debug!("a control client left before its answer");
                    }
                }
            }
        }
    }

    /// Carries out what the policy wants done.
    async fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Switch { family, from, to, cause, detected, decided } => {
                    self.switch(switch::Order { family, from, to, cause, detected, decided }).await;
                }
                Action::ProbeNow { uplink, family } => {
                    let prober =
                        self.probers.iter().find(|prober| prober.measures(uplink, family));
                    if let Some(prober) = prober {
                        prober.probe_now();
                    }
                }
                Action::Note(note) => self.report(&note),
            }
        }
    }

    /// Restores what was displaced and removes everything of ours, as far as possible.
    async fn stop(mut self) -> anyhow::Result<()> {
        self.probers.clear();
        // Routes first: while they change, closed gates still keep packets from leaving by the wrong uplink.
        let routes = self.router.restore().await.context("restoring the routes");
        let datapath = self.datapath.remove().context("removing the programs");
        routes.and(datapath)?;
        info!("stopped, everything is as it was");
        Ok(())
    }

    fn name(&self, uplink: UplinkId) -> &str {
        &self.config.uplinks[uplink.0].name
    }
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
        interval: probe.interval,
        timeout: probe.timeout,
        targets: Family::ALL
            .map(|family| u32::try_from(targets(uplink, family).count()).unwrap_or(u32::MAX)),
        usable: Family::ALL.map(|family| link.families[family as usize].is_some()),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM, taken over before anything is changed. Further signals during the clean-up are ignored: a second Ctrl-C does not
/// make it worse.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).context("installing a signal handler")?,
            terminate: signal(SignalKind::terminate()).context("installing a signal handler")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
