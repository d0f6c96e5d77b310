//! What happened in a run, counted by name: a simulator that never comes by something proves nothing of it.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

/// What has to have happened in the seeds of the suite.
const NEEDED: [&str; 56] = [
    "crash",
    "cut",
    "clients: established",
    "clients: failover survived",
    "clients: lost to a forwarding node",
    "divergence mended",
    "frame ack",
    "frame barrier",
    "frame digests",
    "frame heartbeat",
    "frame resync begin",
    "frame resync end",
    "frame sync, end",
    "frame sync, session",
    "frame sync, station",
    "frame unknown",
    "link: full queue",
    "order begin resync",
    "order begin telling",
    "order end resync",
    "order end telling",
    "order forget heard",
    "order ping",
    "order stand",
    "order sum heard",
    "order sum told",
    "order take in, end",
    "order take in, session",
    "order take in, station",
    "order tell again",
    "order tell all",
    "reload",
    "role Isolated > Leader",
    "role Leader > Isolated",
    "role Leader > Standby",
    "role Standby > Leader",
    "role Waiting > Leader",
    "role Waiting > Standby",
    "skew",
    "stall",
    "switchover",
    "unhealthy",
    "verdict forwarded",
    "verdict handed over",
    "verdict ha_standby",
    "verdict policy",
    "verdict reply",
    "witness",
    "word begun",
    "word heard",
    "word here",
    "word news, end",
    "word news, session",
    "word news, station",
    "word told",
    "word told all",
];

impl Tally {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub(crate) fn missing(&self) -> Vec<&'static str> {
        NEEDED.into_iter().filter(|what| self.of(what) == 0).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>10}  {what}")?;
        }
        Ok(())
    }
}
