//! Which buckets go from a hot worker to a cold one.

use super::{BUCKETS, BucketSet, BucketTable};
use crate::base::WorkerId;

/// Sessions that go at a time, unless one bucket alone has more. Until the last of them is there the packets of all of them wait, in a
/// queue of 4,096 ([`crate::engine::moving::WAITING`]): four sessions to each place, and some milliseconds' work of the two workers. What
/// is to go beyond it goes with the next move.
pub const MOST_SESSIONS: u64 = 16_384;

/// What is known of one worker when buckets are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerLoad {
    /// Of a million cycles, those of turns with packets.
    pub busy_ppm: u64,
    /// Sessions that its table still takes.
    pub room: u64,
}

/// A proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The hottest worker.
    pub from: WorkerId,
    /// The coldest one.
    pub to: WorkerId,
    /// What is to go.
    pub buckets: BucketSet,
    /// Their sessions.
    pub sessions: u64,
}

/// Why nothing is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Balanced {
    /// There is but one worker.
    #[error("there is one worker")]
    Alone,
    /// The hottest is not so much hotter than the coldest that a move would pay.
    #[error("the busiest worker is at {hot} %, the least busy one at {cold} %: that is even enough")]
    Even {
        /// Percent.
        hot: u64,
        /// Percent.
        cold: u64,
    },
    /// Everything that the hottest has is in buckets that would only make the other one the hottest.
    #[error("no bucket of the busiest worker is small enough: its load comes from few flows")]
    Lumpy,
    /// The coldest worker's table is full.
    #[error("the least busy worker has no room for more sessions")]
    NoRoom,
}

/// Chooses what goes from the hottest worker to the coldest. A bucket's load is taken for its share of its worker's sessions (packets are
/// not counted by bucket: that would cost every one of them). `least_ppm`: of a million cycles, how far the two have to be apart.
///
/// # Errors
/// Why nothing is to be moved.
pub fn propose(
    table: &BucketTable,
    loads: &[WorkerLoad],
    sessions: &[u32; BUCKETS],
    least_ppm: u64,
) -> Result<Proposal, Balanced> {
    if loads.len() < 2 {
        return Err(Balanced::Alone);
    }
    let workers = (0..).map(WorkerId).zip(loads);
    let hottest = workers.clone().max_by_key(|(_, load)| load.busy_ppm);
    let coldest = workers.min_by_key(|(_, load)| load.busy_ppm);
    let (Some((from, hot)), Some((to, cold))) = (hottest, coldest) else {
        return Err(Balanced::Alone);
    };
    let apart = hot.busy_ppm - cold.busy_ppm;
    if from == to || apart < least_ppm.max(1) {
        return Err(Balanced::Even {
            hot: hot.busy_ppm / 10_000,
            cold: cold.busy_ppm / 10_000,
        });
    }
    // A bucket without sessions has its share of what opens none.
    let weight = |bucket: usize| u128::from(sessions[bucket]) * 16 + 1;
    let mut buckets: Vec<usize> = (0..BUCKETS)
        .filter(|bucket| table.workers[*bucket] == from)
        .collect();
    buckets.sort_by_key(|bucket| std::cmp::Reverse(weight(*bucket)));
    let all: u128 = buckets.iter().map(|bucket| weight(*bucket)).sum();
    // Half of what they are apart, as a share of what the hottest has.
    let mut left = all * u128::from(apart / 2) / u128::from(hot.busy_ppm.max(1));
    // A table that is nearly full has little room for what comes anew.
    let mut room = cold.room / 2;
    let (mut chosen, mut moved) = (Vec::new(), 0);
    let mut was_full = false;
    for bucket in buckets {
        let its = u64::from(sessions[bucket]);
        if weight(bucket) > left {
            continue;
        }
        if its > room {
            was_full = true;
            continue;
        }
        if its > 0 && moved > 0 && moved + its > MOST_SESSIONS {
            continue;
        }
        left -= weight(bucket);
        room -= its;
        moved += its;
        chosen.push(bucket);
    }
    match (chosen.is_empty(), was_full) {
        (true, true) => Err(Balanced::NoRoom),
        (true, false) => Err(Balanced::Lumpy),
        _ => Ok(Proposal {
            from,
            to,
            buckets: chosen.into_iter().collect(),
            sessions: moved,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(busy: &[u64]) -> Vec<WorkerLoad> {
        let load = |percent: &u64| WorkerLoad {
            busy_ppm: percent * 10_000,
            room: 100_000,
        };
        busy.iter().map(load).collect()
    }

    const LEAST: u64 = 50_000;

    #[test]
    fn half_of_the_difference_goes_from_the_hottest_to_the_coldest() {
        let table = BucketTable::even(3);
        let sessions = [100; BUCKETS];
        let proposal = propose(&table, &loads(&[50, 90, 10]), &sessions, LEAST).unwrap();
        assert_eq!((proposal.from, proposal.to), (WorkerId(1), WorkerId(2)));
        // 40 of 90 % of some 171 buckets.
        let count = proposal.buckets.iter().count();
        assert!((74..=76).contains(&count), "{count}");
        assert_eq!(proposal.sessions, 100 * count as u64);
        assert!(
            proposal
                .buckets
                .iter()
                .all(|bucket| table.workers[bucket] == WorkerId(1))
        );
    }

    #[test]
    fn a_bucket_that_is_too_heavy_stays() {
        let table = BucketTable::even(2);
        let mut sessions = [0; BUCKETS];
        sessions[0] = 1_000_000;
        sessions[2] = 10;
        let proposal = propose(&table, &loads(&[80, 20]), &sessions, LEAST).unwrap();
        assert!(!proposal.buckets.has(0) && proposal.buckets.has(2));
        // One bucket is all there is.
        let mut table = table.moved((0..BUCKETS).map(|bucket| (bucket, WorkerId(1))));
        table.workers[0] = WorkerId(0);
        let none = propose(&table, &loads(&[80, 20]), &sessions, LEAST);
        assert_eq!(none, Err(Balanced::Lumpy));
    }

    #[test]
    fn nothing_is_moved_for_little() {
        let table = BucketTable::even(2);
        let even = propose(&table, &loads(&[52, 48]), &[1; BUCKETS], LEAST);
        assert_eq!(even, Err(Balanced::Even { hot: 52, cold: 48 }));
        assert_eq!(
            propose(&table, &loads(&[0, 0]), &[1; BUCKETS], 0),
            Err(Balanced::Even { hot: 0, cold: 0 })
        );
        assert_eq!(
            propose(&table, &loads(&[99]), &[1; BUCKETS], 0),
            Err(Balanced::Alone)
        );
    }

    #[test]
    fn many_sessions_go_by_and_by() {
        let mut table = BucketTable::even(2);
        let mut loads = loads(&[90, 10]);
        loads.iter_mut().for_each(|load| load.room = 10_000_000);
        let mut sessions = [1000; BUCKETS];
        for version in 1..=3 {
            let proposal = propose(&table, &loads, &sessions, LEAST).unwrap();
            assert_eq!(proposal.sessions, 16_000);
            table = table.moved(proposal.buckets.iter().map(|bucket| (bucket, proposal.to)));
            assert_eq!(table.version, version);
        }
        // One bucket goes however many it has; those without sessions go with it.
        sessions = [20_000; BUCKETS];
        sessions[100] = 0;
        let proposal = propose(&table, &loads, &sessions, LEAST).unwrap();
        assert_eq!(proposal.sessions, 20_000);
        assert!(proposal.buckets.has(100) && proposal.buckets.iter().count() == 2);
    }

    #[test]
    fn the_target_has_room_for_what_goes() {
        let table = BucketTable::even(2);
        let mut loads = loads(&[90, 10]);
        loads[1].room = 1000;
        let proposal = propose(&table, &loads, &[100; BUCKETS], LEAST).unwrap();
        assert_eq!(proposal.sessions, 500);
        loads[1].room = 0;
        assert_eq!(
            propose(&table, &loads, &[100; BUCKETS], LEAST),
            Err(Balanced::NoRoom)
        );
    }
}
