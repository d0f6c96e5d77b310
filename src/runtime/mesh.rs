//! The queues between the workers of a node: a ring for each pair and direction, with one producer and one consumer, so that packets
//! of one flow that go from one worker to another stay in order. (DPDK's ring and not crossbeam's `ArrayQueue`: see
//! `benches/mesh.rs`.)
//!
//! A full ring drops (`queue_full`); nobody waits for anybody. A worker that sleeps is rung for by whoever hands it packets.

use std::sync::{Arc, OnceLock};

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;

use crate::base::doorbell::Doorbell;
use crate::base::{PortId, WorkerId};
use crate::dpdk::mbuf::Mbuf;
use crate::dpdk::ring::{Receiver, Sender, ring};
use crate::dpdk::wake::Bell;
use crate::dpdk::{Eal, Error, MAX_BURST};
use crate::engine::{Hops, Mark, Message};

/// Messages that may wait for one worker.
const MESSAGES: usize = 4096;

/// What a packet is handed over for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// It came in by `port` and is the other worker's to judge.
    Judge,
    /// It is to leave by `port`, for which this worker has no transmit queue.
    Send,
    /// The same, and the engine made it.
    SendMade,
}

/// A packet on its way to another worker.
#[derive(Debug)]
#[repr(C)]
pub struct Handed {
    /// The packet.
    pub packet: Mbuf,
    /// Its port.
    pub port: PortId,
    /// How often its owner was looked for.
    pub hops: Hops,
    /// What for.
    pub what: What,
    reserved: u32,
}

const _: () = assert!(size_of::<Handed>() == 16);

impl Handed {
    /// A packet for another worker.
    #[inline]
    #[must_use]
    pub const fn new(packet: Mbuf, port: PortId, hops: Hops, what: What) -> Self {
        Self {
            packet,
            port,
            hops,
            what,
            reserved: 0,
        }
    }
}

/// Says whether a worker sleeps, and wakes it.
#[derive(Debug, Default)]
struct Door {
    doorbell: Doorbell,
    bell: OnceLock<Bell>,
}

/// The way to one other worker.
struct Way {
    ring: Sender<Handed>,
    waiting: ArrayVec<Handed, MAX_BURST>,
    /// Packets that the ring has taken, modulo 2^32.
    pushed: u32,
    door: Arc<Door>,
    inbox: Arc<ArrayQueue<Letter>>,
}

/// What comes by a worker's queue of messages.
#[allow(
    clippy::large_enum_variant,
    reason = "a worker allocates nothing: a session travels in the queue itself"
)]
enum Letter {
    Message(Message),
    /// A mark of this worker, behind so many packets by its ring.
    Mark(WorkerId, u32, Mark),
}

/// Marks of one worker whose packets are still on their way: of one move there are two at most.
type Marks = ArrayVec<(u32, Mark), 4>;

/// The way from one other worker.
struct From {
    worker: WorkerId,
    ring: Receiver<Handed>,
    /// Packets taken from the ring, modulo 2^32.
    taken: u32,
    marks: Marks,
}

/// One worker's ends of the mesh.
pub struct Mesh {
    /// By worker; none to itself.
    ways: Vec<Option<Way>>,
    me: WorkerId,
    /// From each other worker.
    from: Vec<From>,
    /// There are marks among them.
    marked: bool,
    /// Where to begin the next time, so that none of them is always the last.
    next: usize,
    door: Arc<Door>,
    /// Messages of all others.
    inbox: Arc<ArrayQueue<Letter>>,
}

/// The meshes of `workers` workers, with room for `capacity` packets on each way; the rings lie on their receivers' NUMA node
/// (`sockets`, by worker).
///
/// # Errors
/// When there is no memory for them.
pub fn mesh(eal: &Eal, sockets: &[Option<u32>], capacity: u32) -> Result<Vec<Mesh>, Error> {
    let workers = sockets.len();
    let doors: Vec<Arc<Door>> = (0..workers).map(|_| Arc::default()).collect();
    let inboxes: Vec<_> = (0..workers)
        .map(|_| Arc::new(ArrayQueue::new(MESSAGES)))
        .collect();
    let mut meshes: Vec<Mesh> = doors
        .iter()
        .zip(&inboxes)
        .zip((0..).map(WorkerId))
        .map(|((door, inbox), me)| Mesh {
            me,
            ways: Vec::new(),
            from: Vec::new(),
            marked: false,
            next: 0,
            door: Arc::clone(door),
            inbox: Arc::clone(inbox),
        })
        .collect();
    for sender in 0..workers {
        for receiver in 0..workers {
            if sender == receiver {
                meshes[sender].ways.push(None);
                continue;
            }
            let (tx, rx) = ring(eal, capacity, sockets[receiver])?;
            meshes[sender].ways.push(Some(Way {
                ring: tx,
                waiting: ArrayVec::new(),
                pushed: 0,
                door: Arc::clone(&doors[receiver]),
                inbox: Arc::clone(&inboxes[receiver]),
            }));
            let worker = meshes[sender].me;
            meshes[receiver].from.push(From {
                worker,
                ring: rx,
                taken: 0,
                marks: Marks::new(),
            });
        }
    }
    Ok(meshes)
}

impl Mesh {
    /// From now on others can wake this worker.
    pub fn set_bell(&self, bell: Bell) {
        // A worker has one bell, and sets it once.
        let _ = self.door.bell.set(bell);
    }

    /// Puts a packet on its way with the next [`Mesh::flush`]. True: so many wait for that worker now that it should be now.
    ///
    /// # Errors
    /// Gives the packet back when there is no such worker, or no room before a flush.
    #[inline]
    pub fn push(&mut self, to: WorkerId, handed: Handed) -> Result<bool, Handed> {
        let Some(way) = self.ways.get_mut(to.index()).and_then(Option::as_mut) else {
            return Err(handed);
        };
        way.waiting.try_push(handed).map_err(|e| e.element())?;
        Ok(way.waiting.is_full())
    }

    /// Hands over what waits for `to`; what its ring does not take goes to `refused`. Returns how many it took.
    pub fn flush(&mut self, to: WorkerId, refused: impl FnMut(Handed)) -> usize {
        let Some(way) = self.ways.get_mut(to.index()).and_then(Option::as_mut) else {
            return 0;
        };
        if way.waiting.is_empty() {
            return 0;
        }
        let pushed = way.ring.push_burst(&mut way.waiting);
        way.pushed = way.pushed.wrapping_add(pushed as u32);
        way.waiting.drain(..).for_each(refused);
        way.door.announce();
        pushed
    }

    /// Puts a message into another worker's queue.
    ///
    /// # Errors
    /// Gives it back when the queue is full, or there is no such worker.
    #[allow(
        clippy::result_large_err,
        reason = "nothing is boxed: a worker allocates nothing"
    )]
    pub fn tell(&self, to: WorkerId, message: Message) -> Result<(), Message> {
        let Some(way) = self.ways.get(to.index()).and_then(Option::as_ref) else {
            return Err(message);
        };
        way.inbox
            .push(Letter::Message(message))
            .map_err(|letter| match letter {
                Letter::Message(message) => message,
                // It is what was pushed.
                Letter::Mark(_, _, Mark::Switched(version) | Mark::Drain(version)) => {
                    Message::Passed { version }
                }
            })?;
        way.door.announce();
        Ok(())
    }

    /// Puts a mark behind all packets that have been flushed on their way to `to`. False: its queue of messages is full, or there is no
    /// such worker.
    #[must_use]
    pub fn mark(&self, to: WorkerId, mark: Mark) -> bool {
        let Some(way) = self.ways.get(to.index()).and_then(Option::as_ref) else {
            return false;
        };
        let told = way.inbox.push(Letter::Mark(self.me, way.pushed, mark)).is_ok();
        way.door.announce();
        told
    }

    /// Were there marks whose packets are still on their way?
    #[inline]
    #[must_use]
    pub const fn is_marked(&self) -> bool {
        self.marked
    }

    /// A mark before which all packets have been taken.
    pub fn next_passed(&mut self) -> Option<(WorkerId, Mark)> {
        let is_here = |from: &From| {
            let first = from.marks.first();
            // Either may have gone round.
            first.is_some_and(|(pushed, _)| from.taken.wrapping_sub(*pushed) < 1 << 31)
        };
        let passed = self.from.iter_mut().find(|from| is_here(from));
        let passed = passed.map(|from| (from.worker, from.marks.remove(0).1));
        self.marked = self.from.iter().any(|from| !from.marks.is_empty());
        passed
    }

    /// How many messages wait: those that whatever packets are here may depend on are among them.
    #[inline]
    #[must_use]
    pub fn messages(&self) -> usize {
        // Reads two words; `pop` on an empty queue would fence.
        self.inbox.len()
    }

    /// The oldest message; marks before it are noted ([`Mesh::next_passed`]).
    #[must_use]
    pub fn next_message(&mut self) -> Option<Message> {
        loop {
            match self.inbox.pop()? {
                Letter::Message(message) => return Some(message),
                Letter::Mark(worker, pushed, mark) => {
                    self.marked = true;
                    if let Some(from) = self.from.iter_mut().find(|from| from.worker == worker) {
                        let noted = from.marks.try_push((pushed, mark));
                        debug_assert!(noted.is_ok(), "one move at a time");
                    }
                }
            }
        }
    }

    /// Of what waits for `to`, how many packets are to be sent, not judged.
    #[must_use]
    pub fn relayed_in(&self, to: WorkerId) -> u64 {
        let way = self.ways.get(to.index()).and_then(Option::as_ref);
        way.map_or(0, |way| {
            way.waiting
                .iter()
                .filter(|handed| handed.what != What::Judge)
                .count() as u64
        })
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> u16 {
        self.ways.len() as u16
    }

    /// Packets that wait for a flush.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.ways.iter().flatten().map(|way| way.waiting.len()).sum()
    }

    /// Does nobody have packets for this worker?
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.from.iter().all(|from| from.ring.is_empty())
    }

    /// Takes what others have handed over, as long as there is room behind the end of `packets`, from each of them in turn.
    #[inline]
    pub fn take<const N: usize>(&mut self, packets: &mut ArrayVec<Handed, N>) {
        let ways = self.from.len();
        for place in 0..ways {
            let from = &mut self.from[(self.next + place) % ways];
            let before = packets.len();
            from.ring.pop_burst(packets, N);
            from.taken = from.taken.wrapping_add((packets.len() - before) as u32);
        }
        self.next = (self.next + 1) % ways.max(1);
    }

    /// Sleeps by `sleep`, unless packets are here; others ring from now on.
    pub fn sleep<T>(&self, sleep: impl FnOnce() -> T) -> Option<T> {
        self.door.doorbell.sleep(|| self.is_empty(), sleep)
    }
}

impl Door {
    /// Something is there for the worker: it is woken if it sleeps.
    #[inline]
    fn announce(&self) {
        self.doorbell.announce(|| {
            if let Some(bell) = self.bell.get() {
                bell.ring();
            }
        });
    }
}
