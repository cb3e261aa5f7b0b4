//! Traffic of the host's own, by which it is seen whether the host is online.

use std::time::{Duration, Instant};

use anyhow::Result;
use failover_lab::{Node, TARGET_V4, TARGET_V6, UdpStream, wait_for};

/// A stream of each family.
pub(super) struct Streams([UdpStream; 2]);

impl Streams {
    pub(super) fn start(host: &Node) -> Result<Streams> {
        let stream = |target| {
            let stream = host.udp_stream(target);
            stream.every(Duration::from_millis(20)).start()
        };
        Ok(Streams([stream(TARGET_V4)?, stream(TARGET_V6)?]))
    }

    /// Waits until both have an answer to what was sent after `since`.
    pub(super) fn must_flow(&self, since: Instant, timeout: Duration) -> Result<()> {
        // Looked at later than it was to be: what was in time counts all the same.
        let deadline = since + timeout;
        for (stream, family) in self.0.iter().zip(["IPv4", "IPv6"]) {
            let left = deadline.saturating_duration_since(Instant::now());
            let what = format!("the host is online ({family})");
            wait_for(&what, left.max(Duration::from_millis(50)), || {
                let report = stream.report();
                let records = report.records.iter().rev();
                let mut young = records.take_while(|record| record.sent > since);
                let answered = young.any(|record| record.echo.is_some());
                answered
                    .then_some(())
                    .ok_or("no echo of what was sent since")
            })?;
        }
        Ok(())
    }
}
