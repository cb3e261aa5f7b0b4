//! The phases of an agent's life in which calls fail, and the hosts in which it lives.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// What the agent does while a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// From the program's first instruction until an uplink is active and its gates are set.
    Start,
    /// From a fault of the active uplink until another one is active and its gates are set.
    Switch,
    /// From SIGTERM to the end of the process.
    Stop,
    /// From a changed file until it has effect.
    Reload,
    /// From the order until the program that has taken over is where the old one was.
    Restart,
    /// `failover-agent reset` after the agent was killed.
    Reset,
}

impl Phase {
    pub(super) const ALL: [Phase; 6] = [
        Phase::Start,
        Phase::Switch,
        Phase::Stop,
        Phase::Reload,
        Phase::Restart,
        Phase::Reset,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Start => "start",
            Phase::Switch => "switch",
            Phase::Stop => "stop",
            Phase::Reload => "reload",
            Phase::Restart => "restart",
            Phase::Reset => "reset",
        })
    }
}

/// How the agent is configured. Of a later setting only those calls fail that no earlier one makes in the same phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Setting {
    /// Two uplinks, programs attached as the kernel allows.
    Plain,
    /// The same, programs attached by clsact.
    Clsact,
    /// Two uplinks of equal rank that share new connections, and a backup.
    Group,
}

impl Setting {
    pub(super) const ALL: [Setting; 3] = [Setting::Plain, Setting::Clsact, Setting::Group];

    /// The uplinks, most preferred first.
    pub(super) fn uplinks(self) -> &'static [&'static str] {
        match self {
            Setting::Plain | Setting::Clsact => &["cable", "lte"],
            Setting::Group => &["cable", "dsl", "lte"],
        }
    }

    /// The configuration file; another one of the same meaning for a reload.
    pub(super) fn config(self, changed: bool) -> String {
        let mut text = "[probe]\n\
             targets = [\"192.0.2.1\", \"2001:db8:f::1\"]\n\
             interval = \"100ms\"\ntimeout = \"400ms\"\nfall = 2\nrise = 2\n\
             [cutoff]\nlease = \"1s\"\n"
            .to_owned();
        if changed {
            text.push_str(
                "allow = [\"198.51.100.77/32\"]\n[route]\nactive_metric = 70\nstandby_metric = 4000\n",
            );
        }
        if self == Setting::Clsact {
            text.push_str("[datapath]\nattach = \"clsact\"\n");
        }
        for (place, uplink) in self.uplinks().iter().enumerate() {
            text.push_str(&format!("[[uplink]]\ninterface = \"{uplink}\"\n"));
            if self == Setting::Group {
                text.push_str(&format!("rank = {}\n", usize::from(place == 2)));
            }
        }
        text
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setting::Plain => "plain",
            Setting::Clsact => "clsact",
            Setting::Group => "group",
        })
    }
}
