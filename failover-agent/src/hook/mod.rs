//! Edge: the user's programs, which run when something has happened.
//!
//! One program of each kind runs at a time, in the order of the events, and the agent does not wait for it. Switches that happen while it
//! runs are passed to it afterwards, only the newest of each family: the program reacts to the state, not to its history. A recovery that
//! is still running is not started again.
//!
//! The environment of a program: no shell; an empty standard input; `PATH`, `HOME` and `LANG` of the agent's environment; `/` as working
//! directory; a process group of its own. Its output is logged (see `output`); `run` defines how it is ended.

mod output;
mod run;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fs, net::IpAddr, os::unix::fs::PermissionsExt, time::Duration};

use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        watch,
    },
    task::JoinHandle,
};
use tracing::{debug, error, warn};

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name in the log: the key whose value it is, and the uplink's name where there is one.
    pub name: String,
    /// Its path and its arguments; if empty, nothing is run.
    pub command: Vec<String>,
    /// How long it may run before it is ended.
    pub timeout: Duration,
}

impl Program {
    /// Why it could not be run at this moment, if that can be seen. It may be there when it is needed.
    pub fn problem(&self) -> Option<String> {
        let path = self.command.first()?;
        let problem = match fs::metadata(path) {
            Err(error) => error.to_string(),
            Ok(metadata) if !metadata.is_file() => "not a file".to_owned(),
            Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                "not executable (chmod +x)".to_owned()
            }
            Ok(_) => return None,
        };
        Some(format!("{}: {path} cannot be run: {problem}", self.name))
    }
}

/// A switch, as a program learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Why the switch was made.
    pub reason: String,
    /// The active uplinks now: one, or a balance group in order of preference.
    pub active: Vec<Uplink>,
    /// Names of the uplinks that were active before; none at the start.
    pub previous: Vec<String>,
}

/// An uplink, as a program learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// Its gateway; none on a point-to-point link.
    pub gateway: Option<IpAddr>,
}

/// Runs programs. Must be used within a tokio runtime.
#[derive(Debug)]
pub struct Runner {
    lanes: Vec<Lane>,
    stop: watch::Sender<bool>,
}

impl Default for Runner {
    fn default() -> Self {
        Runner::new()
    }
}

impl Runner {
    /// A runner with no program running.
    pub fn new() -> Self {
        Runner {
            lanes: Vec::new(),
            stop: watch::Sender::new(false),
        }
    }

    /// Runs `program` for a switch, with `UPLINK`, `INTERFACE`, `GATEWAY`, `PREVIOUS`, `REASON` and `FAMILY` in its environment; several
    /// uplinks are separated by commas. Returns at once.
    pub fn on_switch(&mut self, program: Program, switch: Switch) {
        let list = |value: fn(&Uplink) -> String| {
            let values: Vec<String> = switch.active.iter().map(value).collect();
            values.join(",")
        };
        let gateway = |uplink: &Uplink| {
            let gateway = uplink.gateway.map(|gateway| gateway.to_string());
            gateway.unwrap_or_default()
        };
        let variables = vec![
            ("UPLINK", list(|uplink| uplink.name.clone())),
            ("INTERFACE", list(|uplink| uplink.interface.clone())),
            ("GATEWAY", list(gateway)),
            (PREVIOUS, switch.previous.join(",")),
            ("REASON", switch.reason),
            ("FAMILY", switch.family.to_owned()),
        ];
        let meanwhile = Meanwhile::Newest {
            family: switch.family,
        };
        self.order(
            "on_switch",
            Job {
                program,
                variables,
                meanwhile,
            },
        );
    }

    /// Runs `program` to bring a faulty uplink back, with `UPLINK`, `INTERFACE` and `REASON=recover` in its environment. Returns at once.
    pub fn recover(&mut self, program: Program, uplink: &str, interface: &str) {
        self.order(
            &format!("recover {uplink}"),
            Job {
                program,
                variables: vec![
                    ("UPLINK", uplink.to_owned()),
                    ("INTERFACE", interface.to_owned()),
                    ("REASON", "recover".to_owned()),
                ],
                meanwhile: Meanwhile::Nothing,
            },
        );
    }

    /// Ends the running programs, children included, and returns when that is done: after 6 s at the latest.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for lane in self.lanes {
            // Closing the channel ends an idle lane.
            drop(lane.jobs);
            if let Err(error) = lane.task.await {
                error!("the task that runs programs has failed: {error}");
            }
        }
    }

    fn order(&mut self, name: &str, job: Job) {
        if job.program.command.is_empty() {
            return;
        }
        let place = self.lanes.iter().position(|lane| lane.name == name);
        let place = place.unwrap_or_else(|| {
            self.lanes.push(Lane::open(name, self.stop.subscribe()));
            self.lanes.len() - 1
        });
        if self.lanes[place].jobs.send(job).is_err() {
            error!("{name}: the task that runs programs is gone");
        }
    }
}

/// The variable with the uplinks that were active before.
const PREVIOUS: &str = "PREVIOUS";

/// One run of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    program: Program,
    variables: Vec<(&'static str, String)>,
    meanwhile: Meanwhile,
}

/// What to do with a job that arrives while another one of its lane is running.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meanwhile {
    /// It waits, and replaces one that waits for the same family.
    Newest { family: &'static str },
    /// It is dropped.
    Nothing,
}

/// Jobs that run one after the other.
#[derive(Debug)]
struct Lane {
    name: String,
    jobs: UnboundedSender<Job>,
    task: JoinHandle<()>,
}

impl Lane {
    fn open(name: &str, stop: watch::Receiver<bool>) -> Self {
        let (jobs, receiver) = mpsc::unbounded_channel();
        Lane {
            name: name.to_owned(),
            jobs,
            task: tokio::spawn(work(receiver, stop)),
        }
    }
}

/// Runs the jobs of a lane until it is closed.
async fn work(mut jobs: UnboundedReceiver<Job>, stop: watch::Receiver<bool>) {
    let mut waiting = VecDeque::new();
    loop {
        let job = match waiting.pop_front() {
            Some(job) => job,
            None => match jobs.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let mut running = std::pin::pin!(run::run(job, stop.clone()));
        loop {
            tokio::select! {
                () = &mut running => break,
                Some(job) = jobs.recv() => wait(&mut waiting, job),
            }
        }
        if *stop.borrow() {
            return;
        }
    }
}

/// Queues or drops a job that arrives while another one is running.
fn wait(waiting: &mut VecDeque<Job>, mut job: Job) {
    let name = &job.program.name;
    let Meanwhile::Newest { family } = &job.meanwhile else {
        warn!("{name}: not started again, since it is still running");
        return;
    };
    debug!("{name}: the switch of {family} waits until the running program has ended");
    let same = waiting
        .iter()
        .position(|other| other.meanwhile == job.meanwhile);
    // The program never learns of the replaced switch: what was active before that one is what was active before this one.
    if let Some(passed_over) = same.and_then(|place| waiting.remove(place)) {
        let before = variable(&passed_over.variables, PREVIOUS).map(ToOwned::to_owned);
        for (key, value) in &mut job.variables {
            if *key == PREVIOUS
                && let Some(before) = &before
            {
                value.clone_from(before);
            }
        }
    }
    waiting.push_back(job);
}

fn variable<'a>(variables: &'a [(&str, String)], name: &str) -> Option<&'a str> {
    let mut variables = variables.iter();
    let (_, value) = variables.find(|(key, _)| *key == name)?;
    Some(value)
}
