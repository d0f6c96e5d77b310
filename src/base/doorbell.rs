//! Sleeping without missing what others put into one's queues: the handshake between a worker that goes to sleep and those that
//! have something for it. No wake-up is lost: `tests/mesh_model.rs` checks this code in every order that the memory model allows.

use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A flag between threads, and the fence that orders it. (A parameter so that the model check can watch both.)
pub trait Flag: Default {
    /// Its value, relaxed.
    fn load(&self) -> bool;
    /// Sets it, relaxed.
    fn store(&self, value: bool);
    /// Sets it and returns what it was, relaxed.
    fn swap(&self, value: bool) -> bool;
    /// A sequentially consistent fence.
    fn fence();
}

impl Flag for AtomicBool {
    #[inline]
    fn load(&self) -> bool {
        self.load(Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, value: bool) {
        self.store(value, Ordering::Relaxed);
    }

    #[inline]
    fn swap(&self, value: bool) -> bool {
        self.swap(value, Ordering::Relaxed)
    }

    #[inline]
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Says whether a worker sleeps.
#[derive(Debug, Default)]
pub struct Doorbell<F: Flag = AtomicBool> {
    asleep: F,
}

impl<F: Flag> Doorbell<F> {
    /// The worker sleeps by `sleep`, unless its queues are not `empty`; others ring from now on.
    pub fn sleep<T>(&self, empty: impl FnOnce() -> bool, sleep: impl FnOnce() -> T) -> Option<T> {
        self.asleep.store(true);
        F::fence();
        let slept = empty().then(sleep);
        self.asleep.store(false);
        slept
    }

    /// Something was put into the worker's queues: `ring`, if it sleeps. Rung before it sleeps, the bell must end the sleep at once.
    #[inline]
    pub fn announce(&self, ring: impl FnOnce()) {
        // Either the worker sees what is there when it looks for the last time, or this one sees that it sleeps: `sleep` does the
        // same two things in the other order.
        F::fence();
        if self.asleep.load() {
            self.wake(ring);
        }
    }

    #[cold]
    fn wake(&self, ring: impl FnOnce()) {
        // Once is enough; the worker says so again when it sleeps again.
        if self.asleep.swap(false) {
            ring();
        }
    }
}
