//! Time as the engine is given it: it never reads a clock itself.

use std::time::Duration;

/// Nanoseconds since the node started (monotonic; a `u64` lasts 584 years).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);
    /// One millisecond.
    pub const MILLISECOND: Self = Self(1_000_000);

    /// A whole number of seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// A whole number of milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// `self` + `delta`, stopping at the end of time.
    #[must_use]
    pub const fn plus(self, delta: Self) -> Self {
        Self(self.0.saturating_add(delta.0))
    }

    /// The coarse clock's reading at this time.
    #[inline]
    #[must_use]
    pub const fn tick(self) -> Tick {
        Tick((self.0 >> Tick::SHIFT) as u32)
    }

    /// As a standard duration.
    #[must_use]
    pub const fn to_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl From<Duration> for Nanos {
    fn from(d: Duration) -> Self {
        Self(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The coarse clock of sessions and timers: 2^24 ns (16.8 ms) a tick, wrapping after 2.2 years, which is why ticks
/// are only ever compared by wrapping difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Tick(pub u32);

impl Tick {
    /// log2 of a tick's nanoseconds.
    pub const SHIFT: u32 = 24;
    /// A tick's nanoseconds.
    pub const NANOS: u64 = 1 << Self::SHIFT;

    /// Ticks from `earlier` to `self`, as a signed distance (negative: `earlier` is later).
    #[inline]
    #[must_use]
    pub const fn distance(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// The tick `ticks` later.
    #[inline]
    #[must_use]
    pub const fn plus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// Ticks that a duration takes, rounded up, at most what half the clock's range can tell.
    #[must_use]
    pub const fn count(duration: Nanos) -> u32 {
        let ticks = duration.0.div_ceil(Self::NANOS);
        if ticks > i32::MAX as u64 {
            i32::MAX as u32
        } else {
            ticks as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_compare_across_the_wrap() {
        let before = Tick(u32::MAX - 1);
        let after = before.plus(5);
        assert_eq!(after.0, 3);
        assert_eq!(after.distance(before), 5);
        assert_eq!(before.distance(after), -5);
    }

    #[test]
    fn a_count_never_ends_early() {
        assert_eq!(Tick::count(Nanos(1)), 1);
        assert_eq!(Tick::count(Nanos(Tick::NANOS)), 1);
        assert_eq!(Tick::count(Nanos(Tick::NANOS + 1)), 2);
        assert_eq!(Tick::count(Nanos(u64::MAX)), i32::MAX as u32);
    }
}
