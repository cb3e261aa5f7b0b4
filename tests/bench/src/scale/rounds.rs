//! The probe rounds in a capture.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::{Context, Result};
use failover_lab::CaptureFile;

/// By the host's address, which tells the uplink, and the sequence number, which tells the round.
#[derive(Debug, Default)]
pub(super) struct Rounds(HashMap<Ipv4Addr, BTreeMap<u16, Round>>);

#[derive(Debug, Default, Clone, Copy)]
struct Round {
    /// Its first request, since 1970.
    sent: Option<Duration>,
    answered: bool,
}

impl Rounds {
    /// Those in a capture of ICMP echo at the far end of the uplinks.
    pub(super) fn read(capture: &CaptureFile) -> Result<Rounds> {
        let mut rounds = Rounds::default();
        for line in
            capture.lines("icmp[icmptype] == icmp-echo or icmp[icmptype] == icmp-echoreply")?
        {
            rounds
                .add(&line)
                .with_context(|| format!("not understood: {line}"))?;
        }
        Ok(rounds)
    }

    /// Takes in a line of tcpdump's, of a capture on all interfaces:
    /// `1792500000.123456 up01  In  IP 10.64.1.2 > 192.0.2.1: ICMP echo request, id 1, seq 5, length 28`.
    fn add(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| Some(words.iter().position(|other| *other == word)? + 1);
        let at = |index: usize| Some(words.get(index)?.trim_end_matches([':', ',']));
        let (seconds, micros) = words.first()?.split_once('.')?;
        let time =
            Duration::new(seconds.parse().ok()?, 0) + Duration::from_micros(micros.parse().ok()?);
        let (from, to) = (at(after("IP")?)?, at(after(">")?)?);
        let number = at(after("seq")?)?.parse().ok()?;
        let is_request = words.contains(&"request,");
        let host = if is_request { from } else { to }.parse().ok()?;
        let round = self.0.entry(host).or_default().entry(number).or_default();
        if is_request {
            round.sent.get_or_insert(time);
        } else {
            round.answered = true;
        }
        Some(())
    }

    /// When the rounds by this address were sent of which nothing came back.
    pub(super) fn lost(&self, host: Ipv4Addr) -> impl Iterator<Item = Duration> {
        let rounds = self.0.get(&host).into_iter().flat_map(BTreeMap::values);
        let lost = rounds.filter(|round| !round.answered);
        lost.filter_map(|round| round.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_lost_when_no_target_answers() {
        let mut rounds = Rounds::default();
        for line in [
            "10.000100 up01  In  IP 10.64.1.2 > 192.0.2.1: ICMP echo request, id 1, seq 5, length 28",
            "10.000150 up01  Out IP 192.0.2.1 > 10.64.1.2: ICMP echo reply, id 1, seq 5, length 28",
            "10.000200 up01  In  IP 10.64.1.2 > 198.51.100.1: ICMP echo request, id 1, seq 5, length 28",
            "10.100100 up01  In  IP 10.64.1.2 > 192.0.2.1: ICMP echo request, id 1, seq 6, length 28",
            "10.100200 up01  In  IP 10.64.1.2 > 198.51.100.1: ICMP echo request, id 1, seq 6, length 28",
            "10.100300 up02  In  IP 10.64.2.2 > 192.0.2.1: ICMP echo request, id 2, seq 6, length 28",
            "10.100350 up02  Out IP 192.0.2.1 > 10.64.2.2: ICMP echo reply, id 2, seq 6, length 28",
        ] {
            assert_eq!(rounds.add(line), Some(()), "{line}");
        }
        let lost = |host: &str| rounds.lost(host.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(lost("10.64.1.2"), [Duration::from_micros(10_100_100)]);
        assert_eq!(lost("10.64.2.2"), []);
        assert_eq!(lost("10.64.3.2"), []);
    }
}
