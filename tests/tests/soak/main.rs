//! The soak runs: whatever may happen to an agent and its host happens in random order, and often before the last event is over.
//! At the end of a run, and whenever no event is under way, the host must be as if the agent had just started there.
//!
//! The machine's clock is left alone: no namespace has a wall clock of its own, so the agent gets one that can be set.
//!
//! Each test always has the same events. `SOAK_SEED` chooses others, `SOAK_STEPS` makes the run longer.

mod events;
mod run;

use std::{env, time::Duration};

use anyhow::{Context as _, Result, bail};

use failover_lab::{Lab, UplinkSpec};
use run::{Settings, SoakRun};

#[test]
#[ignore = "needs root"]
fn two_ethernet_uplinks_and_a_tunnel() -> Result<()> {
    soak(1, Settings::default(), MIXED)
}

#[test]
#[ignore = "needs root"]
fn ethernet_uplinks_whose_routes_are_withdrawn() -> Result<()> {
    let settings = Settings {
        grouped: false,
        tables: 1,
    };
    soak(2, settings, ETHERNET)
}

#[test]
#[ignore = "needs root"]
fn a_group_and_a_backup() -> Result<()> {
    let settings = Settings {
        grouped: true,
        tables: 0,
    };
    soak(3, settings, MIXED)
}

const MIXED: [fn(&str) -> UplinkSpec; 3] = [UplinkSpec::veth, UplinkSpec::veth, UplinkSpec::tun];
const ETHERNET: [fn(&str) -> UplinkSpec; 3] = [UplinkSpec::veth; 3];

fn soak(seed: u64, settings: Settings, kinds: [fn(&str) -> UplinkSpec; 3]) -> Result<()> {
    let seed = number("SOAK_SEED")?.unwrap_or(seed);
    let steps = number("SOAK_STEPS")?.unwrap_or(30);
    let mut random = fastrand::Rng::with_seed(seed);
    let names = ["cable", "dsl", "lte"];
    let uplinks = kinds.iter().zip(names).map(|(kind, name)| kind(name));
    let mut run = SoakRun::begin(Lab::builder().uplinks(uplinks).build()?, settings)?;
    let outcome = (0..steps)
        .try_for_each(|_| {
            let event = run.choose(&mut random);
            run.apply(event)?;
            match random.u8(..5) {
                0..3 => run.settle(),
                _ => {
                    std::thread::sleep(Duration::from_millis(random.u64(..300)));
                    Ok(())
                }
            }
        })
        .and_then(|()| run.end());
    outcome.with_context(|| format!("SOAK_SEED={seed}, what happened:\n{}", run.report()))
}

fn number(variable: &str) -> Result<Option<u64>> {
    match env::var(variable) {
        Ok(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(error) => bail!("{variable}={text}: {error}"),
        },
        Err(_) => Ok(None),
    }
}
