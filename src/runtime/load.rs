//! How busy a worker is, and when it has drivers clean up.

use crate::base::Nanos;

/// Seconds that the longest loop gap is kept for.
pub(super) const GAP_SECONDS: usize = 10;

/// When drivers are next told to put the buffers of sent packets back. Some do so only when they send again; after the
/// last packet of a transfer nothing would. The steps double, since a receiver may sit on a packet for a while.
#[derive(Clone, Copy)]
pub(super) struct Reap {
    pub(super) at: Nanos,
    step: Nanos,
}

impl Default for Reap {
    fn default() -> Self {
        Self {
            at: Nanos(u64::MAX),
            step: Nanos(0),
        }
    }
}

impl Reap {
    const FIRST: Nanos = Nanos::MILLISECOND;
    const LAST: Nanos = Nanos::from_secs(60);

    #[inline]
    pub(super) const fn after(now: Nanos) -> Self {
        Self {
            at: now.plus(Self::FIRST),
            step: Self::FIRST,
        }
    }

    pub(super) fn next(&mut self, now: Nanos) {
        self.step = self.step.plus(self.step);
        self.at = if self.step > Self::LAST {
            Nanos(u64::MAX)
        } else {
            now.plus(self.step)
        };
    }
}

/// How busy a worker is, from the one TSC reading of each turn.
pub(super) struct Load {
    hz: u64,
    pub(super) turns: u64,
    last_turn: u64,
    packets_of_last_turn: u64,
    window_start: u64,
    busy: u64,
    packets: u64,
    pub(super) busy_ppm: u64,
    pub(super) millicycles_per_packet: u64,
    /// The longest gaps of the last seconds, in cycles, newest first.
    pub(super) gaps: [u64; GAP_SECONDS],
}

impl Load {
    pub(super) const fn new(hz: u64, tsc: u64) -> Self {
        Self {
            hz,
            turns: 0,
            last_turn: tsc,
            packets_of_last_turn: 0,
            window_start: tsc,
            busy: 0,
            packets: 0,
            busy_ppm: 0,
            millicycles_per_packet: 0,
            gaps: [0; GAP_SECONDS],
        }
    }

    /// A turn begins.
    #[inline]
    pub(super) fn turn(&mut self, tsc: u64) {
        self.turns += 1;
        let gap = tsc.saturating_sub(self.last_turn);
        self.last_turn = tsc;
        self.gaps[0] = self.gaps[0].max(gap);
        if self.packets_of_last_turn > 0 {
            self.busy += gap;
            self.packets += self.packets_of_last_turn;
            self.packets_of_last_turn = 0;
        }
        if tsc.saturating_sub(self.window_start) >= self.hz {
            self.roll(tsc);
        }
    }

    #[inline]
    pub(super) fn worked(&mut self, packets: usize) {
        self.packets_of_last_turn = packets as u64;
    }

    /// A deliberate sleep ended at `tsc`: what follows counts towards the gap again.
    pub(super) fn slept(&mut self, tsc: u64) {
        self.last_turn = tsc;
    }

    /// The reading `time` after the reading `tsc`.
    pub(super) fn after(&self, tsc: u64, time: Nanos) -> u64 {
        let cycles = u128::from(time.0) * u128::from(self.hz) / 1_000_000_000;
        tsc.saturating_add(u64::try_from(cycles).unwrap_or(u64::MAX))
    }

    #[cold]
    pub(super) fn roll(&mut self, tsc: u64) {
        let window = tsc - self.window_start;
        self.busy_ppm = self.busy.saturating_mul(1_000_000) / window.max(1);
        self.millicycles_per_packet = self
            .busy
            .saturating_mul(1000)
            .checked_div(self.packets)
            .unwrap_or(0);
        self.window_start = tsc;
        self.busy = 0;
        self.packets = 0;
        self.gaps.rotate_right(1);
        self.gaps[0] = 0;
    }

    pub(super) fn longest_gap_ns(&self) -> u64 {
        let cycles = self.gaps.iter().copied().max().unwrap_or(0);
        let ns = u128::from(cycles) * 1_000_000_000 / u128::from(self.hz.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}
