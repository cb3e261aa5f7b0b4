//! A moment's shortage must not end a start.

use std::{thread, time::Duration};

use anyhow::Result;
use tracing::warn;

use crate::failure::Failure;

/// How often a step of the start is tried.
const ATTEMPTS: usize = 3;

/// Between two attempts: all of them together take less than the shortest lease that makes sense.
const PAUSE: Duration = Duration::from_millis(100);

/// Does a step of the start, and does it again when it fails for want of memory, or because an answer was lost. Each attempt finds
/// what the one before has done. What a user has to cure does not pass by itself.
pub(super) fn again<T>(what: &str, mut step: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempts = 1;
    loop {
        match step() {
            Err(error) if attempts < ATTEMPTS && !error.is::<Failure>() => {
                warn!("{what}: {error:#}: trying again");
                attempts += 1;
                thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    /// How a step ends of which so many attempts fail, and how many there are.
    fn tried(fail: usize, error: impl Fn() -> anyhow::Error) -> (bool, usize) {
        let mut attempts = 0;
        let ended = again("a step", || {
            attempts += 1;
            if attempts <= fail {
                Err(error())
            } else {
                Ok(())
            }
        });
        (ended.is_ok(), attempts)
    }

    #[test]
    fn what_passes_is_tried_again_and_what_has_to_be_cured_is_not() {
        let refused = || anyhow!("no memory");
        assert_eq!(tried(0, refused), (true, 1));
        assert_eq!(tried(2, refused), (true, 3));
        assert_eq!(tried(3, refused), (false, 3));
        let count = 1;
        let place = "here".to_owned();
        let wrong = || {
            anyhow::Error::from(Failure::TooFewUplinks {
                place: place.clone(),
                count,
            })
        };
        assert_eq!(tried(1, wrong), (false, 1));
        assert_eq!(
            tried(1, || Err::<(), _>(wrong()).context("there").unwrap_err()),
            (false, 1)
        );
    }
}
