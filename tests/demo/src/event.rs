//! What can happen in the demonstration: as data, and as a line that needs no explanation.

use std::fmt;

use serde::Serialize;

/// Something that happened. In JSON its name is the key `event`, its fields stand beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The laboratory stands.
    Laboratory {
        /// How long the building took, in milliseconds.
        build_ms: f64,
    },
    /// The agent is running.
    Agent {
        /// Its process id.
        pid: u32,
    },
    /// A stream's first packet was answered.
    Flowing {
        /// `host` or `client`.
        stream: &'static str,
        /// The uplink by which it left.
        uplink: String,
    },
    /// An uplink's provider silently loses everything from now on.
    Fault {
        /// The uplink.
        uplink: &'static str,
    },
    /// It does not any more.
    Repair {
        /// The uplink.
        uplink: &'static str,
    },
    /// A bad round: targets that did not answer in time.
    ProbeFailed {
        /// The uplink.
        uplink: String,
        /// Their addresses.
        targets: Vec<String>,
        /// Bad rounds in a row until now.
        failed: u64,
        /// That many make the uplink Down.
        fall: u64,
    },
    /// An uplink's health has changed.
    Health {
        /// The uplink.
        uplink: String,
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// A failback must wait until the uplink has been good for long enough.
    Hold {
        /// The uplink.
        uplink: String,
        /// Time left, in milliseconds.
        hold_ms: f64,
    },
    /// The active uplink is Down, but no other one is proven Up.
    NowhereToGo,
    /// The agent has decided to switch.
    Decision {
        /// `start-up`, `failover` or `failback`.
        cause: String,
        /// The uplink until now; null at the start.
        from: Option<String>,
        /// The new one.
        to: String,
    },
    /// The new default route stands, read back from the kernel; the old one is demoted.
    Route {
        /// The uplink that it leads to.
        to: String,
        /// Time since the decision, in microseconds.
        after_us: u64,
    },
    /// The new uplink's gate is open, the others are closed.
    Gates {
        /// The uplink whose gate is open.
        open: String,
        /// Time since the route stood, in microseconds.
        after_us: u64,
    },
    /// The other family does the same.
    Follow {
        /// `IPv4` or `IPv6`.
        family: String,
        /// The new uplink.
        to: String,
    },
    /// A stream's first packet was answered by the new uplink.
    FirstPacket {
        /// `host` or `client`.
        stream: &'static str,
        /// The new uplink.
        uplink: String,
        /// Time without any answer before it, in milliseconds.
        silence_ms: f64,
    },
    /// The application of an old connection was told that it is over.
    Ended {
        /// Whose: `host` or `client`.
        stream: &'static str,
        /// The error that it got.
        error: String,
        /// After the decision, in milliseconds.
        after_ms: f64,
    },
    /// A closed gate has cut its first packet.
    Cut {
        /// The packet, in the eBPF program's words.
        packet: String,
    },
    /// Anything else that the agent warns of.
    Warning {
        /// In its words.
        message: String,
    },
    /// The agent was told to stop, and has restored everything.
    Stopped,
}

/// How much an event matters to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As expected.
    Plain,
    /// Traffic flows again.
    Good,
    /// Something begins to look bad.
    Doubtful,
    /// Something is broken.
    Bad,
    /// What this is all about.
    Important,
}

impl Event {
    /// Who speaks or acts.
    pub(super) fn actor(&self) -> &'static str {
        match self {
            Event::Laboratory { .. } => "laboratory",
            Event::Fault { .. } => "FAULT",
            Event::Repair { .. } => "REPAIR",
            Event::Flowing { .. } | Event::FirstPacket { .. } | Event::Ended { .. } => "traffic",
            Event::Cut { .. } => "gate",
            Event::Agent { .. }
            | Event::ProbeFailed { .. }
            | Event::Health { .. }
            | Event::Hold { .. }
            | Event::NowhereToGo
            | Event::Decision { .. }
            | Event::Route { .. }
            | Event::Gates { .. }
            | Event::Follow { .. }
            | Event::Warning { .. }
            | Event::Stopped => "agent",
        }
    }

    pub(super) fn tone(&self) -> Tone {
        match self {
            Event::Fault { .. } => Tone::Bad,
            Event::Health { to, .. } if to == "Down" => Tone::Bad,
            Event::NowhereToGo => Tone::Bad,
            Event::ProbeFailed { .. } | Event::Cut { .. } | Event::Warning { .. } => Tone::Doubtful,
            Event::Repair { .. }
            | Event::Flowing { .. }
            | Event::FirstPacket { .. }
            | Event::Ended { .. } => Tone::Good,
            Event::Decision { .. } => Tone::Important,
            Event::Laboratory { .. }
            | Event::Agent { .. }
            | Event::Health { .. }
            | Event::Hold { .. }
            | Event::Route { .. }
            | Event::Gates { .. }
            | Event::Follow { .. }
            | Event::Stopped => Tone::Plain,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Laboratory { build_ms } => write!(f, "built in {build_ms:.0} ms"),
            Event::Agent { pid } => write!(f, "running (process {pid}), pinging by both uplinks"),
            Event::Flowing { stream, uplink } => {
                write!(f, "the {stream}'s packets are answered, by {uplink}")
            }
            Event::Fault { uplink } => write!(
                f,
                "{uplink}'s provider now loses every packet; the link to it stays up"
            ),
            Event::Repair { uplink } => write!(f, "{uplink}'s provider works again"),
            Event::ProbeFailed {
                uplink,
                targets,
                failed,
                fall,
            } => {
                let targets = targets.join(" and ");
                write!(
                    f,
                    "{uplink}: no answer from {targets} (bad round {failed} of {fall})"
                )
            }
            Event::Health { uplink, from, to } => {
                let probes = match (from.as_str(), to.as_str()) {
                    ("Down", "Up") => ": its probes are good again",
                    _ => "",
                };
                write!(f, "{uplink} is {to} (was {from}){probes}")
            }
            Event::Hold { uplink, hold_ms } => write!(
                f,
                "{uplink} must stay good for {:.1} s more before the failback",
                hold_ms / 1e3
            ),
            Event::NowhereToGo => {
                f.write_str("no other uplink is proven Up: nothing is switched, nothing is cut")
            }
            Event::Decision { cause, from, to } => match from {
                Some(from) => write!(f, "decision: {cause} from {from} to {to}"),
                None => write!(f, "decision: {to} is the active uplink ({cause})"),
            },
            Event::Route { to, after_us } => write!(
                f,
                "default route by {to} stands and is confirmed, {} after the decision",
                duration(*after_us)
            ),
            Event::Gates { open, after_us } => write!(
                f,
                "gates: {open} open, the other one closed, {} later",
                duration(*after_us)
            ),
            Event::Follow { family, to } => write!(f, "{family} follows to {to}"),
            Event::FirstPacket {
                stream,
                uplink,
                silence_ms,
            } => write!(
                f,
                "the {stream}'s first packet by {uplink} is answered, {silence_ms:.1} ms after the last answer before"
            ),
            Event::Ended {
                stream,
                error,
                after_ms,
            } => write!(
                f,
                "the {stream}'s old TCP connection ends ({error}), {after_ms:.1} ms after the decision"
            ),
            Event::Cut { packet } => write!(f, "the closed gate cuts its first packet: {packet}"),
            Event::Warning { message } => f.write_str(message),
            Event::Stopped => {
                f.write_str("stopped: it has restored all routes and removed its programs")
            }
        }
    }
}

fn duration(microseconds: u64) -> String {
    if microseconds < 1000 {
        return format!("{microseconds} µs");
    }
    let (whole, rest) = (microseconds / 1000, microseconds % 1000 / 10);
    format!("{whole}.{rest:02} ms")
}
