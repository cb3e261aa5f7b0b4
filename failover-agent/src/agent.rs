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
mod probers;
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
    Action, Family, Machine, MachineConfig, PerFamily, PerUplink, UplinkId, UplinkSet,
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
    probers::Probers,
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
    route::{Link, Router},
};

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
    /// Distinguishes this start of the program from others.
    instance: String,
    machine: Machine,
    router: &'a mut Router,
    datapath: &'a mut Datapath,
    hooks: Runner,
    uplinks: PerUplink<UplinkConfig>,
    lost_addresses: lost_addresses::LostAddresses,
    probers: Probers,
    history: switch::History,
    drills: Drills,
    memory: Memory,
    unsaved: Unsaved,
    scans: ScanSchedule,
    lease: Interval,
    /// The observer does not know the uplinks of a new configuration yet.
    rewatch: bool,
    /// When to end for a new start.
    restart: Option<std::time::Instant>,
    repairs: repairs::Repairs,
    /// Foreign default routes that were reported, as long as they stand.
    foreign: Vec<(Family, String)>,
    cut_tasks: cut::CutTasks,
    blindness: examine::Blindness,
    events: Events,
    programs: programs::Watch,
}

/// What the policy knows and its file may not say yet.
#[derive(Clone, Copy, Debug, Default)]
struct Unsaved {
    /// The drill (`drill.json`).
    drill: bool,
    /// Health and manual overrides (`health.json`).
    health: bool,
}

impl Unsaved {
    /// After a command or a reload, which may concern both.
    const BOTH: Unsaved = Unsaved {
        drill: true,
        health: true,
    };
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
        let specs = probe_specs(&config, links);
        Agent {
            probers: Probers::start(specs, clock, datapath.probe_sockets()),
            blindness: examine::Blindness::new(datapath, links),
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
            history: switch::History::default(),
            drills,
            memory,
            unsaved: Unsaved::default(),
            scans: ScanSchedule::new(),
            rewatch: false,
            restart: None,
            repairs: repairs::Repairs::default(),
            foreign: Vec::new(),
            cut_tasks: cut::CutTasks::open(),
            events: Events::default(),
            programs: programs::Watch::new(),
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
                    if self.lost_addresses.used {
                        self.end_lost_addresses();
                    }
                }
                Some(input) = self.probers.next() => {
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
        while let Some(input) = self.probers.waiting() {
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
                    if let Some(prober) = self.probers.get(uplink, family) {
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
        let unsaved = std::mem::take(&mut self.unsaved);
        if unsaved.drill {
            self.keep_drill();
        }
        if unsaved.health {
            self.keep_health();
        }
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
