//! Reads the agent's log lines. Pure, except for the look at the clock that its times are compared with.

use std::time::{Duration, Instant, SystemTime};

use failover_lab::LogLine;

use super::event::Event;

/// The family that the demonstration tells of; the other one follows.
const FAMILY: &str = "IPv4";

/// A confirmed switch of IPv4, with the time of each step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Switch {
    pub(super) cause: String,
    pub(super) from: Option<String>,
    pub(super) to: String,
    pub(super) decided: Instant,
    pub(super) routed: Instant,
    /// `None` when the gates could not be set.
    pub(super) gated: Option<Instant>,
}

impl Switch {
    /// Its steps as events.
    pub(super) fn events(&self) -> Vec<(Instant, Event)> {
        let Switch {
            cause,
            from,
            to,
            decided,
            routed,
            gated,
        } = self;
        let decision = Event::Decision {
            cause: cause.clone(),
            from: from.clone(),
            to: to.clone(),
        };
        let route = Event::Route {
            to: to.clone(),
            after_us: micros_between(*decided, *routed),
        };
        let gates = gated.map(|gated| {
            let event = Event::Gates {
                open: to.clone(),
                after_us: micros_between(*routed, gated),
            };
            (gated, event)
        });
        [(*decided, decision), (*routed, route)]
            .into_iter()
            .chain(gates)
            .collect()
    }
}

fn micros_between(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}

/// What a log line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// It is running: `start` is done.
    Running,
    Switch(Switch),
    Event(Event),
}

/// What a line says that is worth showing.
pub(super) fn read(line: &LogLine) -> Option<Said> {
    let text = |name| line.field(name)?.as_str().map(str::to_owned);
    let number = |name| line.field(name)?.as_u64();
    let message = text("message")?;
    let uplink = text("uplink");
    let family = text("family");
    if family.as_deref().is_some_and(|family| family != FAMILY) {
        // At the start there is nothing to follow from.
        text("from").filter(|_| text("cause").is_some())?;
        let (family, to) = (family?, text("to")?);
        return Some(Said::Event(Event::Follow { family, to }));
    }
    if let (Some(cause), Some(to)) = (text("cause"), text("to")) {
        return Some(Said::Switch(switch(line, cause, to)?));
    }
    if let (Some(from), Some(to), Some(uplink)) = (text("from"), text("to"), &uplink) {
        let uplink = uplink.clone();
        return Some(Said::Event(Event::Health { uplink, from, to }));
    }
    if let (Some(probed), Some(failed), Some(fall)) =
        (text("probed"), number("failed"), number("fall"))
    {
        // Beyond `fall` it says nothing new.
        return (failed <= fall).then_some(Said::Event(Event::ProbeFailed {
            uplink: uplink?,
            targets: vec![probed],
            failed,
            fall,
        }));
    }
    if let Some(seconds) = line.field("hold_s").and_then(serde_json::Value::as_f64) {
        return Some(Said::Event(Event::Hold {
            uplink: uplink?,
            hold_ms: seconds * 1e3,
        }));
    }
    if message == "running" {
        return Some(Said::Running);
    }
    if message.starts_with("no uplink is proven Up") {
        return Some(Said::Event(Event::NowhereToGo));
    }
    let of_programs = text("target").is_some_and(|module| module.starts_with("failover_ebpf"));
    if of_programs && let Some((_, packet)) = message.split_once(": cut ") {
        let packet = packet.to_owned();
        return Some(Said::Event(Event::Cut { packet }));
    }
    let level = text("level")?;
    matches!(level.as_str(), "WARN" | "ERROR").then_some(Said::Event(Event::Warning { message }))
}

fn switch(line: &LogLine, cause: String, to: String) -> Option<Switch> {
    let micros = |name| Some(Duration::from_micros(line.field(name)?.as_u64()?));
    let (decided, routed, gated) = (
        micros("decided_us")?,
        micros("routed_us")?,
        micros("gated_us"),
    );
    let detected = time_of(line).checked_sub(micros("logged_us")?)?;
    Some(Switch {
        cause,
        from: line
            .field("from")
            .and_then(|from| Some(from.as_str()?.to_owned())),
        to,
        decided: detected + decided,
        routed: detected + routed,
        gated: gated.map(|gated| detected + gated),
    })
}

/// When the agent wrote the line, which is a little before it arrived here.
pub(super) fn time_of(line: &LogLine) -> Instant {
    let written = line
        .field("timestamp")
        .and_then(|time| humantime::parse_rfc3339(time.as_str()?).ok());
    let age = written.and_then(|written| SystemTime::now().duration_since(written).ok());
    let written = age.and_then(|age| Instant::now().checked_sub(age));
    written.map_or(line.at, |written| written.min(line.at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(fields: &serde_json::Value) -> LogLine {
        LogLine {
            at: Instant::now(),
            text: fields.to_string(),
            json: Some(fields.clone()),
        }
    }

    #[test]
    fn a_switch_is_taken_apart_into_its_steps() {
        let line = line(&json!({
            "level": "INFO", "message": "failover: lte is the active uplink for IPv4", "family": "IPv4",
            "from": "cable", "to": "lte", "cause": "failover", "decided_us": 10, "routed_us": 571, "gated_us": 600,
            "logged_us": 600,
        }));
        let Some(Said::Switch(switch)) = read(&line) else {
            panic!("{:?}", read(&line));
        };
        assert_eq!(switch.gated, Some(line.at));
        let events = switch.events();
        let events: Vec<_> = events.iter().map(|(_, event)| event).collect();
        let [
            Event::Decision { from, .. },
            Event::Route { after_us: 561, .. },
            Event::Gates { after_us: 29, .. },
        ] = &events[..]
        else {
            panic!("{events:?}");
        };
        assert_eq!(from.as_deref(), Some("cable"));
    }

    #[test]
    fn other_lines_are_recognized_by_their_fields() {
        let failed = json!({
            "level": "WARN", "message": "…", "uplink": "cable", "family": "IPv4",
            "probed": "192.0.2.1", "failed": 2, "fall": 3, "target": "failover_agent::agent::report",
        });
        let expected = Event::ProbeFailed {
            uplink: "cable".to_owned(),
            targets: vec!["192.0.2.1".to_owned()],
            failed: 2,
            fall: 3,
        };
        assert_eq!(read(&line(&failed)), Some(Said::Event(expected)));

        let follow = json!({
            "level": "INFO", "message": "…", "family": "IPv6", "from": "cable", "to": "lte", "cause": "follow",
            "decided_us": 0, "routed_us": 1, "gated_us": 2, "logged_us": 3,
        });
        let expected = Event::Follow {
            family: "IPv6".to_owned(),
            to: "lte".to_owned(),
        };
        assert_eq!(read(&line(&follow)), Some(Said::Event(expected)));

        let unknown = json!({ "level": "ERROR", "message": "the roof is on fire" });
        let expected = Event::Warning {
            message: "the roof is on fire".to_owned(),
        };
        assert_eq!(read(&line(&unknown)), Some(Said::Event(expected)));
        let detail = json!({ "level": "DEBUG", "message": "routes: added" });
        assert_eq!(read(&line(&detail)), None);
    }

    #[test]
    fn a_lines_time_is_the_agents_unless_it_makes_no_sense() {
        let written = SystemTime::now() - Duration::from_millis(200);
        let early =
            line(&json!({ "timestamp": humantime::format_rfc3339_micros(written).to_string() }));
        let lag = early.at.saturating_duration_since(time_of(&early));
        assert!(lag > Duration::from_millis(100), "{lag:?}");
        let future = line(&json!({ "timestamp": "2999-01-01T00:00:00Z" }));
        assert_eq!(time_of(&future), future.at);
    }
}
