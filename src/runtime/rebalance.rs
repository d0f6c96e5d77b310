//! Moves of buckets, as control threads lead them ([`crate::engine::moving`] is the workers' part): one at a time, each given to its
//! target first, then to all others, and over when no worker has anything left to do for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::command::{BucketScan, Command, NoAnswer, Reply, WorkerLink};
use crate::engine::{Move, Placement};
use crate::flow::owner::balance::{Balanced, Proposal, WorkerLoad, propose};
use crate::flow::owner::{BUCKETS, BucketTable};

/// How long a worker may take to answer.
const ASK: Duration = Duration::from_secs(1);
/// Slots of a session table that one command counts: a small part of [`ASK`], so that others' commands get their turn.
const COUNT_SLOTS: u32 = 8192;
/// How long whoever asked for a move waits until it is over.
const WAIT: Duration = Duration::from_secs(10);
/// An operator who asks knows why: so far the workers have to be apart, in millionths.
const LEAST_ASKED: u64 = 50_000;
/// By itself the node moves something for more ...
const LEAST_AUTO: u64 = 200_000;
/// ... that was seen so many seconds in a row, ...
const SEEN: u32 = 3;
/// ... and not more often than this.
const REST: Duration = Duration::from_secs(10);

/// Why a move did not come about, or is not over.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Nothing is to be moved.
    #[error(transparent)]
    Balanced(#[from] Balanced),
    /// A worker is stalled.
    #[error("{0}: the move goes on when it does")]
    NoAnswer(#[from] NoAnswer),
    /// A worker is stalled, and nothing has begun.
    #[error("{0}: nothing was moved")]
    NotBegun(NoAnswer),
    /// None begins any more.
    #[error("the node is stopping: nothing was moved")]
    Stopping,
    /// It takes its time.
    #[error("the move is still under way")]
    UnderWay,
}

/// A move that not all workers have done their part of.
struct UnderWay {
    of: Move,
    /// Workers that are still to get the table; the last one next.
    left: Vec<usize>,
}

/// The state of the logical table.
pub struct Balancer {
    /// In force, or about to be; `None`: there is one worker.
    placement: Option<Arc<Placement>>,
    under_way: Option<UnderWay>,
    /// How often in a row the workers were far apart.
    seen: u32,
    last: Option<Instant>,
    /// The node stops: nobody waits for a move, and none begins.
    stopping: Arc<AtomicBool>,
}

impl Balancer {
    /// At the start. `stopping` is true when the node stops: then nobody waits for a move, and none begins.
    #[must_use]
    pub const fn new(placement: Option<Arc<Placement>>, stopping: Arc<AtomicBool>) -> Self {
        Self {
            placement,
            under_way: None,
            seen: 0,
            last: None,
            stopping,
        }
    }

    /// The table in force.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.placement.as_ref().map_or(0, |p| p.buckets.version)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn table(&self) -> Result<&BucketTable, Balanced> {
        self.placement.as_ref().map(|p| &p.buckets).ok_or(Balanced::Alone)
    }

    /// What would be moved now, by the loads of the last second.
    ///
    /// # Errors
    /// Nothing, or a worker does not answer, or the node stops.
    pub fn proposal(&self, workers: &[WorkerLink], loads: &[WorkerLoad]) -> Result<Proposal, MoveError> {
        let table = self.table()?;
        // Sessions are counted only if it comes to that.
        propose(table, loads, &[0; BUCKETS], LEAST_ASKED)?;
        let mut sessions = [0; BUCKETS];
        for worker in workers {
            let mut from = Some(0);
            while let Some(slot) = from {
                if self.is_stopping() {
                    return Err(MoveError::Stopping);
                }
                let scan = BucketScan {
                    from: Some(slot),
                    slots: COUNT_SLOTS,
                    sessions: [0; BUCKETS],
                };
                let reply = worker.ask(Command::Buckets(Box::new(scan)), ASK);
                let Reply::Buckets(scan) = reply.map_err(MoveError::NotBegun)? else {
                    break;
                };
                from = scan.from;
                for (total, one) in sessions.iter_mut().zip(scan.sessions) {
                    *total += one;
                }
            }
        }
        Ok(propose(table, loads, &sessions, LEAST_ASKED)?)
    }

    /// Where flows belong now, of several workers.
    #[must_use]
    pub const fn placement(&self) -> Option<&Arc<Placement>> {
        self.placement.as_ref()
    }

    /// Carries a proposal out, and waits until the move is over.
    ///
    /// # Errors
    /// It goes on by [`Balancer::go_on`] when it can.
    pub fn carry_out(&mut self, workers: &[WorkerLink], proposal: &Proposal) -> Result<(), MoveError> {
        self.finish(workers)?;
        if self.is_stopping() {
            return Err(MoveError::Stopping);
        }
        let Some(current) = &self.placement else {
            return Err(Balanced::Alone.into());
        };
        let moves = proposal.buckets.iter().map(|bucket| (bucket, proposal.to));
        self.placement = Some(Arc::new(Placement {
            buckets: current.buckets.moved(moves),
            ..Placement::clone(current)
        }));
        let target = proposal.to.index();
        // The target is the first, and the rest have time until it has answered.
        let mut left: Vec<usize> = (0..workers.len()).filter(|worker| *worker != target).collect();
        left.push(target);
        self.under_way = Some(UnderWay {
            of: Move {
                from: proposal.from,
                to: proposal.to,
                workers: workers.len() as u16,
                buckets: proposal.buckets.clone(),
            },
            left,
        });
        self.finish(workers)
    }

    /// Goes on with a move until it is over, or the node stops.
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    fn finish(&mut self, workers: &[WorkerLink]) -> Result<(), MoveError> {
        let deadline = Instant::now() + WAIT;
        while !self.go_on(workers)? {
            if self.is_stopping() || Instant::now() >= deadline {
                return Err(MoveError::UnderWay);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Gives the table to whoever has it not yet, and asks whether all are done. True: no move is under way.
    ///
    /// # Errors
    /// A worker does not answer: this is to be called again.
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    pub fn go_on(&mut self, workers: &[WorkerLink]) -> Result<bool, MoveError> {
        let (Some(under_way), Some(placement)) = (&mut self.under_way, &self.placement) else {
            return Ok(true);
        };
        while let Some(worker) = under_way.left.last().and_then(|worker| workers.get(*worker)) {
            // A command that was not answered in time may have been carried out since: this one comes behind it.
            if !has(worker, placement.buckets.version)? {
                let command = Command::Move(Arc::clone(placement), Box::new(under_way.of.clone()));
                worker.ask(command, ASK)?;
                if !has(worker, placement.buckets.version)? {
                    // It is still busy with the one before.
                    return Ok(false);
                }
            }
            under_way.left.pop();
        }
        for worker in workers {
            if let Reply::Moving(true, _) = worker.ask(Command::Moving, ASK)? {
                return Ok(false);
            }
        }
        self.under_way = None;
        self.seen = 0;
        self.last = Some(Instant::now());
        Ok(true)
    }

    /// Once a second with `rebalance = "auto"`: is it time to move something? Whatever comes of it, the next time is after a rest: to
    /// find out that nothing can be moved takes a walk over all tables.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    pub fn is_time(&mut self, loads: &[WorkerLoad]) -> bool {
        let rested = self.last.is_none_or(|last| last.elapsed() >= REST);
        self.seen = if is_uneven(loads) { self.seen + 1 } else { 0 };
        let is_time = self.placement.is_some() && rested && self.seen >= SEEN;
        if is_time {
            self.seen = 0;
            self.last = Some(Instant::now());
        }
        is_time
    }
}

fn is_uneven(loads: &[WorkerLoad]) -> bool {
    let busy = || loads.iter().map(|load| load.busy_ppm);
    busy().max().unwrap_or(0) - busy().min().unwrap_or(0) >= LEAST_AUTO
}

/// Does a worker place packets by this version?
fn has(worker: &WorkerLink, version: u32) -> Result<bool, NoAnswer> {
    let reply = worker.ask(Command::Moving, ASK)?;
    Ok(matches!(reply, Reply::Moving(_, Some(its)) if its == version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::WorkerId;
    use crate::flow::{KeySet, Method, OwnerFunction};

    fn loads(busy: [u64; 2]) -> [WorkerLoad; 2] {
        busy.map(|percent| WorkerLoad {
            busy_ppm: percent * 10_000,
            room: 1000,
        })
    }

    #[test]
    fn by_itself_it_acts_on_what_lasts() {
        let keys = KeySet::random(Method::Sorted, |key| key.fill(0x6d));
        let placement = Placement {
            function: OwnerFunction::new(Method::Sorted, keys).unwrap(),
            buckets: BucketTable::even(2),
            sides: Box::default(),
        };
        let stopping = Arc::new(AtomicBool::new(false));
        let mut balancer = Balancer::new(Some(Arc::new(placement)), Arc::clone(&stopping));
        let (uneven, even) = (loads([90, 20]), loads([50, 45]));
        let times = [uneven, uneven, even, uneven, uneven, uneven].map(|loads| balancer.is_time(&loads));
        assert_eq!(times, [false, false, false, false, false, true]);
        // Nothing came of it: it rests all the same.
        assert!((0..5).all(|_| !balancer.is_time(&uneven)));
        balancer.last = balancer.last.and_then(|last| last.checked_sub(REST));
        assert!(balancer.is_time(&uneven) && !balancer.is_time(&uneven));
        // A stop: none begins.
        let proposal = Proposal {
            from: WorkerId(0),
            to: WorkerId(1),
            buckets: [0].into_iter().collect(),
            sessions: 0,
        };
        stopping.store(true, Ordering::Release);
        let stopped = balancer.carry_out(&[], &proposal);
        assert!(matches!(stopped, Err(MoveError::Stopping)));
        assert_eq!(balancer.version(), 0);
        stopping.store(false, Ordering::Release);
        assert!(balancer.carry_out(&[], &proposal).is_ok());
        assert_eq!(balancer.version(), 1);
        let mut alone = Balancer::new(None, stopping);
        assert!((0..5).all(|_| !alone.is_time(&uneven)));
        assert_eq!(
            alone.proposal(&[], &uneven).unwrap_err().to_string(),
            "there is one worker"
        );
    }
}
