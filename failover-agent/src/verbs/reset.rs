//! `reset`: removes what a killed agent left behind.

use anyhow::Result;

use crate::{
    agent,
    cli::{DirFlags, ResetArgs},
    config::{Config, Dirs, RouteConfig},
    control::{self, Lock, NamespaceLock},
    datapath,
    failure::Failure,
    output, route,
    store::Store,
};

/// Removes everything in the order of a stop: gates open, routes as they were, no programs. Every step is tried, even if others fail, and
/// nothing is printed before the last one: the reader may close the pipe.
pub(super) fn reset(args: &ResetArgs, flags: &DirFlags) -> Result<()> {
    let config = args.config.as_deref().map(Config::from_file).transpose()?;
    let (route, dirs) = match config {
        Some(config) => (config.route, config.dirs),
        None => (RouteConfig::default(), Dirs::default()),
    };
    let dirs = dirs.overridden(flags)?;
    let lock = Lock::acquire(&dirs.run)?;
    let namespace_lock = NamespaceLock::acquire(&dirs.run)?;
    let store = Store::open(&dirs);
    let mut done = Done::default();
    done.take(
        "opening the gates",
        datapath::end_lease(&dirs.bpf).map(|()| Vec::new()),
    );
    match route::reset(&route, &store) {
        Ok(report) => {
            done.changes
                .extend(report.changes.iter().map(ToString::to_string));
            done.changes.extend(report.obsolete);
            done.problems.extend(report.problems);
        }
        error => done.take("removing routes and rules", error.map(|_| Vec::new())),
    }
    let pins = datapath::remove_pins(&dirs.bpf);
    done.changes
        .extend(pins.removed.iter().map(|what| format!("removed {what}")));
    done.problems.extend(pins.problems);
    done.take(
        "removing the sockets",
        control::remove_sockets(&lock).map(|sockets| {
            sockets
                .iter()
                .map(|what| format!("removed {what}"))
                .collect()
        }),
    );
    let remembered = [
        ("the drill", agent::remove_drill(&store)),
        ("the health record", agent::forget(&store)),
    ];
    let removed = remembered.iter().filter(|(_, there)| *there);
    done.changes
        .extend(removed.map(|(what, _)| format!("removed {what}")));
    done.problems.extend(store.finish());
    done.problems.extend(lock.release());
    drop(namespace_lock);
    if !done.problems.is_empty() {
        done.changes.iter().for_each(output::try_line);
        return Err(Failure::Leftover {
            problems: done.problems,
        }
        .into());
    }
    for line in &done.changes {
        output::print_line(line)?;
    }
    if done.changes.is_empty() {
        output::print_line("nothing to reset: no trace of an agent")?;
    }
    Ok(())
}

/// What was done, and what failed.
#[derive(Default)]
struct Done {
    changes: Vec<String>,
    problems: Vec<String>,
}

impl Done {
    fn take(&mut self, what: &str, step: Result<Vec<String>>) {
        match step {
            Ok(changes) => self.changes.extend(changes),
            Err(error) => self.problems.push(format!("{what}: {error:#}")),
        }
    }
}
