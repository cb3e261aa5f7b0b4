//! The soak run: whatever may happen to an agent and its host happens in random order, and often before the last thing is over.
//! After all of it, and whenever it is quiet for a moment, everything must be as if the agent had come to it rested.
//!
//! The machine's clock is left alone: no namespace has a wall clock of its own, so the agent gets one that can be set.
//!
//! The days are the same ones in every run. `ENDURANCE_SEED` chooses another, `ENDURANCE_STEPS` makes it longer.

mod day;
mod events;

use std::{env, time::Duration};

use anyhow::{Context as _, Result, bail};

use day::{Day, Days};
use failover_lab::{Lab, UplinkSpec};

#[test]
#[ignore = "needs root"]
fn two_ethernet_uplinks_and_a_tunnel() -> Result<()> {
    live_through(1, Days::default(), MIXED)
}

#[test]
#[ignore = "needs root"]
fn ethernet_uplinks_whose_routes_are_withdrawn() -> Result<()> {
    let days = Days {
        grouped: false,
        tables: 1,
    };
    live_through(2, days, ETHERNET)
}

#[test]
#[ignore = "needs root"]
fn a_group_and_a_backup() -> Result<()> {
    let days = Days {
        grouped: true,
        tables: 0,
    };
    live_through(3, days, MIXED)
}

const MIXED: [fn(&str) -> UplinkSpec; 3] = [UplinkSpec::veth, UplinkSpec::veth, UplinkSpec::tun];
const ETHERNET: [fn(&str) -> UplinkSpec; 3] = [UplinkSpec::veth; 3];

fn live_through(seed: u64, days: Days, kinds: [fn(&str) -> UplinkSpec; 3]) -> Result<()> {
    let seed = number("ENDURANCE_SEED")?.unwrap_or(seed);
    let steps = number("ENDURANCE_STEPS")?.unwrap_or(30);
    let mut random = fastrand::Rng::with_seed(seed);
    let names = ["cable", "dsl", "lte"];
    let uplinks = kinds.iter().zip(names).map(|(kind, name)| kind(name));
    let mut day = Day::begin(Lab::builder().uplinks(uplinks).build()?, days)?;
    let lived = (0..steps)
        .try_for_each(|_| {
            let event = day.choose(&mut random);
            day.happen(event)?;
            match random.u8(..5) {
                0..3 => day.settle(),
                _ => {
                    std::thread::sleep(Duration::from_millis(random.u64(..300)));
                    Ok(())
                }
            }
        })
        .and_then(|()| day.end());
    lived.with_context(|| format!("ENDURANCE_SEED={seed}, what happened:\n{}", day.diary()))
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
