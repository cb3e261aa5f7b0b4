//! What a scenario returns.

use std::convert::Infallible;

/// What a scenario returns: it passes, or it has panicked.
///
/// A test that returns an error is reported with the error alone, not with the line that gave up. In a function that returns this type
/// each `?` panics instead, at its own line, with the error and all its causes. Guards clean up as after any panic, and those that
/// explain a failure (an agent prints the end of its log) know that there is one.
///
/// Helpers and closures return [`anyhow::Result`]: it is the scenario that fails, at the line that called them.
///
/// ```no_run
/// # use failover_lab::{Lab, Scenario};
/// #[test]
/// #[ignore = "needs root"]
/// fn the_host_has_a_name() -> Scenario {
///     let lab = Lab::builder().build()?;
///     assert!(!lab.host().namespace().name().is_empty());
///     Ok(())
/// }
/// ```
pub type Scenario = Result<(), Failed>;

/// The error of a [`Scenario`]: there is no value of it, as making one panics.
#[derive(Debug)]
pub struct Failed(Infallible);

impl<E: Into<anyhow::Error>> From<E> for Failed {
    /// # Panics
    /// Always, at the caller's line.
    #[track_caller]
    fn from(error: E) -> Failed {
        let error = error.into();
        panic!("{error:#}")
    }
}

#[cfg(test)]
mod tests {
    use std::{panic, sync::mpsc, thread};

    use anyhow::{Context, Result};

    use super::Scenario;

    fn refused() -> Result<()> {
        Err(anyhow::anyhow!("no such device")).context("cannot set the link up")
    }

    fn scenario() -> Scenario {
        refused()?;
        Ok(())
    }

    const FAILS_AT: u32 = line!() - 4;

    #[test]
    fn a_scenario_panics_at_the_line_that_failed_with_all_causes() {
        let (note, noted) = mpsc::channel();
        let others = panic::take_hook();
        let this = thread::current().id();
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() != this {
                return others(info);
            }
            let at = info.location().map(|at| (at.file().to_owned(), at.line()));
            note.send(at).unwrap();
        }));
        let end = panic::catch_unwind(scenario);
        drop(panic::take_hook());
        assert_eq!(noted.recv().unwrap(), Some((file!().to_owned(), FAILS_AT)));
        let message = end.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(*message, "cannot set the link up: no such device");
    }
}
