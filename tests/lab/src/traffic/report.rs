//! What happened to a stream of datagrams. Pure.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::wait::paced;

/// An answer is late, and its datagram counts as lost, after this time.
pub(super) fn late() -> Duration {
    paced(500)
}

/// The answer to a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// When it arrived.
    pub at: Instant,
    /// Source address that the server saw.
    pub source: SocketAddr,
    /// The uplink that this address belongs to.
    pub uplink: Option<Arc<str>>,
}

/// A datagram that was sent, or could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpRecord {
    /// Its place in the stream, from 0.
    pub sequence: u64,
    /// When.
    pub sent: Instant,
    /// The operating system's error number, when it could not be sent.
    pub send_error: Option<i32>,
    /// Its answer.
    pub echo: Option<Echo>,
}

/// A time without answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last answer before it.
    pub from: Instant,
    /// The first one after it.
    pub until: Instant,
}

impl Gap {
    /// How long it was.
    pub fn duration(&self) -> Duration {
        self.until.saturating_duration_since(self.from)
    }
}

/// What happened to a stream up to a point in time.
#[derive(Clone, Debug)]
pub struct UdpReport {
    /// Every datagram, by sequence number.
    pub records: Vec<UdpRecord>,
    /// When the report was made.
    pub taken: Instant,
}

impl UdpReport {
    /// Number of datagrams sent, those the system refused included.
    pub fn sent(&self) -> usize {
        self.records.len()
    }

    /// Number of datagrams answered.
    pub fn answered(&self) -> usize {
        self.answers().count()
    }

    /// Number of datagrams without an answer that is not still to be expected.
    pub fn lost(&self) -> usize {
        self.records
            .iter()
            .filter(|record| record.echo.is_none())
            .filter(|record| self.taken.saturating_duration_since(record.sent) >= late())
            .count()
    }

    /// The longest time between two answers; times before the first answer and after the last count too. `None` for an empty stream.
    pub fn longest_gap(&self) -> Option<Gap> {
        let from = self.records.first()?.sent;
        self.longest_gap_between(from, self.last_instant()?)
    }

    /// The same, of the time from `from` until `until` alone.
    pub fn longest_gap_between(&self, from: Instant, until: Instant) -> Option<Gap> {
        let mut ends: Vec<Instant> = self
            .answers()
            .map(|(_, echo)| echo.at)
            .filter(|at| (from..=until).contains(at))
            .collect();
        ends.extend([from, until]);
        ends.sort_unstable();
        ends.windows(2)
            .map(|pair| Gap {
                from: pair[0],
                until: pair[1],
            })
            .max_by_key(Gap::duration)
    }

    /// The first answer that arrived after `after`, with its datagram.
    pub fn first_echo_after(&self, after: Instant) -> Option<(&UdpRecord, &Echo)> {
        self.first_echo(after, |_| true)
    }

    /// The first answer after `after` whose datagram left by `uplink`.
    pub fn first_echo_by(&self, uplink: &str, after: Instant) -> Option<(&UdpRecord, &Echo)> {
        self.first_echo(after, |echo| echo.uplink.as_deref() == Some(uplink))
    }

    /// The uplinks by which answered datagrams left, in order, without repetition: `["cable", "lte", "cable"]` after a failover
    /// and a failback.
    pub fn path(&self) -> Vec<&str> {
        let mut path: Vec<&str> = self
            .answers()
            .map(|(_, echo)| echo.uplink.as_deref().unwrap_or("unknown"))
            .collect();
        path.dedup();
        path
    }

    fn answers(&self) -> impl Iterator<Item = (&UdpRecord, &Echo)> {
        self.records
            .iter()
            .filter_map(|record| Some((record, record.echo.as_ref()?)))
    }

    fn first_echo(
        &self,
        after: Instant,
        matches: impl Fn(&Echo) -> bool,
    ) -> Option<(&UdpRecord, &Echo)> {
        self.answers()
            .filter(|(_, echo)| echo.at > after && matches(echo))
            .min_by_key(|(_, echo)| echo.at)
    }

    /// When the stream last did something: after that, silence means nothing.
    fn last_instant(&self) -> Option<Instant> {
        let last_sent = self.records.last()?.sent;
        let last_echo = self.answers().map(|(_, echo)| echo.at).max();
        Some(last_echo.map_or(last_sent, |echo| echo.max(last_sent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram every 10 ms; `by` names the uplink that carried each, answered 1 ms later, or "" for a lost one.
    fn report(start: Instant, by: &[&str]) -> UdpReport {
        let at = |i: u64, extra| start + Duration::from_millis(i * 10 + extra);
        let records: Vec<UdpRecord> = (0..)
            .zip(by)
            .map(|(sequence, uplink)| UdpRecord {
                sequence,
                sent: at(sequence, 0),
                send_error: None,
                echo: (!uplink.is_empty()).then(|| Echo {
                    at: at(sequence, 1),
                    source: SocketAddr::from(([198, 18, 1, 2], 1)),
                    uplink: Some((*uplink).into()),
                }),
            })
            .collect();
        UdpReport {
            records,
            taken: start + Duration::from_secs(10),
        }
    }

    #[test]
    fn gaps_losses_and_path_are_those_of_the_stream() {
        let start = Instant::now();
        let report = report(start, &["cable", "cable", "", "", "lte", "lte", "cable"]);
        assert_eq!(report.sent(), 7);
        assert_eq!(report.answered(), 5);
        assert_eq!(report.lost(), 2);
        assert_eq!(report.path(), ["cable", "lte", "cable"]);
        let gap = report.longest_gap().unwrap();
        assert_eq!(gap.from, start + Duration::from_millis(11));
        assert_eq!(gap.duration(), Duration::from_millis(30));
        let (record, echo) = report.first_echo_by("lte", start).unwrap();
        assert_eq!(record.sequence, 4);
        assert_eq!(report.first_echo_after(gap.from).unwrap(), (record, echo));
    }

    #[test]
    fn silence_at_the_end_is_a_gap_and_a_young_datagram_is_not_lost() {
        let start = Instant::now();
        let mut report = report(start, &["cable", "", "", "", ""]);
        assert_eq!(
            report.longest_gap().unwrap().duration(),
            Duration::from_millis(39)
        );
        report.taken = start + Duration::from_millis(20) + late();
        assert_eq!(report.lost(), 2, "sent at 10 and 20 ms");
        report.records.clear();
        assert_eq!(report.longest_gap(), None);
    }
}
