//! A worker thread's registration with the EAL.

use std::marker::PhantomData;

use super::{Eal, Error, error::Result, sys};

/// The calling thread is known to the EAL while this lives: it has an lcore id, and so a cache of its own in every
/// mempool. Pin the thread first (core_affinity), then register. Stays on its thread.
pub struct Registered {
    lcore: u32,
    /// Not `Send`: it is the thread's, and ends there.
    not_send: PhantomData<*const ()>,
    _eal: Eal,
}

impl Registered {
    /// Registers the calling thread.
    ///
    /// # Errors
    /// When all lcore ids are taken.
    pub fn new(eal: &Eal) -> Result<Self> {
        // SAFETY: the EAL runs as long as `eal` lives, and this guard keeps a clone of it.
        if unsafe { sys::rte_thread_register() } != 0 {
            return Err(Error::Eal(
                "the EAL has no lcore id left for another worker (RTE_MAX_LCORE): use fewer workers".into(),
            ));
        }
        // SAFETY: reads a thread-local.
        let lcore = unsafe { sys::hx_lcore() };
        Ok(Self {
            lcore,
            not_send: PhantomData,
            _eal: eal.clone(),
        })
    }

    /// The thread's lcore id.
    #[must_use]
    pub fn lcore(&self) -> u32 {
        let _ = self.not_send;
        self.lcore
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: registered by `new` on this thread (the guard is not `Send`). Unregistering leaves the lcore's mempool
        // caches as they are, with their buffers counted as available, for whoever gets the id next.
        unsafe { sys::rte_thread_unregister() };
    }
}
