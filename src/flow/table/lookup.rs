//! Batched lookup: one stage over all keys after the other.

use super::SessionTable;
use crate::base::SessionIx;
use crate::base::simd::prefetch;
use crate::flow::index::{self, Bucket, NIL, Probe};
use crate::flow::{FlowKey, HashKey, KeyRow, SecretHash, Session};

/// Keys that one batch takes at most; longer ones are worked off in several.
pub const MAX_BATCH: usize = 128;

/// Where a session may be: what a look at one bucket of the index says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate(u32);

impl Candidate {
    /// There is no session with this hash.
    pub const NONE: Self = Self(NIL);
    /// Not in this bucket, but perhaps further on: [`SessionTable::find`] knows. No table has such a slot, so that
    /// [`Lookup::confirm`] confirms it never.
    const FURTHER: Self = Self(NIL - 1);

    /// The session that may be the one; means something after [`Lookup::confirm`].
    #[inline(always)]
    #[must_use]
    pub const fn named(self) -> SessionIx {
        SessionIx(self.0)
    }
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

    /// [`HashKey::hash_row`].
    #[inline(always)]
    #[must_use]
    pub fn hash_row(&self, row: &KeyRow) -> u64 {
        self.hasher.hash_row(row)
    }

    /// The session that was named, if it has this key. Otherwise, unless it was [`Candidate::NONE`], the key may still be
    /// in the table: [`SessionTable::find`] knows. (A session that was removed since has no packet's key any more.)
    #[inline(always)]
    #[must_use]
    pub fn confirm(&self, key: &FlowKey, candidate: Candidate) -> Option<SessionIx> {
        let session = self.sessions.get(candidate.0 as usize)?;
        (session.key == *key).then_some(SessionIx(candidate.0))
    }
}

impl<H: HashKey> SessionTable<H> {
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

    /// [`Lookup::confirm`], with the session to be changed.
    #[inline(always)]
    #[must_use]
    pub fn confirm_mut(&mut self, key: &FlowKey, candidate: Candidate) -> Option<(SessionIx, &mut Session)> {
        let session = self.sessions.get_mut(candidate.0 as usize)?;
        (session.key == *key).then_some((SessionIx(candidate.0), session))
    }
}
