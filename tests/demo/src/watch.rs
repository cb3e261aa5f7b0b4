//! Looks at the agent and shows what it says, while the scenario waits for something.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use failover_lab::{AgentProcess, Lab, LogLine, UdpStream};

use super::{
    agent_log::{self, Said, Switch},
    event::Event,
    screen::Screen,
    timeline::{Timeline, milliseconds},
};

/// Time between two looks at the log and the streams.
const LOOK: Duration = Duration::from_millis(10);

/// Lines of the agent's log that an error shows.
const LAST_LINES: usize = 15;

/// The running agent, with all that it has said until now.
pub(super) struct Watch<'a> {
    pub(super) agent: AgentProcess,
    timeline: &'a mut Timeline,
    screen: &'a mut Screen,
    /// Lines of the log that were read.
    read: usize,
    /// Time of the last one.
    last: Instant,
    running: bool,
    cut: bool,
    switches: Vec<Switch>,
}

impl<'a> Watch<'a> {
    /// Starts the agent in the laboratory's host.
    pub(super) fn start(
        lab: &Lab,
        program: &Path,
        config: &str,
        timeline: &'a mut Timeline,
        screen: &'a mut Screen,
    ) -> Result<Watch<'a>> {
        let config = lab.write_config(config)?;
        let agent = AgentProcess::spawn(
            program,
            lab.host().namespace(),
            &["run", "--config", &config.to_string_lossy()],
            lab.agent_dirs(),
        )?;
        Ok(Watch {
            agent,
            timeline,
            screen,
            read: 0,
            last: Instant::now(),
            running: false,
            cut: false,
            switches: Vec::new(),
        })
    }

    /// Whether it has said that it is running.
    pub(super) fn running(&self) -> bool {
        self.running
    }

    /// The switch to an uplink that was decided after `after`.
    pub(super) fn switch_to(&self, uplink: &str, after: Instant) -> Option<Switch> {
        let mut switches = self.switches.iter();
        let switch = switches.find(|switch| switch.to == uplink && switch.decided >= after);
        switch.cloned()
    }

    /// The uplink of the last switch.
    pub(super) fn active(&self) -> Option<&str> {
        self.switches.last().map(|switch| switch.to.as_str())
    }

    /// Milliseconds since the demonstration began.
    pub(super) fn elapsed_ms(&self) -> f64 {
        milliseconds(self.timeline.elapsed())
    }

    /// Adds an event of another source.
    pub(super) fn happened(&mut self, at: Instant, event: Event) {
        self.timeline.push(at, event);
    }

    /// Looks on until `done` returns something.
    ///
    /// # Errors
    /// When it does not within `limit`, or the agent ends.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            self.look()?;
            if let Some(value) = done(self) {
                return Ok(value);
            }
            if Instant::now() >= deadline {
                bail!("{what} within {} s", limit.as_secs());
            }
            thread::sleep(LOOK);
        }
    }

    /// Looks on for a while.
    pub(super) fn pause(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.look()?;
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits for a stream's first answer by an uplink after `after`; returns when it came, and how long there was none before it.
    pub(super) fn first_packet(
        &mut self,
        stream: (&str, &UdpStream),
        uplink: &str,
        after: Instant,
        limit: Duration,
    ) -> Result<(Instant, Duration)> {
        let (name, stream) = stream;
        let what = format!("no packet of the {name}'s stream was answered by {uplink}");
        let at = self.until(&what, limit, |_| {
            let echo = stream.wait_for_echo_by(uplink, after, Duration::ZERO);
            echo.ok().map(|echo| echo.at)
        })?;
        let report = stream.report();
        let answers = report
            .records
            .iter()
            .filter_map(|record| Some(record.echo.as_ref()?.at));
        let before = answers.filter(|answer| *answer < at).max();
        Ok((at, at.saturating_duration_since(before.unwrap_or(at))))
    }

    /// The same, told as an event.
    pub(super) fn tell_first_packet(
        &mut self,
        stream: (&'static str, &UdpStream),
        uplink: &str,
        after: Instant,
        limit: Duration,
    ) -> Result<Instant> {
        let (at, silence) = self.first_packet(stream, uplink, after, limit)?;
        let event = Event::FirstPacket {
            stream: stream.0,
            uplink: uplink.to_owned(),
            silence_ms: milliseconds(silence),
        };
        self.happened(at, event);
        Ok(at)
    }

    /// Reads what is new in the log, shows what has settled, and makes sure that the agent is alive.
    fn look(&mut self) -> Result<()> {
        let ended = self.agent.exit_status()?;
        self.read_log();
        self.timeline.show(self.screen).context(CANNOT_WRITE)?;
        if let Some(status) = ended {
            // The end of what it wrote may still be on its way.
            self.agent.wait_exit(LOOK)?;
            self.read_log();
            bail!("the agent has ended by itself ({status})");
        }
        Ok(())
    }

    /// Reads what is new in the log.
    pub(super) fn read_log(&mut self) {
        let log = self.agent.log();
        for line in &log[self.read..] {
            self.read_line(line);
        }
        self.read = log.len();
    }

    fn read_line(&mut self, line: &LogLine) {
        let Some(said) = agent_log::read(line) else {
            return;
        };
        // The agent reports a change of health after the decision that it led to; the timeline keeps the order of its lines.
        let at = agent_log::time_of(line).max(self.last);
        let last = self.last;
        self.last = at;
        match said {
            Said::Running => {
                self.running = true;
                let pid = self.agent.pid();
                self.happened(at, Event::Agent { pid });
            }
            Said::Switch(switch) => {
                for (at, event) in switch.events() {
                    self.happened(at.max(last), event);
                }
                self.switches.push(switch);
            }
            Said::Event(Event::Cut { .. }) if self.cut => {}
            Said::Event(event) => {
                self.cut |= matches!(event, Event::Cut { .. });
                self.happened(at, event);
            }
        }
    }

    /// The end of the agent's log, for an error; `None` when there is none.
    pub(super) fn last_lines(&self) -> Option<String> {
        let log = self.agent.log();
        let from = log.len().saturating_sub(LAST_LINES);
        let lines = log[from..].iter().map(|line| {
            let text = |name| line.field(name)?.as_str();
            match (text("level"), text("message")) {
                (Some(level), Some(message)) => format!("  {level:<5} {message}\n"),
                // What it says before its logger is there is no JSON.
                _ => format!("  {}\n", line.text),
            }
        });
        let lines: String = lines.collect();
        (!lines.is_empty()).then_some(lines)
    }
}

pub(super) const CANNOT_WRITE: &str = "cannot write to the terminal";
