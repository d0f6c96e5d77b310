//! The one lock of the runtime: for what control threads share among themselves. No worker has one in reach.
#![allow(clippy::disallowed_types, reason = "control threads alone take it")]

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// A mutex for control threads. One that a panicking thread held is as good as before: what it guards is replaced
/// whole or not at all.
#[derive(Debug, Default)]
pub struct ControlLock<T>(Mutex<T>);

impl<T> ControlLock<T> {
    /// Guards `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits for the value.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, unless another thread has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
