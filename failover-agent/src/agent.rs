//! The one select! loop: inputs in, actions out.

mod again;
mod commands;
mod cut;
mod drill;
mod events;
mod examine;
mod follow;
mod foreign;
mod hooks;
mod lost_addresses;
mod memory;
mod programs;
mod reload;
mod relocated;
mod repairs;
mod report;
mod restart;
mod rules;
mod run;
mod schedule;
mod setup;
mod signals;
mod status;
mod survive;
mod switch;
mod sync;

use std::time::Duration;

use failover_policy::{
    Action, Family, Input, Machine, MachineConfig, PerFamily, PerUplink, UplinkId, UplinkSet,
};
use futures_util::FutureExt as _;
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior},
};
use tracing::{debug, info, warn};

use self::{
    drill::Drills,
    memory::Memory,
    rules::{machine_config, probe_specs, targets},
    run::{Edges, Setting},
    schedule::ScanSchedule,
    signals::{Asked, Signals},
};
pub(crate) use self::{
    drill::remove as remove_drill, hooks::warn_of_missing_programs, memory::forget, run::give_up,
};
pub use self::{
    restart::Program,
    run::{Ended, run},
};
use crate::{
    clock::Clock,
    config::{Config, Origin, UplinkConfig},
    control::Events,
    datapath::Datapath,
    hook::Runner,
    probe::Prober,
    route::{Link, Router},
};

/// Facts that may wait for the loop; more than a round of the greatest number of uplinks needs.
const INPUTS: usize = 1024;

/// Requests that may wait for the loop.
const REQUESTS: usize = 16;

/// How often standby gateways are looked up in the neighbour table: below the kernel's 60 s (`gc_stale_time`), after which it
/// may forget them.
const RESOLVE: Duration = Duration::from_secs(30);

/// The agent's state.
struct Agent<'a> {
    config: Config,
    origin: Option<Origin>,
    program: &'a Program,
    clock: Clock,
    /// Tells this start of the program from others.
    instance: String,
    machine: Machine,
    router: &'a mut Router,
    datapath: &'a mut Datapath,
    hooks: Runner,
    uplinks: PerUplink<UplinkConfig>,
    lost_addresses: lost_addresses::LostAddresses,
    probers: Vec<Prober>,
    inputs: mpsc::Receiver<Input>,
    /// Where probers put them.
    sender: mpsc::Sender<Input>,
    history: switch::History,
    drills: Drills,
    /// The policy's drill is not the one in the file.
    drill_unsaved: bool,
    memory: Memory,
    /// Health changed since it was put down.
    health_unsaved: bool,
    scans: ScanSchedule,
    lease: Interval,
    /// The observer does not know the uplinks of a new configuration yet.
    rewatch: bool,
    /// When to end for a new start.
    restart: Option<std::time::Instant>,
    repairs: repairs::Repairs,
    /// Foreign default routes that were told of, as long as they stand.
    foreign: Vec<(Family, String)>,
    cut_tasks: cut::CutTasks,
    reasons: examine::Reasons,
    events: Events,
    programs: programs::Watch,
    /// A packet had an address that an uplink has lost, which may have moved.
    lost_used: bool,
    cut_probes: examine::CutProbes,
}

impl<'a> Agent<'a> {
    fn new(
        setting: Setting<'a>,
        clock: Clock,
        active: PerFamily<UplinkSet>,
        router: &'a mut Router,
        datapath: &'a mut Datapath,
    ) -> Self {
        let Setting {
            config,
            origin,
            program,
            store,
        } = setting;
        let links = router.links();
        let drills = Drills::new(store);
        let memory = Memory::load(store);
        let machine = Machine::new(MachineConfig {
            active,
            drill: commands::earlier_drill(&drills, &configured(&config, links), clock),
            ..machine_config(&config, links, memory.known())
        });
        let (sender, inputs) = mpsc::channel(INPUTS);
        let cut_probes = examine::cut_probes(datapath, links);
        let sockets = datapath.probe_sockets();
        Agent {
            probers: probe_specs(&config, links)
                .map(|spec| Prober::spawn(spec, clock, sender.clone(), sockets.clone()))
                .collect(),
            lease: lease_timer(config.cutoff.lease),
            uplinks: configured(&config, links),
            config,
            origin,
            program,
            clock,
            instance: status::instance(),
            machine,
            router,
            datapath,
            hooks: Runner::new(),
            lost_addresses: lost_addresses::LostAddresses::default(),
            inputs,
            sender,
            history: switch::History::default(),
            drills,
            drill_unsaved: false,
            memory,
            health_unsaved: false,
            scans: ScanSchedule::new(),
            rewatch: false,
            restart: None,
            repairs: repairs::Repairs::default(),
            foreign: Vec::new(),
            cut_tasks: cut::CutTasks::open(),
            reasons: examine::Reasons::default(),
            events: Events::default(),
            programs: programs::Watch::new(),
            lost_used: false,
            cut_probes,
        }
    }

    async fn serve(&mut self, edges: Edges, signals: &mut Signals) -> anyhow::Result<Ended> {
        let Edges {
            mut observer,
            server,
            log,
            mut ended,
        } = edges;
        let (sender, mut requests) = mpsc::channel(REQUESTS);
        let mut server = std::pin::pin!(server.serve(sender, self.events.clone()));
        let mut log = std::pin::pin!(log.forward());
        // A drill that was over before the start leaves no file.
        self.keep_drill();
        let mut warm = tokio::time::interval(RESOLVE);
        info!(uplinks = self.router.links().len(), "running");
        loop {
            // After a pause the lease is past, and the gates stand open: nothing is done before that is over.
            if self.lease.tick().now_or_never().is_some() {
                self.renew_lease();
            }
            self.act();
            if std::mem::take(&mut self.rewatch) {
                let uplinks = self.config.uplinks.iter();
                observer.watch(uplinks.map(|uplink| uplink.interface.as_str()));
            }
            let timer = self
                .machine
                .poll_timeout()
                .map(|time| self.clock.instant(time));
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop(signal) => {
                        info!("{signal}: stopping");
                        return Ok(Ended::Stopped);
                    }
                    Asked::Reload => {
                        self.reload();
                    }
                },
                _ = self.lease.tick() => {
                    self.renew_lease();
                    self.follow_time_of_day();
                    self.watch_programs();
                    if self.lost_used {
                        self.end_lost_addresses();
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
                change = observer.next() => self.changed(&change),
                () = sleep_until(Some(self.scans.due())) => {
                    self.scan();
                }
                () = sleep_until(self.restart) => return Ok(Ended::Restarting),
                Some((request, reply)) = requests.recv() => {
                    if reply.send(self.respond(&request)).is_err() {
                        debug!("a control client left before its answer");
                    }
                }
                Some(cut) = self.cut_tasks.done() => self.finish_cut(cut),
                flow = ended.next() => self.publish(&flow?),
                _ = warm.tick() => self.resolve_gateways(),
                () = &mut server => anyhow::bail!("the control socket is gone"),
                Err(error) = &mut log => return Err(error),
            }
        }
    }

    fn renew_lease(&mut self) {
        if let Err(error) = self.datapath.renew_lease(self.config.cutoff.lease) {
            warn!("the lease could not be renewed: {error:#}");
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
                Action::Switch(switch) => {
                    self.switch(&switch);
                    // Those that were cut in favour of an uplink that is no more stood open as long as none was active.
                    self.align_gates(switch.family);
                }
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
                Action::Withdraw { family, uplinks } => self.withdraw(family, uplinks),
                Action::Examine { uplink, family } => self.examine(uplink, family),
                Action::Recover { uplink } => self.recover(uplink),
                Action::Report(event) => self.report(&event),
            }
        }
        self.log_switches();
        if std::mem::take(&mut self.drill_unsaved) {
            self.keep_drill();
        }
        if std::mem::take(&mut self.health_unsaved) {
            self.keep_health();
        }
    }

    fn prober(&self, uplink: UplinkId, family: Family) -> Option<&Prober> {
        self.probers
            .iter()
            .find(|prober| prober.probes(uplink, family))
    }

    fn name(&self, uplink: UplinkId) -> &str {
        &self.uplinks[uplink].name
    }
}

/// The configured uplinks by identity.
fn configured(config: &Config, links: &PerUplink<Link>) -> PerUplink<UplinkConfig> {
    links.ids().zip(config.uplinks.iter().cloned()).collect()
}

/// Three renewals per lease: two may be late or fail.
fn lease_timer(lease: Duration) -> Interval {
    let mut timer = tokio::time::interval(lease / 3);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(Instant::from(due)).await,
        None => std::future::pending().await,
    }
}
