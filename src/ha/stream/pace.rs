//! How long an acknowledgement takes (RFC 6298, in its manner), and how many frames may be in flight: doubling until something is lost, then
//! half as many, and slowly more (RFC 5681, in its manner). A receiver that cannot follow drops, and so is waited for.

use super::ACK_DELAY;
use crate::base::Nanos;

/// Bounds of the timeout.
const RTO_MIN: Nanos = Nanos::from_millis(25);
const RTO_MAX: Nanos = Nanos::SECOND;
/// Before the first measurement.
const RTO_FIRST: Nanos = Nanos::from_millis(100);
/// Frames in flight: at first, and at least.
const WINDOW_FIRST: u32 = 64;
const WINDOW_MIN: u32 = 8;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    max: u32,
    window: u32,
    /// From here the window grows by one frame a round trip.
    threshold: u32,
    /// Frames acknowledged that made the window no larger yet.
    credit: u32,
    /// Losses of lower numbers are of the congestion that was answered already.
    recover: u64,
    smoothed: Option<Nanos>,
    varies: Nanos,
    backoff: u32,
}

impl Pace {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max: max.max(WINDOW_MIN),
            window: WINDOW_FIRST.min(max.max(WINDOW_MIN)),
            threshold: max,
            credit: 0,
            recover: 0,
            smoothed: None,
            varies: Nanos(0),
            backoff: 0,
        }
    }

    pub(super) const fn window(&self) -> u32 {
        self.window
    }

    pub(super) const fn round_trip(&self) -> Option<Nanos> {
        self.smoothed
    }

    pub(super) fn timeout(&self) -> Nanos {
        let base = self.smoothed.map_or(RTO_FIRST, |smoothed| {
            let margin = Nanos(4 * self.varies.0).max(ACK_DELAY);
            smoothed.plus(margin).max(RTO_MIN)
        });
        Nanos(base.0 << self.backoff).min(RTO_MAX)
    }

    /// Frames up to `highest`, the last of them sent `ago`, were acknowledged: `taken` of them taken in, and some of them lost or not.
    pub(super) fn acknowledged(&mut self, ago: Nanos, taken: u32, lost: bool, highest: u64, next: u64) {
        self.backoff = 0;
        self.measure(ago);
        if lost && highest > self.recover {
            self.recover = next;
            self.threshold = (self.window / 2).max(WINDOW_MIN);
            self.window = self.threshold;
            self.credit = 0;
        } else if !lost {
            self.grow(taken);
        }
    }

    /// Nothing was acknowledged in time: all over again, and slower.
    pub(super) fn timed_out(&mut self, next: u64) {
        self.backoff = (self.backoff + 1).min(5);
        if next > self.recover {
            self.threshold = (self.window / 2).max(WINDOW_MIN);
        }
        self.recover = next;
        self.window = WINDOW_MIN;
        self.credit = 0;
    }

    fn measure(&mut self, sample: Nanos) {
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.varies = Nanos(sample.0 / 2);
            return;
        };
        self.varies = Nanos((3 * self.varies.0 + smoothed.0.abs_diff(sample.0)) / 4);
        self.smoothed = Some(Nanos((7 * smoothed.0 + sample.0) / 8));
    }

    fn grow(&mut self, taken: u32) {
        if self.window < self.threshold {
            self.window = (self.window + taken).min(self.max);
            return;
        }
        self.credit += taken;
        if self.credit >= self.window {
            self.credit -= self.window;
            self.window = (self.window + 1).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_timeout_follows_the_round_trip_and_doubles_in_silence() {
        let mut pace = Pace::new(1024);
        assert_eq!(pace.timeout(), RTO_FIRST);
        for _ in 0..64 {
            pace.acknowledged(Nanos(40 * MS), 1, false, 1, 2);
        }
        assert_eq!(pace.round_trip(), Some(Nanos(40 * MS)));
        // The variation has gone, the delay of acknowledgements stays.
        assert!(
            pace.timeout() >= Nanos(50 * MS) && pace.timeout() < Nanos(51 * MS),
            "{:?}",
            pace.timeout()
        );
        pace.timed_out(9);
        assert!(pace.timeout() >= Nanos(100 * MS) && pace.timeout() < Nanos(102 * MS));
        for _ in 0..20 {
            pace.timed_out(9);
        }
        assert_eq!(pace.timeout(), RTO_MAX);
        pace.acknowledged(Nanos(40 * MS), 1, false, 1, 2);
        assert!(pace.timeout() < Nanos(51 * MS));
        for _ in 0..64 {
            pace.acknowledged(Nanos(1000), 1, false, 1, 2);
        }
        assert_eq!(pace.timeout(), RTO_MIN);
    }

    #[test]
    fn the_window_doubles_halves_and_grows_within_its_bounds() {
        let mut pace = Pace::new(1024);
        let windows = |pace: &mut Pace, lost, highest, next| {
            let taken = pace.window();
            pace.acknowledged(Nanos(MS), taken, lost, highest, next);
            pace.window()
        };
        assert_eq!(windows(&mut pace, false, 64, 65), 128);
        assert_eq!(
            (1..9).map(|_| windows(&mut pace, false, 64, 65)).last(),
            Some(1024)
        );
        assert_eq!(windows(&mut pace, true, 2000, 3000), 512);
        // The same congestion, told again.
        assert_eq!(windows(&mut pace, true, 2900, 3000), 512);
        assert_eq!(windows(&mut pace, false, 2901, 3000), 513);
        assert_eq!(windows(&mut pace, true, 3001, 4000), 256);
        pace.timed_out(4000);
        assert_eq!(pace.window(), WINDOW_MIN);
        for n in 0..100 {
            pace.acknowledged(Nanos(MS), 1, true, 5000 + n, 5001 + n);
        }
        assert_eq!(pace.window(), WINDOW_MIN);
    }
}
