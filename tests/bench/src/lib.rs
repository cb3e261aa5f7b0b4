//! The benchmark: what the agent costs and how quick it is, each figure beside a reference that was measured in the same run.
//!
//! One family of figures a file. A family interleaves the agent's repeats with its reference's, so that whatever else the machine is
//! doing hits both alike. `cargo xtask bench --list` names the figures.

mod agent;
mod cut;
mod datapath;
mod decision;
mod figure;
mod idle;
mod outage;
mod sample;
mod scale;
mod table;
mod throughput;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use failover_lab::agent_path;
use serde_json::{Map, Value};

use self::figure::{Figure, Measurement, Outcome};

/// Measure failover-agent in a laboratory on this machine, each figure beside a reference of the same run
#[derive(Clone, Debug, Parser)]
#[command(
    name = "failover-bench",
    max_term_width = 100,
    after_help = "Exit codes:\n  0  everything was measured, whether the goals are met or not\n  1  something could not be measured\n  2  wrong command line"
)]
pub struct Arguments {
    /// The agent to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// One JSON object by figure name
    #[arg(long)]
    json: bool,
    /// Fewer repeats: shows that everything works, not how good it is
    #[arg(long)]
    quick: bool,
    /// Name the figures, and measure nothing
    #[arg(long)]
    list: bool,
    /// Figures to measure; default: all
    figure: Vec<String>,
}

/// What every family needs to know.
struct Settings {
    agent: Option<PathBuf>,
    quick: bool,
}

impl Settings {
    /// The agent's executable.
    fn agent(&self) -> Result<PathBuf> {
        self.agent.clone().map_or_else(agent_path, Ok)
    }

    /// One number for a full run, another for a quick one.
    fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Figures that are measured together.
struct Family {
    figures: &'static [Figure],
    /// Measures all of them, in this order.
    measure: fn(&Settings) -> Result<Vec<Measurement>>,
}

static FAMILIES: [Family; 18] = [
    datapath::EGRESS,
    throughput::THROUGHPUT,
    datapath::GATE,
    decision::DECISION,
    outage::TENTH,
    outage::SECOND,
    idle::IDLE,
    cut::LOCAL,
    cut::IDLE,
    cut::FORWARDED_TCP,
    cut::FORWARDED_UDP,
    cut::FOREIGN,
    cut::STALE,
    cut::RESET,
    scale::LOAD,
    scale::DETECTION,
    scale::CHURN,
    scale::RESYNC,
];

/// Does what the command line says: measures, and prints a table or JSON.
///
/// # Errors
/// An unknown figure; not root; when anything cannot be measured.
pub fn run(arguments: Arguments) -> Result<()> {
    if arguments.list {
        print!("{}", list());
        return Ok(());
    }
    check_names(&arguments.figure)?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root, for network namespaces and eBPF: run `cargo xtask bench`, which asks sudo"
    );
    if cfg!(debug_assertions) {
        eprintln!("built without optimization: the figures are not those of a release");
    }
    let settings = Settings {
        agent: arguments.agent,
        quick: arguments.quick,
    };
    let outcomes = measure(&settings, &arguments.figure)?;
    if arguments.json {
        println!("{:#}", Value::Object(to_json(&outcomes)?));
    } else {
        print!("{}", table::render(&outcomes));
        if settings.quick {
            println!("\nquick: too few repeats for the values to mean much");
        }
    }
    Ok(())
}

/// Measures the figures with these names, or all.
fn measure(settings: &Settings, names: &[String]) -> Result<Vec<Outcome>> {
    let wanted = |figure: &Figure| names.is_empty() || names.iter().any(|name| name == figure.name);
    let mut outcomes = Vec::new();
    for family in &FAMILIES {
        if !family.figures.iter().any(wanted) {
            continue;
        }
        let together: Vec<_> = family.figures.iter().map(|figure| figure.name).collect();
        let together = together.join(", ");
        eprintln!("measuring {together} …");
        let measured = (family.measure)(settings).with_context(|| together.clone())?;
        ensure!(
            measured.len() == family.figures.len(),
            "{together}: incomplete"
        );
        for (figure, measurement) in family.figures.iter().zip(measured) {
            if wanted(figure) {
                eprintln!(
                    "{}",
                    table::progress(figure.name, &measurement.samples, figure.unit)
                );
                outcomes.push(Outcome {
                    figure: *figure,
                    measurement,
                    quick: settings.quick,
                });
            }
        }
    }
    Ok(outcomes)
}

fn figures() -> impl Iterator<Item = &'static Figure> {
    FAMILIES.iter().flat_map(|family| family.figures)
}

fn list() -> String {
    let lines = figures().map(|figure| {
        let Figure { name, about, .. } = figure;
        let (sign, limit) = (figure.goal.sign(), figure.goal.limit());
        let goal = format!("{sign} {limit} {}", figure.unit);
        format!("{name:<22} {:<10} {about}\n", goal.trim_end())
    });
    lines.collect()
}

fn check_names(names: &[String]) -> Result<()> {
    for name in names {
        if !figures().any(|figure| figure.name == name) {
            let known: Vec<_> = figures().map(|figure| figure.name).collect();
            bail!("no figure `{name}`; the figures are {}", known.join(", "));
        }
    }
    Ok(())
}

fn to_json(outcomes: &[Outcome]) -> Result<Map<String, Value>> {
    outcomes
        .iter()
        .map(|outcome| {
            let name = outcome.figure.name;
            let json = outcome.to_json();
            let json = json.with_context(|| format!("{name}: nothing was measured"))?;
            Ok((name.to_owned(), json))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_listed() {
        let mut names: Vec<_> = figures().map(|figure| figure.name).collect();
        assert_eq!(list().lines().count(), names.len());
        assert!(names.iter().all(|name| list().contains(name)));
        names.sort_unstable();
        names.dedup();
        assert_eq!(list().lines().count(), names.len());
    }

    #[test]
    fn an_unknown_figure_is_an_error_that_names_the_known_ones() {
        let error = check_names(&["idle-cpu".to_owned(), "idle-gpu".to_owned()]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`idle-gpu`"), "{error}");
        assert!(
            figures().all(|figure| error.contains(figure.name)),
            "{error}"
        );
    }
}
