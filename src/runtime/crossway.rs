//! A worker's way to the other node of an active-active pair: packets are copied into buffers that the HA thread sends, and those that
//! came into packet buffers of this node.

use std::sync::{Arc, OnceLock};

use crate::base::PortId;
use crate::base::doorbell::Doorbell;
use crate::dpdk::wake::Bell;
use crate::dpdk::{Mbuf, Mempool};
use crate::ha::frames::Frames;
use crate::ha::member::Queues;
use crate::ha::message::Crossing;
use crate::packet::PacketBuf;

/// Says whether a thread sleeps, and wakes it.
#[derive(Debug, Default)]
pub struct Door {
    doorbell: Doorbell,
    bell: OnceLock<Bell>,
}

impl Door {
    /// From now on others can wake the thread. It has one bell, and sets it once.
    pub fn set_bell(&self, bell: Bell) {
        let _ = self.bell.set(bell);
    }

    /// Something is there for the thread: it is woken if it sleeps.
    #[inline]
    pub fn announce(&self) {
        self.doorbell.announce(|| {
            if let Some(bell) = self.bell.get() {
                bell.ring();
            }
        });
    }

    /// Sleeps by `sleep`, unless there is something already (not `empty`); others ring from now on.
    pub fn sleep<T>(&self, empty: impl FnOnce() -> bool, sleep: impl FnOnce() -> T) -> Option<T> {
        self.doorbell.sleep(empty, sleep)
    }
}

/// What workers of a pair need to reach the HA thread.
#[derive(Clone)]
pub struct Way {
    /// This worker's queues.
    pub queues: Arc<Queues>,
    /// The HA thread's.
    pub door: Arc<Door>,
    /// Packets of the other node come into buffers of this pool; `None`: none come.
    pub pool: Option<Mempool>,
}

/// What was counted of packets that cross.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crossings {
    /// Offered, and on their way.
    pub(super) redirected_out: u64,
    /// The other node's, to be judged here.
    pub(super) redirected_in: u64,
    /// Of the other node's: on their way back.
    pub(super) given_back: u64,
    /// Back from the other node.
    pub(super) returned: u64,
}

/// What the other node wants of a packet.
pub(super) enum Arrived {
    /// It came in there by this port, and is to be judged.
    Judge(Mbuf, PortId),
    /// It came in here by this port, and is to be judged here after all.
    JudgeAgain(Mbuf, PortId),
    /// It is to leave by this port; true: the other node made it.
    Send(Mbuf, PortId, bool),
    /// There is no buffer for it.
    Lost,
}

/// See the module.
pub(super) struct Crossway {
    way: Way,
    me: u16,
    /// The HA thread does not know yet that there is something for it.
    is_new: bool,
    pub(super) counts: Crossings,
}

impl Crossway {
    pub(super) fn new(way: Way, me: u16) -> Self {
        Self {
            way,
            me,
            is_new: false,
            counts: Crossings::default(),
        }
    }

    fn frames(&self) -> Option<&Frames> {
        self.way.queues.frames.as_ref()
    }

    /// Are there no packets of the other node's?
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.frames().is_none_or(|frames| frames.incoming.is_empty())
    }

    /// Puts a copy of a packet on its way. `false`: there is no room.
    pub(super) fn send(&mut self, crossing: Crossing, port: PortId, frame: &[u8]) -> bool {
        let sent = self
            .frames()
            .is_some_and(|frames| frames.send(crossing, port, self.me, frame));
        self.is_new |= sent;
        let count = match crossing {
            Crossing::Known | Crossing::Unknown => &mut self.counts.redirected_out,
            Crossing::SentBack | Crossing::Return | Crossing::ReturnMade => &mut self.counts.given_back,
        };
        *count += u64::from(sent);
        sent
    }

    /// The next packet of the other node's.
    pub(super) fn take(&mut self) -> Option<Arrived> {
        let pool = self.way.pool.as_mut()?;
        let frames = self.way.queues.frames.as_ref()?;
        let counts = &mut self.counts;
        frames.take(|frame| {
            let count = match frame.crossing {
                Crossing::Known | Crossing::Unknown => &mut counts.redirected_in,
                Crossing::SentBack | Crossing::Return | Crossing::ReturnMade => &mut counts.returned,
            };
            *count += 1;
            let Some(mut packet) = pool.alloc() else {
                return Arrived::Lost;
            };
            if packet.try_fill(frame.bytes()).is_err() {
                return Arrived::Lost;
            }
            match frame.crossing {
                Crossing::Known | Crossing::Unknown => Arrived::Judge(packet, frame.port),
                Crossing::SentBack => Arrived::JudgeAgain(packet, frame.port),
                Crossing::Return => Arrived::Send(packet, frame.port, false),
                Crossing::ReturnMade => Arrived::Send(packet, frame.port, true),
            }
        })
    }

    /// The HA thread is told what there is for it.
    #[inline]
    pub(super) fn announce(&mut self) {
        if std::mem::take(&mut self.is_new) {
            self.way.door.announce();
        }
    }

    /// The HA thread is to take what the worker has said at once.
    pub(super) fn hasten(&self) {
        if !self.way.queues.words.is_empty() {
            self.way.door.announce();
        }
    }
}
