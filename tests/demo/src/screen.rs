//! What a person reads. Colours only on a terminal, and never with NO_COLOR.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use super::{
    Options, PROBE,
    event::{Event, Tone},
    scenario::{FAST, OLD},
    summary::Summary,
    timeline::Entry,
};

const TITLE: &str = "failover-agent: a real failover and failback, in a laboratory on this machine";

const PICTURE: &str = r"
                      ┌── cable (preferred) ── its provider ──┐
   client ──── host ──┤                                       ├── internet: 192.0.2.1, 198.51.100.1
                      └── lte (standby) ────── its provider ──┘
";

/// Where everything is written to.
pub(super) struct Screen {
    out: Box<dyn Write + Send>,
    colour: bool,
}

impl Screen {
    /// Standard output; with `--json` that is for the data alone, and people read standard error.
    pub(super) fn new(json: bool) -> Screen {
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if json {
            let out = io::stderr();
            let colour = out.is_terminal() && !no_colour;
            Screen {
                out: Box::new(out),
                colour,
            }
        } else {
            let out = io::stdout();
            let colour = out.is_terminal() && !no_colour;
            Screen {
                out: Box::new(out),
                colour,
            }
        }
    }

    /// What the laboratory is, and what is going to happen in it.
    pub(super) fn intro(&mut self, options: &Options) -> io::Result<()> {
        let title = self.paint("1", TITLE);
        writeln!(self.out, "{title}\n{PICTURE}")?;
        writeln!(
            self.out,
            "Each of these is a network namespace: nothing outside is touched, nothing stays behind (Ctrl-C at any time).\n\
             The agent runs on the host, with settings that are quicker than its defaults:\n"
        )?;
        for line in PROBE.lines() {
            let line = self.paint("2", &format!("   {line}"));
            writeln!(self.out, "{line}")?;
        }
        writeln!(
            self.out,
            "\nHost and client each send a packet every {} ms to 192.0.2.1, which answers. Each also has an old TCP\n\
             connection by cable: the host's is idle, the client sends something every {} ms. Then cable's provider breaks\n\
             silently: the link stays up, so only probing can tell.",
            FAST.as_millis(),
            OLD.as_millis(),
        )?;
        if options.break_backup {
            writeln!(
                self.out,
                "--break-backup: lte's provider breaks first, so that there is nowhere to go."
            )?;
        }
        let head = self.paint("2", "   seconds  who         what");
        writeln!(self.out, "\n{head}")
    }

    /// One line of the timeline.
    pub(super) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let colour = match entry.event.tone() {
            Tone::Plain => "",
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "31",
            Tone::Important => "1",
        };
        if let Event::Fault { .. } | Event::Repair { .. } | Event::Stopped = entry.event {
            writeln!(self.out)?;
        }
        let seconds = entry.t_ms / 1e3;
        let what = format!("{:<10}  {}", entry.event.actor(), entry.text);
        let what = self.paint(colour, &what);
        writeln!(self.out, "  {seconds:>8.3}  {what}")?;
        self.out.flush()
    }

    /// The figures, and where to go from here.
    pub(super) fn summary(&mut self, summary: &Summary, map: Option<&str>) -> io::Result<()> {
        let title = self.paint("1", "Summary");
        writeln!(self.out, "\n{title}\n\n{}\n", summary.table())?;
        writeln!(self.out, "{}\n", summary.split())?;
        let title = self.paint("1", "Where to go next");
        writeln!(
            self.out,
            "{title}\n\n   \
             failover-agent run --uplink eth0 --uplink wwan0              your own uplinks, the preferred one first (as root)\n   \
             failover-agent status                                        who is active; health, loss, counters, last switches\n   \
             bpftool map dump pinned /sys/fs/bpf/failover-agent/uplinks   the gates as the kernel sees them; `counters` likewise\n"
        )?;
        if let Some(map) = map {
            writeln!(
                self.out,
                "The last one printed here, while cable was broken and traffic went by lte:\n"
            )?;
            for line in map.lines() {
                let line = self.paint("2", &format!("   {line}"));
                writeln!(self.out, "{line}")?;
            }
        }
        self.out.flush()
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour && !colour.is_empty() {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
