//! A SYN that haechi sent in a client's place, and that the server did not answer, is sent again after 1, 2 and 4 seconds
//! (RFC 6298's backoff): the client, which has its SYN+ACK, does not.

use super::Syn;
use crate::base::{Memory, Nanos, PortId, SessionIx, Slab};
use crate::engine::process::Act;
use crate::engine::{Engine, Outputs};
use crate::flow::table::SessionId;
use crate::flow::{FlowKey, SessionState, TableError};
use crate::packet::PacketBuf;

/// SYNs that wait at a time, for each of the three times. One more is not sent again (`syn_retries_lost`).
const PLACES: usize = 1024;
/// When, after the time before.
const AFTER: [Nanos; 3] = [Nanos::from_secs(1), Nanos::from_secs(2), Nanos::from_secs(4)];
/// Two tags, IPv6 and TCP with all options.
const LONGEST: usize = 14 + 8 + 40 + 40;
/// SYNs of one time that one call looks at.
const BUDGET: usize = 16;

/// One SYN.
#[derive(Clone, Copy)]
struct Waiting {
    due: Nanos,
    slot: u32,
    version: u32,
    to: PortId,
    len: u8,
    frame: [u8; LONGEST],
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            due: Nanos(0),
            slot: 0,
            version: 0,
            to: PortId(0),
            len: 0,
            frame: [0; LONGEST],
        }
    }
}

/// A SYN on its way to another worker, where its session is now.
#[derive(Clone)]
pub struct Retry {
    waiting: Waiting,
    round: usize,
}

impl std::fmt::Debug for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Retry {{ round: {}, due: {:?} }}",
            self.round, self.waiting.due
        )
    }
}

/// First in, first out.
struct Queue {
    places: Slab<Waiting>,
    first: usize,
    len: usize,
}

impl Queue {
    fn push(&mut self, waiting: &Waiting) -> bool {
        let at = (self.first + self.len) % PLACES;
        match self.places.get_mut(at).filter(|_| self.len < PLACES) {
            Some(place) => {
                *place = *waiting;
                self.len += 1;
                true
            }
            None => false,
        }
    }

    fn find(&self, id: SessionId) -> Option<usize> {
        (0..self.len).map(|n| (self.first + n) % PLACES).find(|at| {
            let waiting = &self.places[*at];
            waiting.slot == id.ix.0 && waiting.version == id.version
        })
    }

    /// The first one, if it is due.
    fn pop(&mut self, now: Nanos) -> Option<Waiting> {
        let waiting = self
            .places
            .get(self.first)
            .filter(|w| self.len > 0 && w.due <= now)?;
        let waiting = *waiting;
        self.first = (self.first + 1) % PLACES;
        self.len -= 1;
        Some(waiting)
    }
}

/// All that wait.
pub(super) struct Retries {
    queues: [Queue; AFTER.len()],
}

impl Retries {
    pub(super) fn new(memory: &impl Memory) -> Result<Self, TableError> {
        let queue = || {
            Ok::<_, TableError>(Queue {
                places: memory.slab(PLACES)?,
                first: 0,
                len: 0,
            })
        };
        Ok(Self {
            queues: [queue()?, queue()?, queue()?],
        })
    }
}

impl Syn {
    /// The SYN of this session, if it is to be sent again.
    pub(in crate::engine) fn waiting_of(&self, id: SessionId) -> Option<Retry> {
        let queues = self.retries.queues.iter().enumerate();
        queues.into_iter().find_map(|(round, queue)| {
            let waiting = *queue.places.get(queue.find(id)?)?;
            Some(Retry { waiting, round })
        })
    }

    /// It is another worker's to send: what is left in the queue names no session.
    pub(in crate::engine) fn forget_waiting_of(&mut self, id: SessionId) {
        for queue in &mut self.retries.queues {
            if let Some(at) = queue.find(id) {
                queue.places[at].slot = u32::MAX;
            }
        }
    }
}

impl<B> Engine<B> {
    /// The SYN of a session that has come from another worker. It may wait behind later ones, at most as long as one round.
    pub(in crate::engine) fn take_retry(&mut self, key: &FlowKey, retry: &Retry) {
        let found = self.table.find(key, self.table.hash(key));
        let Some(entry) = found.and_then(|ix| self.table.entry(ix)) else {
            return;
        };
        let waiting = Waiting {
            slot: entry.id.ix.0,
            version: entry.id.version,
            ..retry.waiting
        };
        let queue = self.syn.retries.queues.get_mut(retry.round);
        if !queue.is_some_and(|queue| queue.push(&waiting)) {
            self.counters.syn_retries_lost += 1;
        }
    }
}

impl Act<'_> {
    /// Has a SYN sent again if its session is not answered within a second.
    pub(super) fn try_again_later(&mut self, ix: SessionIx, frame: &[u8], to: PortId) {
        let version = self.table.entry(ix).map_or(0, |entry| entry.id.version);
        let mut waiting = Waiting {
            due: self.now.plus(AFTER[0]),
            slot: ix.0,
            version,
            to,
            len: frame.len() as u8,
            ..Waiting::default()
        };
        let room = waiting.frame.get_mut(..frame.len());
        let fits = room.map(|room| room.copy_from_slice(frame)).is_some();
        if !fits || !self.syn.retries.queues[0].push(&waiting) {
            self.counters.syn_retries_lost += 1;
        }
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Sends SYNs again that servers did not answer, a few at a time.
    pub(in crate::engine) fn resend<O: Outputs<B>>(&mut self, now: Nanos, out: &mut O) {
        for round in 0..AFTER.len() {
            for _ in 0..BUDGET {
                let Some(mut waiting) = self.syn.retries.queues[round].pop(now) else {
                    break;
                };
                let id = SessionId {
                    ix: SessionIx(waiting.slot),
                    version: waiting.version,
                };
                let waits = |ix: SessionIx| {
                    let session = self.table.get(ix);
                    session.is_proxied() && session.state() == SessionState::SynSent
                };
                if !self.table.resolve(id).is_some_and(waits) {
                    continue;
                }
                if let Some(after) = AFTER.get(round + 1) {
                    waiting.due = now.plus(*after);
                    if !self.syn.retries.queues[round + 1].push(&waiting) {
                        self.counters.syn_retries_lost += 1;
                    }
                }
                let Some(mut buffer) = out.buffer() else {
                    self.counters.syn_retries_lost += 1;
                    continue;
                };
                if buffer
                    .try_fill(&waiting.frame[..usize::from(waiting.len)])
                    .is_ok()
                {
                    self.counters.originated += 1;
                    out.originate(buffer, waiting.to);
                }
            }
        }
    }
}
