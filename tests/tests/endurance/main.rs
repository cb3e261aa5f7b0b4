//! Bad days: whatever may happen to an agent and its host happens in random order, and often before the last thing is over.
//! After all of it, and whenever it is quiet for a moment, everything must be as if the agent had come to it rested.
//!
//! The days are the same ones in every run. `ENDURANCE_SEED` chooses another, `ENDURANCE_STEPS` makes it longer.

mod day;
mod events;

use std::{env, time::Duration};

use anyhow::{Context as _, Result, bail};
use failover_tests::lab::{Lab, UplinkSpec, require_root};

use day::Day;

#[test]
fn two_ethernet_uplinks_and_a_tunnel() -> Result<()> {
    if !require_root("two_ethernet_uplinks_and_a_tunnel") {
        return Ok(());
    }
    let uplinks = || {
        let tunnel = UplinkSpec::tun("lte");
        [UplinkSpec::veth("cable"), UplinkSpec::veth("dsl"), tunnel]
    };
    live_through(seed(1)?, || Lab::builder().uplinks(uplinks()).build())
}

#[test]
fn three_ethernet_uplinks() -> Result<()> {
    if !require_root("three_ethernet_uplinks") {
        return Ok(());
    }
    let uplinks = ["cable", "dsl", "lte"];
    live_through(seed(2)?, || Lab::builder().uplinks(uplinks).build())
}

fn live_through(seed: u64, build: impl Fn() -> Result<Lab>) -> Result<()> {
    let steps = number("ENDURANCE_STEPS")?.unwrap_or(30);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut day = Day::begin(build()?)?;
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

fn seed(usual: u64) -> Result<u64> {
    Ok(number("ENDURANCE_SEED")?.unwrap_or(usual))
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
