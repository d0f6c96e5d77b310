//! Which sessions give way when the table is full: those that no two ends agreed upon yet, and those that are over. They
//! stand in queues, one for each class and port of their opener, in the order in which they came into the class, so that the
//! oldest is found without a search however few there are. A place in a queue takes 8 bytes a session, beside the table's
//! other arrays; a session of another class is in none.
//!
//! The queues are by port, not by zone, because a port's zone can change with an apply while its sessions live.

use super::SessionState;
use super::index::NIL;
use crate::base::slab::{Memory, MemoryError};
use crate::base::{PortId, Slab};

/// Ports that a node can have.
pub const MAX_PORTS: usize = 512;

/// A reason to evict a session, in the order in which a full table looks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EvictionClass {
    /// TCP whose handshake is not complete.
    HalfOpen,
    /// Packets one way so far: UDP and other protocols; and ICMP, whose exchanges are short.
    OneWay,
    /// TCP that carries no more data: FINs both ways, or reset.
    Ended,
}

impl EvictionClass {
    /// All of them, the first to be evicted first.
    pub const ALL: [Self; 3] = [Self::HalfOpen, Self::OneWay, Self::Ended];

    /// The class of a state; `None`: a session in it is never evicted. One end of a half-closed connection may go on sending
    /// (RFC 9293, section 3.6), so it stays like an established one.
    #[inline]
    #[must_use]
    pub const fn of(state: SessionState) -> Option<Self> {
        use SessionState as S;
        match state {
            S::SynSent | S::SynSent2 | S::SynReceived => Some(Self::HalfOpen),
            S::UdpNew | S::OtherNew | S::Icmp => Some(Self::OneWay),
            S::Closing | S::LastAck | S::TimeWait | S::Closed => Some(Self::Ended),
            S::Established | S::FinWait | S::CloseWait | S::UdpReplied | S::OtherReplied => None,
        }
    }
}

/// A session's neighbours in its queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    next: u32,
    prev: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    /// Meaningful with `len`.
    head: u32,
    tail: u32,
    len: u32,
}

/// The queues of one table, and how many sessions each port has opened.
pub(super) struct Queues {
    pub(super) links: Slab<Link>,
    /// By class, then by port.
    queues: Slab<Queue>,
    by_port: Slab<u32>,
    by_class: [u32; EvictionClass::ALL.len()],
}

impl Queues {
    /// For `ports` ports; sessions of others count as those of the last.
    pub(super) fn new(capacity: u32, ports: usize, memory: &impl Memory) -> Result<Self, MemoryError> {
        let ports = ports.clamp(1, MAX_PORTS);
        Ok(Self {
            links: memory.slab(capacity as usize)?,
            queues: memory.slab(EvictionClass::ALL.len() * ports)?,
            by_port: memory.slab(ports)?,
            by_class: [0; EvictionClass::ALL.len()],
        })
    }

    fn place(&self, port: PortId) -> usize {
        port.index().min(self.by_port.len() - 1)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.links) + size_of_val(&*self.queues) + size_of_val(&*self.by_port)
    }

    /// Sessions that a port's packets have opened.
    pub(super) fn opened_by(&self, port: PortId) -> u32 {
        self.by_port[self.place(port)]
    }

    /// A session begins.
    #[inline]
    pub(super) fn begin(&mut self, slot: u32, port: PortId, state: SessionState) {
        let port = self.place(port);
        self.by_port[port] += 1;
        self.join(slot, port, EvictionClass::of(state));
    }

    /// A session in `state` ends.
    #[inline]
    pub(super) fn end(&mut self, slot: u32, port: PortId, state: SessionState) {
        let port = self.place(port);
        self.by_port[port] -= 1;
        self.leave(slot, port, EvictionClass::of(state));
    }

    /// A session goes from one state to another.
    #[inline]
    pub(super) fn change(&mut self, slot: u32, port: PortId, from: SessionState, to: SessionState) {
        let (from, to) = (EvictionClass::of(from), EvictionClass::of(to));
        if from != to {
            let port = self.place(port);
            self.leave(slot, port, from);
            self.join(slot, port, to);
        }
    }

    fn join(&mut self, slot: u32, port: usize, class: Option<EvictionClass>) {
        let Some(class) = class.map(|class| class as usize) else {
            return;
        };
        let queue = &mut self.queues[class * self.by_port.len() + port];
        let prev = if queue.len == 0 { NIL } else { queue.tail };
        self.links[slot as usize] = Link { next: NIL, prev };
        if prev == NIL {
            queue.head = slot;
        } else {
            self.links[prev as usize].next = slot;
        }
        queue.tail = slot;
        queue.len += 1;
        self.by_class[class] += 1;
    }

    fn leave(&mut self, slot: u32, port: usize, class: Option<EvictionClass>) {
        let Some(class) = class.map(|class| class as usize) else {
            return;
        };
        let Link { next, prev } = self.links[slot as usize];
        let queue = &mut self.queues[class * self.by_port.len() + port];
        match prev {
            NIL => queue.head = next,
            _ => self.links[prev as usize].next = next,
        }
        match next {
            NIL => queue.tail = prev,
            _ => self.links[next as usize].prev = prev,
        }
        queue.len -= 1;
        self.by_class[class] -= 1;
    }

    /// The oldest session of a class from that one of the `eligible` ports which has the most of it: a flood gives way
    /// before the few of everybody else.
    pub(super) fn oldest(&self, class: EvictionClass, eligible: impl Fn(PortId) -> bool) -> Option<u32> {
        if self.by_class[class as usize] == 0 {
            return None;
        }
        let ports = self.by_port.len();
        let mut fullest = Queue::default();
        for (queue, port) in self.queues[class as usize * ports..].iter().take(ports).zip(0..) {
            if queue.len > fullest.len && eligible(PortId(port)) {
                fullest = *queue;
            }
        }
        (fullest.len > 0).then_some(fullest.head)
    }

    /// Sessions of a class.
    pub(super) const fn count(&self, class: EvictionClass) -> u32 {
        self.by_class[class as usize]
    }
}
