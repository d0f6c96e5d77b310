//! The session table: fixed capacity, owned by one worker, no locks, no allocation after [`SessionTable::new`].
//!
//! Five arrays: the index (64-byte buckets, see `index.rs`), the sessions (two cache lines each, [`Session`]), a cold part of
//! 32 bytes a session (timer links, age, version; see `wheel.rs`), 40 bytes of link headers that only sessions with
//! `reset_on_timeout` touch, 8 bytes of links between those that may be evicted (see `evict.rs`), and 16 bytes that only proxied
//! ones use ([`Translation`]). At most 237 bytes a session all in.
//!
//! How the engine uses it, each burst:
//!
//! 1. [`Lookup::hash`] and [`Lookup::prefetch`] for all keys: their buckets are asked for;
//! 2. [`Lookup::probe`] for all: both lines of each candidate are asked for;
//! 3. for each packet in order: [`SessionTable::confirm_mut`], the tracker, [`Session::touch`], and on a transition
//!    [`SessionTable::set_state`]; on a miss [`SessionTable::find`] or [`SessionTable::insert`].
//!
//! What step 2 found is good until a session is made or removed: then the key is found again (two packets of one new flow make
//! one session). [`SessionTable::hash_batch`] and [`SessionTable::find_batch`] do the first two steps for keys that are there
//! already: benches and tests.

mod expire;
pub mod journal;
mod lookup;
mod moved;
mod walk;

pub use expire::{Due, Expiry};
pub use journal::{Journal, News, Standing, TakenIn};
pub use lookup::{Candidate, Lookup, MAX_BATCH};
pub use moved::Moved;

use super::evict::{EvictionClass, Queues};
use super::hash::{HashKey, HashSeed, SecretHash};
use super::index::{self, Bucket, NIL};
use super::wheel::{Cold, Wheel};
use super::{Direction, FlowKey, Session, SessionState, StateTimeouts, Translation};
use crate::base::simd::prefetch;
use crate::base::slab::{Memory, MemoryError};
use crate::base::{Nanos, PortId, SessionIx, Slab, Tick};
use crate::packet::LinkHeader;

/// One worker's sessions.
pub struct SessionTable<H = SecretHash> {
    hasher: H,
    index: Slab<Bucket>,
    sessions: Slab<Session>,
    cold: Slab<Cold>,
    /// By [`Direction`]; kept for sessions with [`Session::RESETS`].
    links: Slab<[LinkHeader; 2]>,
    /// Of sessions with [`Session::PROXIED`]; of others some that was there.
    translations: Slab<Translation>,
    wheel: Wheel,
    queues: Queues,
    /// The first of the free slots that were used before.
    free: u32,
    /// Slots from here on were never used.
    fresh: u32,
    len: u32,
    by_state: [u32; SessionState::COUNT],
    inserted: u64,
    removed: u64,
    /// Of a node that is one of a pair.
    journal: Option<Box<Journal>>,
}

/// A session's name for the outside world: a slot and its version, so that one that ended is told from its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The slot.
    pub ix: SessionIx,
    /// The slot's version.
    pub version: u32,
}

/// Why a table cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Sessions that a table cannot have: none, or more than slot numbers can tell.
    #[error("a session table of {0} sessions: must be from 1 to {max}", max = SessionTable::<SecretHash>::MAX_CAPACITY)]
    Capacity(u32),
    /// The memory is not there.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The table holds as many sessions as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session table is full")]
pub struct TableFull;

/// One session with what the table alone knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub id: SessionId,
    /// The session.
    pub session: &'a Session,
    /// [`SessionTable::translation`]
    pub translation: Translation,
    /// When it was made.
    pub created: Nanos,
    /// Packets, `[opener's, replier's]`.
    pub packets: [u64; 2],
    /// It is the other node's, of an HA pair.
    pub is_peers: bool,
}

impl SessionTable<SecretHash> {
    /// Sessions of the largest table.
    pub const MAX_CAPACITY: u32 = 1 << 28;

    /// An empty table for `capacity` sessions; all its memory is taken now.
    ///
    /// # Errors
    /// A capacity that no table can have, or memory that is not there.
    pub fn new(capacity: u32, memory: &impl Memory, seed: HashSeed) -> Result<Self, TableError> {
        Self::with_hash(capacity, memory, SecretHash::new(seed))
    }

    /// The same for a node of `ports` ports, whose sessions are told apart when some have to be evicted.
    ///
    /// # Errors
    /// As [`SessionTable::new`].
    pub fn for_ports(
        capacity: u32,
        ports: usize,
        memory: &impl Memory,
        seed: HashSeed,
    ) -> Result<Self, TableError> {
        Self::make(capacity, ports, memory, SecretHash::new(seed))
    }
}

impl<H: HashKey> SessionTable<H> {
    /// Like [`SessionTable::new`], with a hash of the caller's: for tests that need colliding keys.
    ///
    /// # Errors
    /// As [`SessionTable::new`].
    pub fn with_hash(capacity: u32, memory: &impl Memory, hasher: H) -> Result<Self, TableError> {
        Self::make(capacity, 1, memory, hasher)
    }

    fn make(capacity: u32, ports: usize, memory: &impl Memory, hasher: H) -> Result<Self, TableError> {
        if capacity == 0 || capacity > SessionTable::<SecretHash>::MAX_CAPACITY {
            return Err(TableError::Capacity(capacity));
        }
        Ok(Self {
            hasher,
            index: memory.slab(index::buckets_for(capacity))?,
            sessions: memory.slab(capacity as usize)?,
            cold: memory.slab(capacity as usize)?,
            links: memory.slab(capacity as usize)?,
            translations: memory.slab(capacity as usize)?,
            wheel: Wheel::new(memory)?,
            queues: Queues::new(capacity, ports, memory)?,
            free: NIL,
            fresh: 0,
            len: 0,
            by_state: [0; SessionState::COUNT],
            inserted: 0,
            removed: 0,
            journal: None,
        })
    }

    /// Sessions in it.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Is there none?
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sessions that it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.sessions.len() as u32
    }

    /// Sessions in a state.
    #[must_use]
    pub const fn count(&self, state: SessionState) -> u32 {
        self.by_state[state.index()]
    }

    /// TCP sessions whose handshake is not complete.
    #[must_use]
    pub fn half_open(&self) -> u32 {
        SessionState::ALL
            .iter()
            .filter(|s| s.is_half_open())
            .map(|s| self.count(*s))
            .sum()
    }

    /// Sessions that packets which came in by `port` have opened.
    #[must_use]
    pub fn opened_by(&self, port: PortId) -> u32 {
        self.queues.opened_by(port)
    }

    /// Sessions that could be evicted for this reason.
    #[must_use]
    pub const fn evictable(&self, class: EvictionClass) -> u32 {
        self.queues.count(class)
    }

    /// The session to evict for one that has no room: of the first class that has any the one that is longest in it, of the
    /// port with the most of the class among the `eligible` ones.
    #[must_use]
    pub fn victim(&self, eligible: impl Fn(PortId) -> bool) -> Option<SessionIx> {
        let oldest = |class: &EvictionClass| self.queues.oldest(*class, &eligible);
        let slot = EvictionClass::ALL.iter().find_map(oldest)?;
        Some(SessionIx(slot))
    }

    /// Sessions ever inserted: moves with every insertion.
    #[inline]
    #[must_use]
    pub const fn inserted_total(&self) -> u64 {
        self.inserted
    }

    /// Sessions ever removed: moves with every removal, for whatever reason.
    #[inline]
    #[must_use]
    pub const fn removed_total(&self) -> u64 {
        self.removed
    }

    /// Bytes of all its arrays.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.index)
            + size_of_val(&*self.sessions)
            + size_of_val(&*self.cold)
            + size_of_val(&*self.links)
            + size_of_val(&*self.translations)
            + self.wheel.memory_bytes()
            + self.queues.memory_bytes()
    }

    /// The hash of one key.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// Finds one session.
    #[inline(never)]
    #[must_use]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<SessionIx> {
        let sessions: &[Session] = &self.sessions;
        index::find(&self.index, hash, |slot| sessions[slot as usize].key == *key).map(SessionIx)
    }

    /// A session that a lookup found. Of a free slot: some session that was there.
    ///
    /// # Panics
    /// If the index is beyond the table's capacity; a lookup never gives such.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, ix: SessionIx) -> &Session {
        &self.sessions[ix.index()]
    }

    /// A session that a lookup found, to be changed.
    ///
    /// # Panics
    /// As [`SessionTable::get`].
    #[inline(always)]
    #[must_use]
    pub fn get_mut(&mut self, ix: SessionIx) -> &mut Session {
        &mut self.sessions[ix.index()]
    }

    /// How the numbers of a session with [`Session::PROXIED`] differ; of another one it means nothing.
    ///
    /// # Panics
    /// As [`SessionTable::get`].
    #[inline]
    #[must_use]
    pub fn translation(&self, ix: SessionIx) -> &Translation {
        &self.translations[ix.index()]
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// As [`SessionTable::get`].
    #[inline]
    #[must_use]
    pub fn translation_mut(&mut self, ix: SessionIx) -> &mut Translation {
        &mut self.translations[ix.index()]
    }

    /// A session with what the table alone knows of it; `None`: the slot is free.
    #[must_use]
    pub fn entry(&self, ix: SessionIx) -> Option<Entry<'_>> {
        let cold = self.cold.get(ix.index()).filter(|c| c.is_live())?;
        let translation = self.translations[ix.index()];
        let is_peers = self.is_peers(ix);
        Some(entry(
            ix.0,
            &self.sessions[ix.index()],
            translation,
            cold,
            is_peers,
        ))
    }

    /// The session of this name; `None`: it ended.
    #[must_use]
    pub fn resolve(&self, id: SessionId) -> Option<SessionIx> {
        let cold = self.cold.get(id.ix.index())?;
        (cold.is_live() && cold.version == id.version).then_some(id.ix)
    }

    /// Counts a packet of `bytes` bytes (of IP) that `sender`'s end sent at `now`; the session idles from now on.
    #[inline(always)]
    pub fn touch(&mut self, ix: SessionIx, sender: Direction, now: Tick, bytes: u32) {
        if self.sessions[ix.index()].touch(sender, now, bytes) {
            self.look(ix, sender);
        }
    }

    /// Takes the carry of a packet counter, and has the other node of a pair hear how far the session has come. To be called when
    /// [`Session::touch`] says so.
    #[cold]
    pub fn look(&mut self, ix: SessionIx, sender: Direction) {
        if self.sessions[ix.index()].packets[sender.index()].carry() {
            let carry = &mut self.cold[ix.index()].carry[sender.index()];
            *carry = carry.saturating_add(1);
        }
        if let Some(journal) = &mut self.journal {
            journal.dirty(ix.0);
        }
    }

    /// Makes a session one whose ends are reset when it idles out, or one whose ends are not.
    pub fn set_resets(&mut self, ix: SessionIx, resets: bool) {
        let session = &mut self.sessions[ix.index()];
        if resets && !session.resets() {
            session.flags |= Session::RESETS;
            if !session.is_proxied() {
                self.links[ix.index()] = Default::default();
            }
        } else if !resets {
            session.flags &= !Session::RESETS;
        }
    }

    /// Keeps the link header of a packet that `sender`'s end sent, with the IP header at `l3_offset`.
    #[inline(never)]
    pub fn note_link(&mut self, ix: SessionIx, sender: Direction, frame: &[u8], l3_offset: usize) {
        self.links[ix.index()][sender.index()] = LinkHeader::of(frame, l3_offset);
    }

    /// The link headers of the last packets of a session with [`Session::RESETS`], by [`Direction`]; of one with
    /// [`Session::PROXIED`] alone, of the client's first one.
    #[must_use]
    pub fn links(&self, ix: SessionIx) -> &[LinkHeader; 2] {
        &self.links[ix.index()]
    }

    /// Has a session's timer looked at by the end of `timeout` ticks from its last packet on.
    pub fn hasten(&mut self, ix: SessionIx, timeout: u32) {
        let deadline = deadline(&self.sessions[ix.index()], timeout);
        self.wheel.hasten(&mut self.cold, ix.0, deadline);
    }

    /// How long a session has idled beyond `timeout` ticks; `None`: it has not.
    #[must_use]
    pub fn overdue(&self, ix: SessionIx, now: Tick, timeout: u32) -> Option<u32> {
        let late = now.distance(deadline(&self.sessions[ix.index()], timeout));
        u32::try_from(late).ok()
    }

    /// Moves a session to a state in which it may idle for `timeout` ticks ([`StateTimeouts::ticks`]) from its last
    /// packet on.
    pub fn set_state(&mut self, ix: SessionIx, state: SessionState, timeout: u32) {
        debug_assert!(
            self.cold[ix.index()].is_live(),
            "a state for a session that ended"
        );
        let session = &mut self.sessions[ix.index()];
        self.by_state[session.state.index()] -= 1;
        self.by_state[state.index()] += 1;
        self.queues.change(ix.0, session.ingress, session.state, state);
        session.state = state;
        let deadline = deadline(session, timeout);
        self.wheel.hasten(&mut self.cold, ix.0, deadline);
        if let Some(journal) = &mut self.journal {
            journal.dirty(ix.0);
        }
    }

    /// Adds a session whose key has this hash and is not in the table. It may idle for `timeout` ticks from `now` on.
    ///
    /// # Errors
    /// When the table holds its capacity already; nothing changed.
    pub fn insert(
        &mut self,
        mut session: Session,
        hash: u64,
        now: Nanos,
        timeout: u32,
    ) -> Result<SessionIx, TableFull> {
        debug_assert!(self.find(&session.key, hash).is_none(), "the key is in the table");
        let slot = self.take_slot().ok_or(TableFull)?;
        if !index::insert(&mut self.index, hash, slot) {
            self.give_slot(slot);
            return Err(TableFull);
        }
        if self.len == 0 {
            self.wheel.restart(now.tick());
        }
        session.last_seen = now.tick();
        self.by_state[session.state.index()] += 1;
        self.len += 1;
        self.inserted += 1;
        self.sessions[slot as usize] = session;
        self.cold[slot as usize].begin(hash, now);
        if session.resets() || session.is_proxied() {
            self.links[slot as usize] = Default::default();
        }
        self.queues.begin(slot, session.ingress, session.state);
        self.wheel.link(&mut self.cold, slot, deadline(&session, timeout));
        if let Some(journal) = &mut self.journal {
            journal.begin(slot, now);
        }
        Ok(SessionIx(slot))
    }

    /// Ends a session. False: the slot was free already.
    pub fn remove(&mut self, ix: SessionIx) -> bool {
        if self.entry(ix).is_none() {
            return false;
        }
        if let Some(journal) = &mut self.journal {
            journal.end(ix.0, &self.sessions[ix.index()].key);
        }
        let hash = self.cold[ix.index()].hash();
        let was_there = index::remove(&mut self.index, hash, ix.0);
        debug_assert!(was_there, "a live session is in the index");
        self.wheel.unlink(&mut self.cold, ix.0);
        let Session { state, ingress, .. } = self.sessions[ix.index()];
        self.queues.end(ix.0, ingress, state);
        self.by_state[state.index()] -= 1;
        self.len -= 1;
        self.removed += 1;
        // What a lookup of the same batch named is confirmed no more.
        self.sessions[ix.index()].key.forget();
        let cold = &mut self.cold[ix.index()];
        cold.version = cold.version.wrapping_add(1);
        self.give_slot(ix.0);
        true
    }

    /// A free slot: the one freed last, whose lines are the likeliest to be cached.
    fn take_slot(&mut self) -> Option<u32> {
        if self.free != NIL {
            let slot = self.free;
            self.free = self.cold[slot as usize].next;
            // The next one may have been freed long ago: fetch what its insertion will write.
            if let (Some(session), Some(cold), Some(link)) = (
                self.sessions.get(self.free as usize),
                self.cold.get(self.free as usize),
                self.queues.links.get(self.free as usize),
            ) {
                prefetch(&session.key);
                prefetch(&session.bytes);
                prefetch(cold);
                prefetch(link);
            }
            Some(slot)
        } else if self.fresh < self.capacity() {
            self.fresh += 1;
            Some(self.fresh - 1)
        } else {
            None
        }
    }

    fn give_slot(&mut self, slot: u32) {
        self.cold[slot as usize].next = self.free;
        self.free = slot;
    }
}

/// The first tick at which a session has idled for all of `timeout` ticks: one more than their sum, because its last
/// packet came somewhere within the tick `last_seen`.
#[inline]
fn deadline(session: &Session, timeout: u32) -> Tick {
    session.last_seen.plus(timeout.min(StateTimeouts::MAX_TICKS) + 1)
}

fn entry<'a>(
    slot: u32,
    session: &'a Session,
    translation: Translation,
    cold: &Cold,
    is_peers: bool,
) -> Entry<'a> {
    Entry {
        id: SessionId {
            ix: SessionIx(slot),
            version: cold.version,
        },
        session,
        translation,
        created: cold.created,
        packets: packets(session, cold.carry),
        is_peers,
    }
}

/// `[opener's, replier's]`, of counters and what they carried, by direction.
fn packets(session: &Session, carry: [u16; 2]) -> [u64; 2] {
    let by_direction: [u64; 2] =
        std::array::from_fn(|d| (u64::from(carry[d]) << 32) | u64::from(session.packets[d].get()));
    let opener = session.opener.index();
    [by_direction[opener], by_direction[1 - opener]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::HeapMemory;
    use crate::flow::index::Probe;
    use crate::flow::session::PacketCount;

    fn flow(n: u32) -> FlowKey {
        FlowKey {
            domain: n,
            ..FlowKey::default()
        }
    }

    #[test]
    fn packet_counters_carry_beyond_32_bits() {
        let mut table = SessionTable::new(1, &HeapMemory, HashSeed([0; 4])).unwrap();
        let session = Session::new(flow(1), Direction::HighToLow, SessionState::UdpNew);
        let ix = table
            .insert(session, table.hash(&flow(1)), Nanos(0), 100)
            .unwrap();
        table.sessions[0].packets = [u32::MAX - 1, 5].map(PacketCount::new);
        for _ in 0..3 {
            table.touch(ix, Direction::LowToHigh, Tick(0), 1000);
        }
        assert_eq!(table.entry(ix).unwrap().packets, [5, (1 << 32) + 1]);
        assert_eq!(table.get(ix).bytes(), [0, 3000]);
        // The next session of the slot begins at zero.
        assert!(table.remove(ix));
        let next = table
            .insert(session, table.hash(&flow(1)), Nanos(0), 100)
            .unwrap();
        assert_eq!((next, table.entry(next).unwrap().packets), (ix, [0, 0]));
    }

    #[test]
    fn a_full_table_answers_nearly_all_lookups_from_one_bucket() {
        let n = 100_000;
        let mut table = SessionTable::new(n, &HeapMemory, HashSeed([1, 2, 3, 4])).unwrap();
        for i in 0..n {
            let session = Session::new(flow(i), Direction::LowToHigh, SessionState::UdpNew);
            table
                .insert(session, table.hash(&flow(i)), Nanos(0), 100)
                .unwrap();
        }
        let at_home = |i: &u32| {
            let found = index::probe(&table.index, table.hash(&flow(*i)));
            matches!(found, Probe::Candidate(slot) if table.sessions[slot as usize].key == flow(*i))
        };
        let hits = (0..n).filter(at_home).count();
        assert!(hits as f64 > 0.99 * f64::from(n), "{hits} of {n}");
        let unknown = |i: &u32| matches!(index::probe(&table.index, table.hash(&flow(*i))), Probe::Miss);
        let misses = (n..2 * n).filter(unknown).count();
        assert!(misses as f64 > 0.97 * f64::from(n), "{misses} of {n}");
    }
}
