//! Frames of the peer's: parts are joined, and what comes faster than it may is refused.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use super::{FrameBuf, FramesConfig};
use crate::base::Nanos;
use crate::engine::rate::TokenBucket;
use crate::ha::message::{Crossed, Part};

/// Frames that are being joined at most; for another one the oldest goes.
pub const JOINED: usize = 64;
/// Parts of one frame.
const PARTS: usize = 16;

/// What was counted of frames received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxCounters {
    /// Frames,
    pub frames: u64,
    /// those of them that came in parts,
    pub joined: u64,
    /// and those of which parts got lost.
    pub unjoined: u64,
    /// Frames, or parts of such, beyond what the peer may send in a second.
    pub refused: u64,
    /// Frames for which there was no room: the workers do not take them as fast as they come.
    pub no_room: u64,
    /// Frames that cannot be: of no port, longer than any port's, parts that do not fit together.
    pub invalid: u64,
}

/// A frame of which parts have come.
#[derive(Debug)]
struct Slot {
    id: u32,
    total: u16,
    have: usize,
    /// From and to, of what is here.
    parts: ArrayVec<(u16, u16), PARTS>,
    frame: Box<FrameBuf>,
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    budget: TokenBucket,
    ports: u16,
    /// The oldest first.
    slots: VecDeque<Slot>,
    ready: VecDeque<Box<FrameBuf>>,
    #[allow(clippy::vec_box, reason = "they go on in queues, as they are")]
    spare: Vec<Box<FrameBuf>>,
    counters: InboxCounters,
}

impl Inbox {
    /// Of this configuration; its buffers are made now.
    #[must_use]
    pub fn new(config: &FramesConfig, now: Nanos) -> Self {
        let buffers = config.waiting.max(1) + JOINED;
        Self {
            budget: TokenBucket::new(allowed(config.rate), now),
            ports: config.ports,
            slots: VecDeque::with_capacity(JOINED),
            ready: VecDeque::with_capacity(buffers),
            spare: (0..buffers).map(|_| FrameBuf::new(config.longest)).collect(),
            counters: InboxCounters::default(),
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &InboxCounters {
        &self.counters
    }

    /// Buffers in use: frames that are whole, and those that are being joined.
    #[must_use]
    pub fn held(&self) -> [usize; 2] {
        [self.ready.len(), self.slots.len()]
    }

    /// `[ha] redirect_rate` from now on.
    pub fn set_rate(&mut self, rate: u32) {
        self.budget.set_rate(allowed(rate));
    }

    /// The peer's process is another one: what it had begun to say is not ended.
    pub fn forget_parts(&mut self) {
        while let Some(slot) = self.slots.pop_front() {
            self.counters.unjoined += 1;
            self.spare.push(slot.frame);
        }
    }

    /// A frame, or a part of one, has come.
    pub fn take(&mut self, now: Nanos, crossed: &Crossed<'_>) {
        // One that comes in parts counts once, with the first that comes.
        let place = crossed
            .part
            .and_then(|part| self.slots.iter().position(|slot| slot.id == part.id));
        if place.is_none() && !self.budget.try_take(now) {
            self.counters.refused += 1;
            return;
        }
        if crossed.port.0 >= self.ports {
            self.counters.invalid += 1;
            return;
        }
        match crossed.part {
            None => self.take_whole(crossed),
            Some(part) => {
                if let Some(place) = place.or_else(|| self.begin(crossed, part)) {
                    self.take_part(place, crossed, part);
                }
            }
        }
    }

    /// The next frame for the workers.
    pub fn pop(&mut self) -> Option<Box<FrameBuf>> {
        self.ready.pop_front()
    }

    /// A buffer comes back.
    pub fn give_back(&mut self, buffer: Box<FrameBuf>) {
        self.spare.push(buffer);
    }

    /// A frame that [`Self::pop`] gave finds no room at its worker.
    pub fn lose(&mut self, buffer: Box<FrameBuf>) {
        self.counters.no_room += 1;
        self.spare.push(buffer);
    }

    fn take_whole(&mut self, crossed: &Crossed<'_>) {
        let Some(mut frame) = self.spare.pop() else {
            self.counters.no_room += 1;
            return;
        };
        if frame.fill(crossed.crossing, crossed.port, crossed.worker, crossed.bytes) {
            self.counters.frames += 1;
            self.ready.push_back(frame);
        } else {
            self.counters.invalid += 1;
            self.spare.push(frame);
        }
    }

    fn take_part(&mut self, place: usize, crossed: &Crossed<'_>, part: Part) {
        let slot = &mut self.slots[place];
        if !slot.put(crossed, part) {
            self.counters.invalid += 1;
            self.end(place);
        } else if slot.have == usize::from(slot.total) {
            if let Some(slot) = self.slots.remove(place) {
                self.counters.frames += 1;
                self.counters.joined += 1;
                self.ready.push_back(slot.frame);
            }
        }
    }

    /// Makes place for a frame of which this is the first part that came.
    fn begin(&mut self, crossed: &Crossed<'_>, part: Part) -> Option<usize> {
        if self.slots.len() == JOINED {
            self.counters.unjoined += 1;
            self.end(0);
        }
        let Some(mut frame) = self.spare.pop() else {
            self.counters.no_room += 1;
            return None;
        };
        (frame.crossing, frame.port, frame.worker) = (crossed.crossing, crossed.port, crossed.worker);
        self.slots.push_back(Slot {
            id: part.id,
            total: part.total,
            have: 0,
            parts: ArrayVec::new(),
            frame,
        });
        Some(self.slots.len() - 1)
    }

    fn end(&mut self, place: usize) {
        if let Some(slot) = self.slots.remove(place) {
            self.spare.push(slot.frame);
        }
    }
}

impl Slot {
    /// Puts a part in its place. `false`: it does not fit the others.
    fn put(&mut self, crossed: &Crossed<'_>, part: Part) -> bool {
        let same = self.total == part.total
            && (self.frame.crossing, self.frame.port, self.frame.worker)
                == (crossed.crossing, crossed.port, crossed.worker);
        let (from, len) = (usize::from(part.offset), crossed.bytes.len());
        let to = from + len;
        let apart = |(start, end): &(u16, u16)| to <= usize::from(*start) || from >= usize::from(*end);
        if !same || len == 0 || to > usize::from(self.total) || !self.parts.iter().all(apart) {
            return false;
        }
        let noted = self.parts.try_push((part.offset, to as u16)).is_ok();
        self.have += len;
        noted && self.frame.put(from, usize::from(self.total), crossed.bytes)
    }
}

/// What the peer offers, and what comes back of this node's own offers.
const fn allowed(rate: u32) -> u32 {
    rate.saturating_mul(2)
}
