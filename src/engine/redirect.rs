//! Flows that are not where the owner function says (ARCHITECTURE.md, invariant 3): the worker that the function names has an entry
//! which says where they are. Entries come and go with session-sync messages of the session's owner.
//!
//! Looked at for packets without a session alone, and only while there are entries.

use std::collections::HashMap;

use super::Engine;
use crate::base::WorkerId;
use crate::flow::{FlowKey, HashSeed};

#[derive(Clone, Copy)]
struct Entry {
    to: WorkerId,
    /// The flow's, by the owner function.
    hash: u32,
}

/// One worker's entries; bounded, and allocated at the start.
pub(super) struct Redirects {
    entries: HashMap<FlowKey, Entry, ahash::RandomState>,
    most: usize,
}

impl Redirects {
    /// Of a worker alone: none.
    pub(super) fn none() -> Self {
        Self::new(0, HashSeed([0; 4]))
    }

    /// Room for `most`.
    pub(super) fn new(most: usize, seed: HashSeed) -> Self {
        let [a, b, c, d] = seed.0;
        let hasher = ahash::RandomState::with_seeds(a, b, c, d);
        Self {
            // Twice the room: removals leave marks, and half of it free lets the map clear them without allocating.
            entries: HashMap::with_capacity_and_hasher(2 * most, hasher),
            most,
        }
    }

    /// Are there none?
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where a flow is, if not here.
    #[inline]
    pub(super) fn find(&self, key: &FlowKey) -> Option<WorkerId> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.get(key).map(|entry| entry.to)
    }

    /// Installs or moves an entry. False: there is no room.
    fn set(&mut self, key: FlowKey, hash: u32, to: WorkerId) -> bool {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            return false;
        }
        self.entries.insert(key, Entry { to, hash });
        true
    }

    /// Takes an entry out, if there is one.
    pub(super) fn remove(&mut self, key: &FlowKey) {
        self.entries.remove(key);
    }

    /// Entries at most, which is also as many sessions as a worker keeps that are not its own.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// Some entry for a flow with such a hash.
    pub(super) fn any(&self, goes: impl Fn(u32) -> bool) -> Option<(FlowKey, u32, WorkerId)> {
        let found = self.entries.iter().find(|(_, entry)| goes(entry.hash));
        found.map(|(key, entry)| (*key, entry.hash, entry.to))
    }
}

impl<B> Engine<B> {
    /// Flows that other workers own although the owner function names this one.
    #[must_use]
    pub fn redirects(&self) -> usize {
        self.redirects.entries.len()
    }

    /// A message about a flow's place.
    pub(super) fn redirect(&mut self, key: FlowKey, hash: u32, to: Option<WorkerId>) {
        match to {
            Some(to) if self.is_me(to) => self.entry_moved(&key, hash),
            Some(to) if !self.redirects.set(key, hash, to) => self.counters.redirects_full += 1,
            Some(_) => {}
            None => self.redirects.remove(&key),
        }
    }
}
