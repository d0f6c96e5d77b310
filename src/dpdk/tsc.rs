//! The time stamp counter: a clock that costs a few nanoseconds to read, on every worker alike (invariant TSC).

use super::{Eal, sys};
use crate::base::Nanos;

/// Reads the counter.
#[inline(always)]
#[must_use]
pub fn read() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC has no preconditions in user mode (Linux leaves CR4.TSD clear unless prctl(2) says otherwise).
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: reads the generic timer's counter.
    unsafe {
        sys::hx_tsc()
    }
}

/// Turns counter readings into time since the clock was made, by one multiplication.
#[derive(Clone, Copy, Debug)]
pub struct TscClock {
    start: u64,
    hz: u64,
    /// Nanoseconds an increment, as a binary fraction of [`TscClock::SHIFT`] bits.
    factor: u64,
}

impl TscClock {
    /// 32 bits of fraction: an error of at most 0.25 ns a second at 1 GHz and more, and a product that fits 128 bits.
    const SHIFT: u32 = 32;

    /// A clock that starts at zero now. Copies of it, on all threads, tell the same time.
    #[must_use]
    pub fn new(_eal: &Eal) -> Self {
        // SAFETY: the EAL has measured the frequency when it started; this reads it.
        Self::with_hz(unsafe { sys::rte_get_tsc_hz() })
    }

    fn with_hz(hz: u64) -> Self {
        let hz = hz.max(1);
        let factor = ((1_000_000_000_u128 << Self::SHIFT) + u128::from(hz) / 2) / u128::from(hz);
        Self {
            start: read(),
            hz,
            factor: u64::try_from(factor).unwrap_or(u64::MAX),
        }
    }

    /// Counter increments a second.
    #[must_use]
    pub const fn hz(&self) -> u64 {
        self.hz
    }

    /// The time now.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.at(read())
    }

    /// The time at a counter reading; zero for one before the start.
    #[inline]
    #[must_use]
    pub const fn at(&self, tsc: u64) -> Nanos {
        let elapsed = tsc.saturating_sub(self.start) as u128;
        Nanos(((elapsed * self.factor as u128) >> Self::SHIFT) as u64)
    }

    /// Counter increments that take as long as `duration`: for waiting without a clock's arithmetic.
    #[must_use]
    pub const fn cycles(&self, duration: Nanos) -> u64 {
        (duration.0 as u128 * self.hz as u128 / 1_000_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_become_nanoseconds() {
        for hz in [
            1_000_000_000,
            2_000_000_000,
            2_794_748_000,
            3_600_000_001,
            24_000_000,
        ] {
            let clock = TscClock::with_hz(hz);
            let at = |ticks: u64| clock.at(clock.start + ticks).0;
            assert_eq!(at(0), 0);
            // A year at this rate, and no nanosecond in a second wrong.
            for seconds in [1, 60, 3600, 365 * 86_400] {
                let error = at(hz * seconds).abs_diff(seconds * 1_000_000_000);
                assert!(error <= seconds, "{hz} Hz: {error} ns off after {seconds} s");
            }
            assert_eq!(clock.at(clock.start.saturating_sub(5)).0, 0);
            assert_eq!(clock.cycles(Nanos::SECOND), hz);
        }
    }

    #[test]
    fn the_clock_runs() {
        let clock = TscClock::with_hz(1_000_000_000);
        let first = clock.now();
        assert!((0..1_000_000).any(|_| clock.now() > first));
    }
}
