//! The way between control threads and a worker: two bounded queues. The worker takes a command at a burst boundary and
//! sends what it was given back with the answer in it, so that it neither allocates nor frees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::lock::ControlLock;
use super::slots::PortQueues;
use super::stats::WorkerStats;
use crate::base::{Nanos, PortId, WorkerId};
use crate::dpdk::wake::Bell;
use crate::engine::{Move, Placement, RuleCounters};
use crate::flow::table::{Entry, SessionId};
use crate::flow::{BUCKETS, FlowKey, Session, Translation};
use crate::policy::{Policy, Scale};

/// A live session as its worker saw it at one moment.
#[derive(Clone, Copy, Debug)]
pub struct SessionCopy {
    /// Its name.
    pub id: SessionId,
    /// The session.
    pub session: Session,
    /// How its numbers differ, of a proxied one.
    pub translation: Translation,
    /// When it was made.
    pub created: Nanos,
    /// Packets, `[opener's, replier's]`.
    pub packets: [u64; 2],
}

impl From<Entry<'_>> for SessionCopy {
    fn from(entry: Entry<'_>) -> Self {
        Self {
            id: entry.id,
            session: *entry.session,
            translation: entry.translation,
            created: entry.created,
            packets: entry.packets,
        }
    }
}

/// A walk over a part of a worker's session table.
#[derive(Debug)]
pub struct SessionScan {
    /// The slot to begin with.
    pub from: u32,
    /// Slots to look at.
    pub slots: u32,
    /// Filled up to its capacity with the sessions found.
    pub found: Vec<SessionCopy>,
    /// Where to go on; `None`: that was the last slot.
    pub next: Option<u32>,
    /// The worker's time.
    pub now: Nanos,
    /// What timeouts have shrunk to there.
    pub scale: Scale,
}

/// Ending sessions by name.
#[derive(Debug, Default)]
pub struct Kill {
    /// Which.
    pub sessions: Vec<SessionId>,
    /// How many of them have been looked at.
    pub done: usize,
    /// How many of them were still there and are now ended.
    pub killed: u64,
}

/// Looking sessions up by their keys.
#[derive(Debug, Default)]
pub struct Lookup {
    /// Which.
    pub keys: Vec<FlowKey>,
    /// How many keys have been looked up.
    pub done: usize,
    /// The sessions that exist; at least as much capacity as there are keys.
    pub found: Vec<SessionCopy>,
    /// The worker's time.
    pub now: Nanos,
    /// What timeouts have shrunk to there.
    pub scale: Scale,
}

/// Copying rule counters.
#[derive(Debug, Default)]
pub struct RuleScan {
    /// The first rule id to copy.
    pub from: usize,
    /// Filled up to its capacity.
    pub counters: Vec<RuleCounters>,
}

/// Counting the sessions in each bucket of the logical table, in some slots of a worker's.
#[derive(Debug)]
pub struct BucketScan {
    /// The slot to go on with; `None`: all were looked at.
    pub from: Option<u32>,
    /// How many slots are still to be looked at.
    pub slots: u32,
    /// Sessions, by bucket.
    pub sessions: [u32; BUCKETS],
}

/// Telling the log of all sessions that are there.
#[derive(Debug)]
pub struct Farewell {
    /// Until then it waits for room on the way to the log; after, what finds none is lost.
    pub until: Nanos,
    /// The slot to go on with; `None`: all is told.
    pub from: Option<u32>,
}

/// What a worker is asked to do. It answers each with the [`Reply`] of the same name, in order.
pub enum Command {
    /// Publish the counters now.
    Publish,
    /// Judge packets by this policy from now on; the old one comes back.
    Policy(Arc<Policy>),
    /// Walk over sessions.
    Sessions(Box<SessionScan>),
    /// End sessions.
    Kill(Box<Kill>),
    /// Look sessions up.
    Lookup(Box<Lookup>),
    /// Copy rule counters.
    Rules(Box<RuleScan>),
    /// Place packets by this table from now on; a move of buckets begins ([`crate::engine::moving`]). The target is asked first.
    Move(Arc<Placement>, Box<Move>),
    /// Is a move still under way here, and which table is in force?
    Moving,
    /// Count the sessions in each bucket.
    Buckets(Box<BucketScan>),
    /// Give a port's queues back; what waits in them for transmission is sent or dropped first.
    TakePort(PortId),
    /// Own these queues from now on.
    GivePort(PortId, Box<PortQueues>),
    /// Receive from now on: all ports are there. (Before, packets wait in their rings: a port whose peer has not been
    /// given yet has nowhere to send them.) The loop gaps of the start-up are forgotten.
    Begin,
    /// Receive no more, and have the log told of all sessions that are there.
    Farewell(Farewell),
    /// Receive no more from ports; what other workers hand over is still taken.
    Rest,
    /// Finish what is in hand and end.
    Stop,
}

/// A worker's answers.
pub enum Reply {
    /// Published.
    Publish,
    /// The policy that was in force before.
    Policy(Arc<Policy>),
    /// Walked.
    Sessions(Box<SessionScan>),
    /// Ended.
    Kill(Box<Kill>),
    /// Looked up.
    Lookup(Box<Lookup>),
    /// Copied.
    Rules(Box<RuleScan>),
    /// The placement that was in force before, and what has to be freed; refused, the new one.
    Move(Result<Arc<Placement>, Arc<Placement>>, Box<Move>),
    /// Whether it is, and the version of the table in force.
    Moving(bool, Option<u32>),
    /// Counted.
    Buckets(Box<BucketScan>),
    /// The queues, if the worker had any of that port.
    TakePort(Option<Box<PortQueues>>),
    /// Taken; queues that it still had of that port come back.
    GivePort(Option<Box<PortQueues>>),
    /// It receives.
    Begin,
    /// Told.
    Farewell,
    /// It rests.
    Rest,
    /// It ends.
    Stop,
}

/// Commands that may wait for one worker, and answers for their askers.
const QUEUE: usize = 64;

/// The queues between control and one worker.
pub struct Mailbox {
    commands: ArrayQueue<(u64, Command)>,
    replies: ArrayQueue<(u64, Reply)>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            commands: ArrayQueue::new(QUEUE),
            replies: ArrayQueue::new(QUEUE),
        }
    }
}

impl Mailbox {
    /// The next command with its number; on the worker.
    #[inline]
    #[must_use]
    pub fn take(&self) -> Option<(u64, Command)> {
        // `is_empty` reads two words; `pop` on an empty queue would fence.
        if self.commands.is_empty() {
            None
        } else {
            self.commands.pop()
        }
    }

    /// Is there room for one more answer?
    #[must_use]
    pub fn can_answer(&self) -> bool {
        !self.replies.is_full()
    }

    /// Answers; on the worker, after [`Mailbox::can_answer`].
    ///
    /// # Errors
    /// Gives the answer back when there is no room.
    pub fn answer(&self, number: u64, reply: Reply) -> Result<(), (u64, Reply)> {
        self.replies.push((number, reply))
    }
}

/// Why a worker did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It did not within the time: it is stalled or busy.
    #[error("worker {} does not answer", .0.index())]
    Stalled(WorkerId),
    /// It has ended.
    #[error("worker {} has stopped", .0.index())]
    Stopped(WorkerId),
}

/// A worker as control threads see it.
pub struct WorkerLink {
    id: WorkerId,
    cpu: usize,
    mailbox: Arc<Mailbox>,
    stats: Arc<WorkerStats>,
    bell: Bell,
    number: AtomicU64,
    #[allow(
        clippy::disallowed_types,
        reason = "control threads alone take it: one asker at a time"
    )]
    turn: ControlLock<bool>,
}

impl WorkerLink {
    /// A link to the worker that has the other end of `mailbox`, publishes to `stats` and wakes by `bell`.
    #[must_use]
    pub fn new(id: WorkerId, cpu: usize, mailbox: Arc<Mailbox>, stats: Arc<WorkerStats>, bell: Bell) -> Self {
        Self {
            id,
            cpu,
            mailbox,
            stats,
            bell,
            number: AtomicU64::new(0),
            turn: ControlLock::new(false),
        }
    }

    /// The worker.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Its CPU.
    #[must_use]
    pub fn cpu(&self) -> usize {
        self.cpu
    }

    /// Wakes it, should it sleep: there is something in one of its queues.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// What it published last.
    #[must_use]
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    /// Asks and waits for the answer, at most `timeout`. One asker at a time; a late answer to an earlier one is
    /// freed here, off the worker.
    ///
    /// # Errors
    /// When the worker does not answer in time or has ended. The command may still be carried out.
    #[allow(
        clippy::disallowed_methods,
        reason = "control threads: a deadline for a worker's answer"
    )]
    pub fn ask(&self, command: Command, timeout: Duration) -> Result<Reply, NoAnswer> {
        let deadline = Instant::now() + timeout;
        let mut stopped = self.turn.lock();
        if *stopped {
            return Err(NoAnswer::Stopped(self.id));
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut command = (number, command);
        let mut pause = Pause::default();
        while let Err(full) = self.mailbox.commands.push(command) {
            command = full;
            if !pause.until(deadline) {
                return Err(NoAnswer::Stalled(self.id));
            }
        }
        self.bell.ring();
        pause = Pause::default();
        loop {
            while let Some((answered, reply)) = self.mailbox.replies.pop() {
                *stopped |= matches!(reply, Reply::Stop);
                if answered == number {
                    return Ok(reply);
                }
            }
            if !pause.until(deadline) {
                return Err(NoAnswer::Stalled(self.id));
            }
        }
    }
}

/// Waits in growing steps: most answers come within microseconds.
struct Pause {
    step: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            step: Duration::from_micros(20),
        }
    }
}

impl Pause {
    /// False: the time is over.
    #[allow(
        clippy::disallowed_methods,
        reason = "control threads: a deadline for a worker's answer"
    )]
    fn until(&mut self, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(self.step);
        self.step = (self.step * 2).min(Duration::from_millis(1));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    fn link() -> (WorkerLink, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::default());
        let stats = Arc::new(WorkerStats::new(0));
        let link = WorkerLink::new(WorkerId(3), 1, Arc::clone(&mailbox), stats, Bell::mute());
        (link, mailbox)
    }

    #[test]
    fn a_stalled_worker_is_reported_and_its_late_answer_is_not_taken_for_the_next() {
        let (link, mailbox) = link();
        assert_eq!(
            link.ask(Command::Begin, SHORT).err(),
            Some(NoAnswer::Stalled(WorkerId(3)))
        );
        assert_eq!(
            NoAnswer::Stalled(WorkerId(3)).to_string(),
            "worker 3 does not answer"
        );
        let worker = std::thread::spawn(move || {
            for _ in 0..2 {
                let (number, command) = loop {
                    match mailbox.take() {
                        Some(command) => break command,
                        None => std::thread::yield_now(),
                    }
                };
                let reply = match command {
                    Command::Begin => Reply::Begin,
                    _ => Reply::Publish,
                };
                assert!(mailbox.answer(number, reply).is_ok());
            }
        });
        assert!(matches!(link.ask(Command::Publish, LONG), Ok(Reply::Publish)));
        worker.join().unwrap();
    }

    #[test]
    fn a_full_queue_is_a_stalled_worker() {
        let (link, mailbox) = link();
        for number in 0..QUEUE as u64 {
            assert!(mailbox.commands.push((number, Command::Publish)).is_ok());
        }
        assert_eq!(
            link.ask(Command::Publish, SHORT).err(),
            Some(NoAnswer::Stalled(WorkerId(3)))
        );
    }

    #[test]
    fn nothing_is_asked_of_a_worker_that_stopped() {
        let (link, mailbox) = link();
        assert!(mailbox.answer(0, Reply::Stop).is_ok());
        assert!(matches!(link.ask(Command::Stop, LONG), Ok(Reply::Stop)));
        assert_eq!(
            link.ask(Command::Publish, LONG).err(),
            Some(NoAnswer::Stopped(WorkerId(3)))
        );
    }
}
