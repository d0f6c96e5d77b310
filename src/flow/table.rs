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

use super::evict::{EvictionClass, Queues};
use super::hash::{HashKey, HashSeed, SecretHash};
use super::index::{self, Bucket, NIL, Probe};
use super::wheel::{Cold, Wheel};
use super::{Direction, FlowKey, Session, SessionState, StateTimeouts, Translation};
use crate::base::simd::prefetch;
use crate::base::slab::{Memory, MemoryError};
use crate::base::{Nanos, PortId, SessionIx, Slab, Tick};
use crate::packet::LinkHeader;

/// Keys that one batch takes at most; longer ones are worked off in several.
pub const MAX_BATCH: usize = 128;
/// Sessions that one look at the wheel fetches together.
const EXPIRE_BATCH: usize = 32;

/// Where a session may be: what a look at one bucket of the index says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate(u32);

impl Candidate {
    /// There is no session with this hash.
    pub const NONE: Self = Self(NIL);
    /// Not in this bucket, but perhaps further on: [`SessionTable::find`] knows. No table has such a slot, so that
    /// [`Lookup::confirm`] confirms it never.
    const FURTHER: Self = Self(NIL - 1);
}

/// A table as a batch of lookups reads it, one stage over all keys after the other: hash all, look at all buckets, look at
/// all sessions.
pub struct Lookup<'a, H = SecretHash> {
    hasher: &'a H,
    index: &'a [Bucket],
    sessions: &'a [Session],
}

impl<H> Clone for Lookup<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for Lookup<'_, H> {}

impl<H: HashKey> Lookup<'_, H> {
    /// The hash of a key.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// Asks for the bucket of a hash.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.index[index::home(hash, self.index.len())]);
    }

    /// Looks at the bucket of a hash, and asks for both cache lines of the session that it names.
    #[inline(always)]
    #[must_use]
    pub fn probe(&self, hash: u64) -> Candidate {
        match index::probe(self.index, hash) {
            Probe::Candidate(slot) => {
                if let Some(session) = self.sessions.get(slot as usize) {
                    prefetch(&session.key);
                    prefetch(&session.bytes);
                }
                Candidate(slot)
            }
            // Rare: under 1 % of the keys at full load.
            Probe::Further => Candidate::FURTHER,
            Probe::Miss => Candidate::NONE,
        }
    }

    /// [`HashKey::hash_ipv4`].
    #[inline(always)]
    #[must_use]
    pub fn hash_ipv4(&self, key: &FlowKey) -> u64 {
        self.hasher.hash_ipv4(key)
    }

    /// The session that was named, if it has this key. Otherwise, unless it was [`Candidate::NONE`], the key may still be
    /// in the table: [`SessionTable::find`] knows. Good only while no session was removed since [`Lookup::probe`].
    #[inline(always)]
    #[must_use]
    pub fn confirm(&self, key: &FlowKey, candidate: Candidate) -> Option<SessionIx> {
        let session = self.sessions.get(candidate.0 as usize)?;
        (session.key == *key).then_some(SessionIx(candidate.0))
    }
}

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
}

/// What becomes of a session that idled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It ends.
    End,
    /// It is looked at again after so many ticks.
    Later(u32),
}

/// What one call of [`SessionTable::expire`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Sessions that ended.
    pub expired: u32,
    /// Sessions that were looked at and live on.
    pub rearmed: u32,
    /// How far the wheel is behind after the call; 0: nothing that is due is left.
    pub lag: Nanos,
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

    /// The table as a batch of lookups reads it: take it once a batch.
    #[inline(always)]
    #[must_use]
    pub fn lookup(&self) -> Lookup<'_, H> {
        Lookup {
            hasher: &self.hasher,
            index: &self.index,
            sessions: &self.sessions,
        }
    }

    /// Hashes keys and prefetches their buckets: the first of the two steps of a batched lookup. The slices have equal
    /// length.
    #[inline]
    pub fn hash_batch(&self, keys: &[FlowKey], hashes: &mut [u64]) {
        let lookup = self.lookup();
        for (key, hash) in keys.iter().zip(hashes) {
            *hash = lookup.hash(key);
            lookup.prefetch(*hash);
        }
    }

    /// The hash of one key.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// Finds the sessions of keys, each with its hash from [`SessionTable::hash_batch`]: the second step. Both lines of
    /// every session found are in the cache or on their way. The slices have equal length.
    #[inline]
    pub fn find_batch(&self, keys: &[FlowKey], hashes: &[u64], found: &mut [Option<SessionIx>]) {
        let lookup = self.lookup();
        let mut candidates = [Candidate::NONE; MAX_BATCH];
        let places = keys.chunks(MAX_BATCH).zip(hashes.chunks(MAX_BATCH));
        for ((keys, hashes), found) in places.zip(found.chunks_mut(MAX_BATCH)) {
            for (hash, candidate) in hashes.iter().zip(&mut candidates) {
                *candidate = lookup.probe(*hash);
            }
            for (((key, hash), candidate), found) in keys.iter().zip(hashes).zip(&candidates).zip(found) {
                *found = lookup.confirm(key, *candidate);
                if found.is_none() && *candidate != Candidate::NONE {
                    *found = self.find(key, *hash);
                }
            }
        }
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
        Some(entry(ix.0, &self.sessions[ix.index()], translation, cold))
    }

    /// The session of this name; `None`: it ended.
    #[must_use]
    pub fn resolve(&self, id: SessionId) -> Option<SessionIx> {
        let cold = self.cold.get(id.ix.index())?;
        (cold.is_live() && cold.version == id.version).then_some(id.ix)
    }

    /// [`Lookup::confirm`], with the session to be changed.
    #[inline(always)]
    #[must_use]
    pub fn confirm_mut(&mut self, key: &FlowKey, candidate: Candidate) -> Option<(SessionIx, &mut Session)> {
        let session = self.sessions.get_mut(candidate.0 as usize)?;
        (session.key == *key).then_some((SessionIx(candidate.0), session))
    }

    /// Counts a packet of `bytes` bytes (of IP) that `sender`'s end sent at `now`; the session idles from now on.
    #[inline(always)]
    pub fn touch(&mut self, ix: SessionIx, sender: Direction, now: Tick, bytes: u32) {
        if self.sessions[ix.index()].touch(sender, now, bytes) {
            self.carry(ix, sender);
        }
    }

    /// Takes the carry of a packet counter that wrapped.
    #[cold]
    pub fn carry(&mut self, ix: SessionIx, sender: Direction) {
        let carry = &mut self.cold[ix.index()].carry[sender.index()];
        *carry = carry.saturating_add(1);
    }

    /// Makes a session one whose ends are reset when it idles out, or one whose ends are not.
    pub fn set_resets(&mut self, ix: SessionIx, resets: bool) {
        let session = &mut self.sessions[ix.index()];
        if resets && !session.resets() {
            session.flags |= Session::RESETS;
            self.links[ix.index()] = Default::default();
        } else if !resets {
            session.flags &= !Session::RESETS;
        }
    }

    /// Keeps the link header of a packet that `sender`'s end sent, with the IP header at `l3_offset`.
    #[inline(never)]
    pub fn note_link(&mut self, ix: SessionIx, sender: Direction, frame: &[u8], l3_offset: usize) {
        self.links[ix.index()][sender.index()] = LinkHeader::of(frame, l3_offset);
    }

    /// The link headers of the last packets of a session with [`Session::RESETS`], by [`Direction`].
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
        if session.resets() {
            self.links[slot as usize] = Default::default();
        }
        self.queues.begin(slot, session.ingress, session.state);
        self.wheel.link(&mut self.cold, slot, deadline(&session, timeout));
        Ok(SessionIx(slot))
    }

    /// Ends a session. False: the slot was free already.
    pub fn remove(&mut self, ix: SessionIx) -> bool {
        if self.entry(ix).is_none() {
            return false;
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
        let cold = &mut self.cold[ix.index()];
        cold.version = cold.version.wrapping_add(1);
        self.give_slot(ix.0);
        true
    }

    /// Ends the sessions that idled longer than `timeout` (ticks, asked for now, so that an applied policy's count) allows;
    /// each is shown to `judge` first, which may put it off. Looks at most at `budget` sessions and empty places of the wheel. No session ends
    /// early; one ends at most 0.3 s late if the lag of the calls is 0. Until then its packets find it, and it idles anew.
    pub fn expire(
        &mut self,
        now: Tick,
        budget: u32,
        timeout: impl Fn(&Session) -> u32,
        mut judge: impl FnMut(Entry<'_>) -> Due,
    ) -> Expiry {
        let mut result = Expiry::default();
        if self.len == 0 {
            return result;
        }
        let mut budget = budget;
        let mut due = [NIL; EXPIRE_BATCH];
        while let Some(head) = self.wheel.due(now, &mut budget) {
            for slot in self.gather(head, budget, &mut due) {
                budget -= 1;
                let session = &self.sessions[*slot as usize];
                let mut deadline = deadline(session, timeout(session));
                if now.distance(deadline) >= 0 {
                    let translation = self.translations[*slot as usize];
                    match judge(entry(*slot, session, translation, &self.cold[*slot as usize])) {
                        Due::End => {
                            self.remove(SessionIx(*slot));
                            result.expired += 1;
                            continue;
                        }
                        Due::Later(ticks) => deadline = now.plus(ticks.max(1)),
                    }
                }
                self.wheel.unlink(&mut self.cold, *slot);
                self.wheel.link(&mut self.cold, *slot, deadline);
                result.rearmed += 1;
            }
        }
        if self.len != 0 {
            result.lag = Nanos(u64::from(self.wheel.lag(now)) * Tick::NANOS);
        }
        result
    }

    /// Collects the first slots of a list and fetches what looking at them will touch.
    fn gather<'a>(&self, head: u32, budget: u32, due: &'a mut [u32; EXPIRE_BATCH]) -> &'a [u32] {
        let (index, sessions, cold) = (&*self.index, &*self.sessions, &*self.cold);
        let mut slot = head;
        let mut n = 0;
        while slot != NIL && n < EXPIRE_BATCH.min(budget as usize) {
            let entry = &cold[slot as usize];
            prefetch(&sessions[slot as usize].bytes);
            prefetch(&index[index::home(entry.hash(), index.len())]);
            prefetch(&self.queues.links[slot as usize]);
            due[n] = slot;
            n += 1;
            slot = entry.next;
        }
        &due[..n]
    }

    /// Shows the sessions of `budget` slots from slot `from` on. `Some`: where to go on; `None`: that was the last. A
    /// session that lives all the while is shown exactly once.
    pub fn scan(&self, from: u32, budget: u32, mut show: impl FnMut(Entry<'_>)) -> Option<u32> {
        let (slots, next) = self.page(from, budget);
        for slot in slots {
            if let Some(entry) = self.entry(SessionIx(slot)) {
                show(entry);
            }
        }
        next
    }

    /// Ends the sessions among `budget` slots from slot `from` on that `keep` does not want. `Some`: where to go on.
    pub fn retain(&mut self, from: u32, budget: u32, mut keep: impl FnMut(Entry<'_>) -> bool) -> Option<u32> {
        let (slots, next) = self.page(from, budget);
        for slot in slots {
            if self.entry(SessionIx(slot)).is_some_and(|entry| !keep(entry)) {
                self.remove(SessionIx(slot));
            }
        }
        next
    }

    /// After timeouts got shorter: links the sessions among `budget` slots from slot `from` on to where their new
    /// deadlines ask for. `Some`: where to go on. (Longer timeouts need no such walk.) `timeout` may mark the session, but
    /// leaves its ports alone.
    pub fn rearm(
        &mut self,
        from: u32,
        budget: u32,
        mut timeout: impl FnMut(&mut Session) -> u32,
    ) -> Option<u32> {
        let (slots, next) = self.page(from, budget);
        for slot in slots {
            if self.cold[slot as usize].is_live() {
                let session = &mut self.sessions[slot as usize];
                let timeout = timeout(session);
                let deadline = deadline(session, timeout);
                self.wheel.hasten(&mut self.cold, slot, deadline);
            }
        }
        next
    }

    fn page(&self, from: u32, budget: u32) -> (std::ops::Range<u32>, Option<u32>) {
        let end = from.saturating_add(budget).min(self.fresh);
        (from.min(end)..end, (end < self.fresh).then_some(end))
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

fn entry<'a>(slot: u32, session: &'a Session, translation: Translation, cold: &Cold) -> Entry<'a> {
    let by_direction: [u64; 2] =
        std::array::from_fn(|d| (u64::from(cold.carry[d]) << 32) | u64::from(session.packets[d]));
    let opener = session.opener.index();
    Entry {
        id: SessionId {
            ix: SessionIx(slot),
            version: cold.version,
        },
        session,
        translation,
        created: cold.created,
        packets: [by_direction[opener], by_direction[1 - opener]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::HeapMemory;

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
        table.sessions[0].packets = [u32::MAX - 1, 5];
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
