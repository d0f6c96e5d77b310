//! What a node says when it has stopped.

use std::fmt;

use super::command::WorkerLink;
use super::stats::Counts;
use crate::engine::DropReason;

/// A stopped node's account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All workers'.
    pub counts: Counts,
    /// mbufs that did not come back to their pools.
    pub mbufs_in_use: u64,
}

impl Totals {
    /// Adds the workers' last published counts up.
    #[must_use]
    pub fn of(workers: &[WorkerLink]) -> Self {
        let mut counts = Counts::default();
        for worker in workers {
            counts.add(&worker.stats().read().0);
        }
        Self {
            counts,
            mbufs_in_use: 0,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        write!(
            f,
            "stopped: packets in {}, made {}, out {}, dropped {}",
            c.rx_packets,
            c.originated,
            c.tx_packets,
            c.dropped()
        )?;
        let drops = DropReason::ALL
            .iter()
            .map(|reason| (reason.name(), c.drops[reason.index()]));
        for (i, (name, count)) in drops.filter(|(_, count)| *count > 0).enumerate() {
            write!(f, "{}{name} {count}", if i == 0 { " (" } else { ", " })?;
        }
        if c.dropped() > 0 {
            write!(f, ")")?;
        }
        let crossed = [c.redirected_out, c.redirected_in, c.given_back, c.returned];
        if crossed != [0; 4] {
            let [out, taken, back, returned] = crossed;
            write!(
                f,
                ", to the peer {out} and {returned} of them back, for the peer {taken} and {back} back to it"
            )?;
        }
        write!(f, ", sessions {}, mbufs in use {}", c.sessions, self.mbufs_in_use)?;
        if c.log_records_lost > 0 {
            write!(f, ", log records lost {}", c.log_records_lost)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_was_dropped() {
        let mut totals = Totals::default();
        assert_eq!(
            totals.to_string(),
            "stopped: packets in 0, made 0, out 0, dropped 0, sessions 0, mbufs in use 0"
        );
        totals.counts.rx_packets = 7;
        totals.counts.tx_packets = 4;
        totals.counts.drops[DropReason::Malformed.index()] = 1;
        totals.counts.drops[DropReason::Policy.index()] = 2;
        assert!(totals.counts.is_even());
        assert_eq!(
            totals.to_string(),
            "stopped: packets in 7, made 0, out 4, dropped 3 (malformed 1, policy 2), sessions 0, mbufs in use 0"
        );
    }
}
