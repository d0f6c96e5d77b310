//! Fragments on hold: the pieces of IP datagrams (RFC 791, section 3.2; RFC 8200, section 4.5) wait here until all of a datagram
//! are there, so that it is judged as one packet and an overlap never reaches the far end.
//!
//! Everything is bounded and allocated at the start: datagrams, pieces of one datagram, pieces in all. When there is no room
//! the oldest datagram goes, which is the one that is least likely ever to be complete.

use std::hash::{BuildHasher, Hasher};

use super::HashSeed;
use crate::base::{Nanos, WorkerId};

/// The most pieces of one datagram: 65,535 bytes in packets of 576, the smallest that every IPv4 host takes (RFC 791, section
/// 3.1), are 119.
pub const MAX_PIECES: usize = 128;

/// What tells datagrams apart (RFC 791, section 3.2; RFC 8200, section 4.5), and where on the node they belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// The identification field.
    pub id: u32,
    /// As in [`super::FlowKey::domain`].
    pub domain: u32,
    /// The side of the node that its pieces come in by.
    pub side: u16,
    /// IP protocol; 0 for IPv6, where only the first fragment's counts.
    pub protocol: u8,
}

/// Which bytes of its datagram a piece has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first, counted from the end of the IP header, or of IPv6's fragment header.
    pub start: u16,
    /// Behind the last; more than `start`.
    pub end: u16,
    /// It is not the datagram's last piece.
    pub more: bool,
}

/// Where the pieces of a datagram are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Course {
    /// Here.
    #[default]
    Here,
    /// At another worker.
    Worker(WorkerId),
    /// At the other node of an HA pair; true: its session is known to be that one's.
    Peer(bool),
}

/// Pieces that go elsewhere do so for this long, or until all have: then the identification may be another datagram's.
const COURSE_TIME: Nanos = Nanos(500_000_000);

/// Why a piece is not held, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Two pieces of its datagram have bytes in common (RFC 5722; RFC 8200, section 4.5).
    Overlap,
    /// Its datagram's pieces contradict each other about where it ends.
    End,
    /// Its datagram came in more than [`MAX_PIECES`] pieces.
    Excess,
    /// There was no room, and its datagram was the oldest.
    Evicted,
    /// Its datagram was not complete in time.
    TimedOut,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered<P> {
    /// It is held.
    Held,
    /// It is held, and it was the last that was missing: the datagram waits to be taken.
    Complete(Complete),
    /// It is held already, byte for byte.
    Duplicate(P),
    /// Its datagram is put together elsewhere.
    Passes(P, Course),
    /// It and its datagram are refused, and all pieces that still come until the datagram's time is over.
    Refused(P, Gone),
}

/// A datagram that is complete: to be looked at, then taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Complete(u32);

/// A datagram of which some pieces are here.
#[derive(Debug, PartialEq, Eq)]
pub struct Partial(u32);

/// No datagram, no slot.
const NONE: u32 = u32::MAX;

/// A datagram of which some pieces are here, or that is refused.
#[derive(Clone, Copy, Debug)]
struct Datagram {
    key: FragmentKey,
    /// When its first piece came.
    born: Nanos,
    /// The next in its bucket, or the next free one.
    chain: u32,
    older: u32,
    newer: u32,
    /// Its pieces' slots, in order of arrival ...
    first_come: u32,
    last_come: u32,
    /// ... and by what they hold.
    lowest: u32,
    highest: u32,
    pieces: u32,
    /// Bytes in all pieces.
    bytes: u32,
    /// Where it ends, once its last piece is here.
    total: Option<u16>,
    /// It is refused, and holds nothing.
    refused: Option<Gone>,
    /// If not [`Course::Here`] it holds nothing either; `bytes` are those that have passed.
    course: Course,
}

impl Datagram {
    const EMPTY: Self = Self {
        key: FragmentKey {
            source: [0; 16],
            destination: [0; 16],
            id: 0,
            domain: 0,
            side: 0,
            protocol: 0,
        },
        born: Nanos(0),
        chain: NONE,
        older: NONE,
        newer: NONE,
        first_come: NONE,
        last_come: NONE,
        lowest: NONE,
        highest: NONE,
        pieces: 0,
        bytes: 0,
        total: None,
        refused: None,
        course: Course::Here,
    };
}

/// Room for one piece.
struct Slot<P> {
    piece: Option<P>,
    extent: Extent,
    /// The next that came, or the next free slot.
    next: u32,
    lower: u32,
    higher: u32,
}

/// The pieces of all incomplete datagrams of a worker.
pub struct Fragments<P> {
    datagrams: Box<[Datagram]>,
    slots: Box<[Slot<P>]>,
    /// The first datagram of each bucket.
    buckets: Box<[u32]>,
    hash: ahash::RandomState,
    free_datagram: u32,
    free_slot: u32,
    oldest: u32,
    newest: u32,
    /// The oldest that [`Fragments::next_ripe`] has not come by yet.
    unripe: u32,
    held: u32,
}

impl<P> Fragments<P> {
    /// Room for so many datagrams at once (at least 1), with so many pieces together (at least [`MAX_PIECES`], so that one
    /// datagram always has room).
    #[must_use]
    pub fn new(datagrams: u32, pieces: u32, seed: HashSeed) -> Self {
        let datagrams = datagrams.clamp(1, 1 << 24);
        let pieces = pieces.clamp(MAX_PIECES as u32, 1 << 24);
        let [a, b, c, d] = seed.0;
        let mut this = Self {
            datagrams: vec![Datagram::EMPTY; datagrams as usize].into(),
            slots: std::iter::repeat_with(|| Slot {
                piece: None,
                extent: Extent::default(),
                next: NONE,
                lower: NONE,
                higher: NONE,
            })
            .take(pieces as usize)
            .collect(),
            buckets: vec![NONE; datagrams.next_power_of_two() as usize * 2].into(),
            hash: ahash::RandomState::with_seeds(a, b, c, d),
            free_datagram: 0,
            free_slot: 0,
            oldest: NONE,
            newest: NONE,
            unripe: NONE,
            held: 0,
        };
        for (place, datagram) in (1..datagrams).zip(this.datagrams.iter_mut()) {
            datagram.chain = place;
        }
        for (place, slot) in (1..pieces).zip(this.slots.iter_mut()) {
            slot.next = place;
        }
        this
    }

    /// Pieces that are held.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Takes a piece of the datagram `key`, or says why not. `same`: have two pieces of one extent the same bytes? What has to
    /// go for it goes to `gone`, in order of arrival.
    pub fn offer(
        &mut self,
        now: Nanos,
        key: &FragmentKey,
        extent: Extent,
        piece: P,
        same: impl Fn(&P, &P) -> bool,
        mut gone: impl FnMut(P, Gone),
    ) -> Offered<P> {
        let ix = match self.find(key) {
            Some(ix) => ix,
            None => self.open(now, key, &mut gone),
        };
        let datagram = &self.datagrams[ix as usize];
        if let Some(why) = datagram.refused {
            return Offered::Refused(piece, why);
        }
        if datagram.course != Course::Here {
            if now.since(datagram.born) < COURSE_TIME {
                return Offered::Passes(piece, self.passes(ix, extent));
            }
            self.end(ix, |_| {});
            return self.offer(now, key, extent, piece, same, gone);
        }
        let lower = self.lower_neighbour(ix, extent.start);
        let higher = match lower {
            NONE => datagram.lowest,
            lower => self.slots[lower as usize].higher,
        };
        if let Some(there) = self.slots.get(higher as usize) {
            if there.extent == extent && there.piece.as_ref().is_some_and(|there| same(there, &piece)) {
                return Offered::Duplicate(piece);
            }
        }
        if let Some(why) = self.contradiction(ix, extent, lower, higher) {
            self.empty(ix, |piece| gone(piece, why));
            self.datagrams[ix as usize].refused = Some(why);
            return Offered::Refused(piece, why);
        }
        let Some(slot) = self.room(ix, &mut gone) else {
            return Offered::Refused(piece, Gone::Evicted);
        };
        self.insert(ix, slot, extent, piece, lower, higher);
        let datagram = &self.datagrams[ix as usize];
        if datagram
            .total
            .is_some_and(|total| u32::from(total) == datagram.bytes)
        {
            return Offered::Complete(Complete(ix));
        }
        Offered::Held
    }

    /// A piece goes where the others have gone.
    fn passes(&mut self, ix: u32, extent: Extent) -> Course {
        let datagram = &mut self.datagrams[ix as usize];
        datagram.bytes += u32::from(extent.end - extent.start);
        if !extent.more {
            datagram.total = Some(extent.end);
        }
        let course = datagram.course;
        if datagram
            .total
            .is_some_and(|total| u32::from(total) <= datagram.bytes)
        {
            self.end(ix, |_| {});
        }
        course
    }

    /// The pieces of a datagram that are here.
    #[must_use]
    pub fn partial(&self, key: &FragmentKey) -> Option<Partial> {
        self.find(key).map(Partial)
    }

    /// The next datagram that is not complete although its first piece came `age` ago; each is said once.
    pub fn next_ripe(&mut self, now: Nanos, age: Nanos) -> Option<Partial> {
        loop {
            let ix = self.unripe;
            let datagram = self.datagrams.get(ix as usize)?;
            if now.since(datagram.born) < age {
                return None;
            }
            self.unripe = datagram.newer;
            if datagram.pieces > 0 {
                return Some(Partial(ix));
            }
        }
    }

    /// The piece that a datagram begins with, if it is here.
    #[must_use]
    pub fn first_of(&self, partial: &Partial) -> Option<&P> {
        let lowest = self.datagrams[partial.0 as usize].lowest;
        let slot = self
            .slots
            .get(lowest as usize)
            .filter(|slot| slot.extent.start == 0);
        slot?.piece.as_ref()
    }

    /// What is here of a datagram, in order of its bytes.
    pub fn pieces_of(&self, partial: &Partial) -> impl Iterator<Item = &P> {
        self.slots_of(partial.0).filter_map(|slot| slot.piece.as_ref())
    }

    /// From now on the pieces of a datagram go elsewhere: those that are here go to `taken`, in order of their bytes.
    pub fn redirect(&mut self, partial: Partial, course: Course, mut taken: impl FnMut(P)) {
        let Partial(ix) = partial;
        let bytes = self.datagrams[ix as usize].bytes;
        let mut slot = self.datagrams[ix as usize].lowest;
        while let Some(held) = self.slots.get_mut(slot as usize) {
            if let Some(piece) = held.piece.take() {
                taken(piece);
            }
            slot = held.higher;
        }
        self.empty(ix, |_| {});
        let datagram = &mut self.datagrams[ix as usize];
        (datagram.bytes, datagram.course) = (bytes, course);
    }

    /// The pieces of a datagram that go elsewhere do so no more.
    pub fn reclaim(&mut self, key: &FragmentKey) {
        if let Some(ix) = self
            .find(key)
            .filter(|ix| self.datagrams[*ix as usize].pieces == 0)
        {
            self.end(ix, |_| {});
        }
    }

    /// Bytes of a complete datagram, all pieces together.
    #[must_use]
    pub fn total(&self, complete: &Complete) -> u16 {
        self.datagrams[complete.0 as usize].total.unwrap_or(0)
    }

    /// How many pieces a complete datagram has.
    #[must_use]
    pub fn count(&self, complete: &Complete) -> u32 {
        self.datagrams[complete.0 as usize].pieces
    }

    /// The piece that a complete datagram begins with.
    #[must_use]
    pub fn first(&self, complete: &Complete) -> Option<&P> {
        let lowest = self.datagrams[complete.0 as usize].lowest;
        self.slots.get(lowest as usize)?.piece.as_ref()
    }

    /// A complete datagram's pieces, in order of their bytes.
    pub fn pieces(&self, complete: &Complete) -> impl Iterator<Item = (Extent, &P)> + Clone {
        self.slots_of(complete.0)
            .filter_map(|slot| Some((slot.extent, slot.piece.as_ref()?)))
    }

    fn slots_of(&self, ix: u32) -> impl Iterator<Item = &Slot<P>> + Clone {
        let lowest = self.slots.get(self.datagrams[ix as usize].lowest as usize);
        std::iter::successors(lowest, |slot| self.slots.get(slot.higher as usize))
    }

    /// Takes a complete datagram out: its pieces go to `taken` in order of arrival.
    pub fn take(&mut self, complete: Complete, taken: impl FnMut(P)) {
        self.empty(complete.0, taken);
        self.close(complete.0);
    }

    /// Ends datagrams whose first piece came `timeout` ago or earlier, looking at no more than about `budget` pieces. True:
    /// there are more of them.
    pub fn expire(&mut self, now: Nanos, timeout: Nanos, budget: u32, mut gone: impl FnMut(P, Gone)) -> bool {
        let mut left = budget;
        while let Some(oldest) = self.datagrams.get(self.oldest as usize) {
            if now.since(oldest.born) < timeout {
                return false;
            }
            if left == 0 {
                return true;
            }
            left = left.saturating_sub(oldest.pieces.max(1));
            self.end(self.oldest, |piece| gone(piece, Gone::TimedOut));
        }
        false
    }

    /// Ends all datagrams.
    pub fn clear(&mut self, mut gone: impl FnMut(P)) {
        while self.oldest != NONE {
            self.end(self.oldest, &mut gone);
        }
    }

    fn bucket(&self, key: &FragmentKey) -> usize {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u128(u128::from_ne_bytes(key.source));
        hasher.write_u128(u128::from_ne_bytes(key.destination));
        hasher.write_u64(u64::from(key.id) | (u64::from(key.domain) << 32));
        hasher.write_u64(u64::from(key.side) | (u64::from(key.protocol) << 16));
        hasher.finish() as usize & (self.buckets.len() - 1)
    }

    fn find(&self, key: &FragmentKey) -> Option<u32> {
        let mut ix = self.buckets[self.bucket(key)];
        loop {
            let datagram = self.datagrams.get(ix as usize)?;
            if datagram.key == *key {
                return Some(ix);
            }
            ix = datagram.chain;
        }
    }

    /// A new datagram; for want of room the oldest ends.
    fn open(&mut self, now: Nanos, key: &FragmentKey, gone: &mut impl FnMut(P, Gone)) -> u32 {
        if self.free_datagram == NONE {
            self.end(self.oldest, |piece| gone(piece, Gone::Evicted));
        }
        let ix = self.free_datagram;
        let bucket = self.bucket(key);
        let datagram = &mut self.datagrams[ix as usize];
        self.free_datagram = datagram.chain;
        *datagram = Datagram {
            key: *key,
            born: now,
            chain: self.buckets[bucket],
            older: self.newest,
            ..Datagram::EMPTY
        };
        self.buckets[bucket] = ix;
        match self.datagrams.get_mut(self.newest as usize) {
            Some(newest) => newest.newer = ix,
            None => self.oldest = ix,
        }
        self.newest = ix;
        if self.unripe == NONE {
            self.unripe = ix;
        }
        ix
    }

    /// The slot of the piece with the greatest start below `start`. Pieces mostly come in order, forwards or backwards.
    fn lower_neighbour(&self, ix: u32, start: u16) -> u32 {
        let datagram = &self.datagrams[ix as usize];
        let begins_before = |slot: u32| {
            self.slots
                .get(slot as usize)
                .is_none_or(|slot| slot.extent.start < start)
        };
        if !begins_before(datagram.lowest) {
            return NONE;
        }
        let mut lower = datagram.highest;
        while !begins_before(lower) {
            lower = self.slots[lower as usize].lower;
        }
        lower
    }

    /// What is wrong with a piece between these neighbours.
    fn contradiction(&self, ix: u32, extent: Extent, lower: u32, higher: u32) -> Option<Gone> {
        let datagram = &self.datagrams[ix as usize];
        let of = |slot: u32| self.slots.get(slot as usize).map(|slot| slot.extent);
        if of(lower).is_some_and(|lower| lower.end > extent.start)
            || of(higher).is_some_and(|higher| higher.start < extent.end)
        {
            return Some(Gone::Overlap);
        }
        let beyond_end = datagram.total.is_some_and(|total| extent.end > total);
        let second_end = !extent.more && (datagram.total.is_some() || higher != NONE);
        if beyond_end || second_end {
            return Some(Gone::End);
        }
        (datagram.pieces as usize >= MAX_PIECES).then_some(Gone::Excess)
    }

    /// A free slot; for want of one the oldest datagrams end, but not `ix`. Every datagram ends once, so this costs each piece
    /// a constant time.
    fn room(&mut self, ix: u32, gone: &mut impl FnMut(P, Gone)) -> Option<u32> {
        while self.free_slot == NONE {
            let oldest = if self.oldest == ix {
                self.datagrams[ix as usize].newer
            } else {
                self.oldest
            };
            if oldest == NONE {
                return None;
            }
            self.end(oldest, |piece| gone(piece, Gone::Evicted));
        }
        let slot = self.free_slot;
        self.free_slot = self.slots[slot as usize].next;
        Some(slot)
    }

    fn insert(&mut self, ix: u32, slot: u32, extent: Extent, piece: P, lower: u32, higher: u32) {
        self.slots[slot as usize] = Slot {
            piece: Some(piece),
            extent,
            next: NONE,
            lower,
            higher,
        };
        let datagram = &mut self.datagrams[ix as usize];
        match self.slots.get_mut(datagram.last_come as usize) {
            Some(last) => last.next = slot,
            None => datagram.first_come = slot,
        }
        datagram.last_come = slot;
        match self.slots.get_mut(lower as usize) {
            Some(lower) => lower.higher = slot,
            None => datagram.lowest = slot,
        }
        match self.slots.get_mut(higher as usize) {
            Some(higher) => higher.lower = slot,
            None => datagram.highest = slot,
        }
        datagram.pieces += 1;
        datagram.bytes += u32::from(extent.end - extent.start);
        if !extent.more {
            datagram.total = Some(extent.end);
        }
        self.held += 1;
    }

    fn end(&mut self, ix: u32, gone: impl FnMut(P)) {
        self.empty(ix, gone);
        self.close(ix);
    }

    /// Takes all pieces out of a datagram.
    fn empty(&mut self, ix: u32, mut gone: impl FnMut(P)) {
        let datagram = &mut self.datagrams[ix as usize];
        let mut slot = datagram.first_come;
        self.held -= datagram.pieces;
        datagram.pieces = 0;
        datagram.bytes = 0;
        (datagram.first_come, datagram.last_come) = (NONE, NONE);
        (datagram.lowest, datagram.highest) = (NONE, NONE);
        while let Some(held) = self.slots.get_mut(slot as usize) {
            if let Some(piece) = held.piece.take() {
                gone(piece);
            }
            let next = std::mem::replace(&mut held.next, self.free_slot);
            self.free_slot = slot;
            slot = next;
        }
    }

    /// Forgets a datagram that is empty.
    fn close(&mut self, ix: u32) {
        let Datagram {
            key,
            chain,
            older,
            newer,
            ..
        } = self.datagrams[ix as usize];
        let bucket = self.bucket(&key);
        let mut before = self.buckets[bucket];
        if before == ix {
            self.buckets[bucket] = chain;
        } else {
            while let Some(datagram) = self.datagrams.get_mut(before as usize) {
                if datagram.chain == ix {
                    datagram.chain = chain;
                    break;
                }
                before = datagram.chain;
            }
        }
        match self.datagrams.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.datagrams.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        if self.unripe == ix {
            self.unripe = newer;
        }
        self.datagrams[ix as usize].chain = self.free_datagram;
        self.free_datagram = ix;
    }
}
