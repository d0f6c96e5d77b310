//! Flows that are not where the owner function says (ARCHITECTURE.md, invariant 3): the worker that the function names has an entry
//! which says where they are. Entries come and go with session-sync messages of the session's owner.
//!
//! Looked at for packets without a session alone, and only while there are entries.

use std::collections::HashMap;

use super::Engine;
use crate::base::WorkerId;
use crate::flow::{FlowKey, HashSeed};

/// One worker's entries; bounded, and allocated at the start.
pub(super) struct Redirects {
    entries: HashMap<FlowKey, WorkerId, ahash::RandomState>,
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

    /// Where a flow is, if not here.
    #[inline]
    pub(super) fn find(&self, key: &FlowKey) -> Option<WorkerId> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.get(key).copied()
    }

    /// Installs or moves an entry. False: there is no room.
    fn set(&mut self, key: FlowKey, to: WorkerId) -> bool {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            return false;
        }
        self.entries.insert(key, to);
        true
    }
}

impl<B> Engine<B> {
    /// Flows that other workers own although the owner function names this one.
    #[must_use]
    pub fn redirects(&self) -> usize {
        self.redirects.entries.len()
    }

    /// A message about a flow's place.
    pub(super) fn redirect(&mut self, key: FlowKey, to: Option<WorkerId>) {
        match to {
            Some(to) if !self.redirects.set(key, to) => self.counters.redirects_full += 1,
            Some(_) => {}
            None => {
                self.redirects.entries.remove(&key);
            }
        }
    }
}
