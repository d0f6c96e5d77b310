//! The timer wheel: which sessions to look at when. A packet costs it nothing: a session stays where it was linked, and
//! only when its place comes up is the real deadline (last packet + timeout) worked out; if that is later, it is linked
//! again. A place holds the sessions of [`WIDTH`] ticks (0.27 s) in a doubly linked list of slot numbers that runs
//! through the cold part of the table, so linking and unlinking are a few writes and nothing is ever allocated.
//!
//! One wheel of 8192 places spans 36 minutes. A later deadline waits in the last place and is looked at again then: a
//! session of two hours costs four looks, which a hierarchy of wheels would spend on cascading as well.

use super::index::NIL;
use crate::base::slab::{Memory, MemoryError};
use crate::base::{Nanos, Slab, Tick};

/// log2 of the ticks that share a place.
const WIDTH_SHIFT: u32 = 4;
/// Ticks that share a place: 0.27 s, which with the tick itself bounds how late an idle session is seen.
const WIDTH: u32 = 1 << WIDTH_SHIFT;
/// Places of the wheel.
const PLACES: u32 = 8192;

/// What a session needs now and then: 32 bytes, apart from the two lines that packets touch.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub(super) struct Cold {
    /// When the session was made.
    pub(super) created: Nanos,
    /// The next session of the same place; of a free slot: the next free slot.
    pub(super) next: u32,
    /// The previous session of the same place.
    prev: u32,
    /// Odd: the slot is in use. One more with each insertion and each removal, so that stale ids are seen.
    pub(super) version: u32,
    /// The high half of the key's hash, so that a removal needs not look at the key.
    hash_high: u32,
    /// The low 16 bits of the key's hash.
    hash_low: u16,
    /// The wheel's place that the session is linked in.
    place: u16,
    /// Packet counters' carries by direction, 2^32 packets each.
    pub(super) carry: [u16; 2],
}

const _: () = assert!(size_of::<Cold>() == 32);

impl Cold {
    /// As much of the key's hash as the index uses.
    #[inline]
    pub(super) const fn hash(&self) -> u64 {
        ((self.hash_high as u64) << 32) | self.hash_low as u64
    }

    /// Begins a session's life in the slot.
    pub(super) const fn begin(&mut self, hash: u64, created: Nanos) {
        self.hash_high = (hash >> 32) as u32;
        self.hash_low = hash as u16;
        self.created = created;
        self.carry = [0; 2];
        self.version = self.version.wrapping_add(1);
    }

    /// Does the slot hold a session?
    #[inline]
    pub(super) const fn is_live(&self) -> bool {
        self.version & 1 == 1
    }
}

/// Lists of slots by the time to look at them.
pub(super) struct Wheel {
    heads: Slab<u32>,
    /// The first tick of the next place to look at; a multiple of [`WIDTH`].
    cursor: Tick,
}

impl Wheel {
    pub(super) fn new(memory: &impl Memory) -> Result<Self, MemoryError> {
        let mut heads = memory.slab::<u32>(PLACES as usize)?;
        heads.fill(NIL);
        Ok(Self {
            heads,
            cursor: Tick(0),
        })
    }

    /// Bytes of the lists' heads.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.heads)
    }

    /// The place of a deadline: of the tick it falls in, or the last one for now.
    fn place(&self, deadline: Tick) -> u16 {
        let ahead = deadline.distance(self.cursor).max(0) as u32 >> WIDTH_SHIFT;
        let place = (self.cursor.0 >> WIDTH_SHIFT).wrapping_add(ahead.min(PLACES - 1));
        (place & (PLACES - 1)) as u16
    }

    /// Links a slot that is in no list.
    pub(super) fn link(&mut self, cold: &mut [Cold], slot: u32, deadline: Tick) {
        let place = self.place(deadline);
        let head = &mut self.heads[place as usize];
        let next = std::mem::replace(head, slot);
        let entry = &mut cold[slot as usize];
        entry.place = place;
        entry.next = next;
        entry.prev = NIL;
        if next != NIL {
            cold[next as usize].prev = slot;
        }
    }

    /// Takes a slot out of its list.
    pub(super) fn unlink(&mut self, cold: &mut [Cold], slot: u32) {
        let Cold {
            next, prev, place, ..
        } = cold[slot as usize];
        if prev == NIL {
            self.heads[place as usize] = next;
        } else {
            cold[prev as usize].next = next;
        }
        if next != NIL {
            cold[next as usize].prev = prev;
        }
    }

    /// Moves a linked slot to an earlier place if its deadline asks for it.
    pub(super) fn hasten(&mut self, cold: &mut [Cold], slot: u32, deadline: Tick) {
        let first = self.cursor.0 >> WIDTH_SHIFT;
        let ahead = |place: u16| u32::from(place).wrapping_sub(first) & (PLACES - 1);
        if ahead(self.place(deadline)) < ahead(cold[slot as usize].place) {
            self.unlink(cold, slot);
            self.link(cold, slot, deadline);
        }
    }

    /// Starts anew at `now`; all lists are empty.
    pub(super) fn restart(&mut self, now: Tick) {
        self.cursor = Tick(now.0 & !(WIDTH - 1));
    }

    /// Goes on to the next place that is due and not empty, at most `budget` places. `Some`: the first slot of its list.
    /// `None`: none is due, or the budget is spent.
    pub(super) fn due(&mut self, now: Tick, budget: &mut u32) -> Option<u32> {
        // After a pause longer than a turn, one turn looks at everything.
        let turn = PLACES << WIDTH_SHIFT;
        if now.distance(self.cursor) > turn as i32 {
            self.cursor = Tick(now.0.wrapping_sub(turn) & !(WIDTH - 1));
        }
        while *budget > 0 && now.distance(self.cursor) >= WIDTH as i32 {
            let head = self.heads[((self.cursor.0 >> WIDTH_SHIFT) & (PLACES - 1)) as usize];
            if head != NIL {
                return Some(head);
            }
            self.cursor = self.cursor.plus(WIDTH);
            *budget -= 1;
        }
        None
    }

    /// How long the next place has been due, in ticks, the one that made it due included; 0: it is not due yet.
    pub(super) fn lag(&self, now: Tick) -> u32 {
        now.distance(self.cursor.plus(WIDTH - 1)).max(0) as u32
    }
}
