//! A token bucket that is given the time.

use crate::base::Nanos;

/// At most `rate` events a second, in bursts of at most one second's worth.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: u32,
    /// In units of 1 / (10^9) token, so that no rounding loses any.
    credit: u64,
    refilled: Nanos,
}

impl TokenBucket {
    const TOKEN: u64 = 1_000_000_000;

    /// A full bucket.
    #[must_use]
    pub fn new(rate: u32, now: Nanos) -> Self {
        Self {
            rate,
            credit: u64::from(rate) * Self::TOKEN,
            refilled: now,
        }
    }

    /// Changes the rate; credit above the new rate is lost, none is given.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.credit = self.credit.min(u64::from(rate) * Self::TOKEN);
    }

    /// Takes one token; `false`: there is none.
    #[must_use]
    pub fn try_take(&mut self, now: Nanos) -> bool {
        let is_there = self.has(now, 1);
        if is_there {
            self.take(1);
        }
        is_there
    }

    /// Are there so many tokens?
    #[must_use]
    pub fn has(&mut self, now: Nanos, tokens: u32) -> bool {
        let elapsed = now.since(self.refilled).0.min(Nanos::SECOND.0);
        self.refilled = self.refilled.max(now);
        let full = u64::from(self.rate) * Self::TOKEN;
        self.credit = full.min(self.credit + elapsed * u64::from(self.rate));
        self.credit >= u64::from(tokens) * Self::TOKEN
    }

    /// Takes so many, which are there ([`TokenBucket::has`]).
    pub const fn take(&mut self, tokens: u32) {
        self.credit = self.credit.saturating_sub(tokens as u64 * Self::TOKEN);
    }
}

/// At most `rate` events a second, evenly spread but for bursts of a few (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    interval: Nanos,
    tolerance: Nanos,
    /// When the next event would be, were they evenly spread.
    next: Nanos,
}

impl Pacer {
    /// `rate` and `burst` are at least 1.
    #[must_use]
    pub fn new(rate: u32, burst: u32) -> Self {
        let interval = Nanos(1_000_000_000 / u64::from(rate.max(1)));
        Self {
            interval,
            tolerance: Nanos(interval.0 * u64::from(burst.saturating_sub(1))),
            next: Nanos(0),
        }
    }

    /// May an event be now? Then it is counted.
    #[must_use]
    pub fn try_pass(&mut self, now: Nanos) -> bool {
        if self.next.since(now) > self.tolerance {
            return false;
        }
        self.next = self.next.max(now).plus(self.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_rate_and_one_burst() {
        let mut bucket = TokenBucket::new(100, Nanos(0));
        let mut taken = 0;
        // Ten seconds in steps of 0.7 ms: far more tries than tokens.
        let mut now = Nanos(0);
        while now < Nanos::from_secs(10) {
            taken += u32::from(bucket.try_take(now));
            now = now.plus(Nanos(700_000));
        }
        assert_eq!(
            taken,
            100 + 999,
            "one burst and ten seconds' worth, less the fraction in flight"
        );
    }

    #[test]
    fn a_pacer_spreads_evenly_but_for_a_burst() {
        let mut pacer = Pacer::new(1000, 4);
        let mut burst = |now| (0..100).take_while(|_| pacer.try_pass(now)).count();
        assert_eq!(burst(Nanos::SECOND), 4);
        for millis in 1..50 {
            assert_eq!(
                burst(Nanos::SECOND.plus(Nanos::from_millis(millis))),
                1,
                "{millis}"
            );
        }
        assert_eq!(burst(Nanos::from_secs(9)), 4, "no more for a long silence");
    }

    #[test]
    fn zero_rate_gives_none_and_time_going_back_gives_nothing() {
        let mut none = TokenBucket::new(0, Nanos(0));
        assert!(!none.try_take(Nanos::from_secs(100)));
        let mut bucket = TokenBucket::new(1, Nanos::from_secs(5));
        assert!(bucket.try_take(Nanos::from_secs(5)));
        assert!(!bucket.try_take(Nanos::from_secs(1)));
        assert!(!bucket.try_take(Nanos::from_millis(5_999)));
        assert!(bucket.try_take(Nanos::from_secs(6)));
    }

    #[test]
    fn a_lower_rate_takes_credit_away() {
        let mut bucket = TokenBucket::new(1000, Nanos(0));
        bucket.set_rate(2);
        assert!(bucket.try_take(Nanos(0)) && bucket.try_take(Nanos(0)));
        assert!(!bucket.try_take(Nanos(0)));
    }
}
