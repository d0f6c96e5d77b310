//! What a worker does when no packets come (`[node] idle`).
//!
//! `poll` never sleeps. `adaptive` spins for a moment, so that a trickle of packets meets no sleep, and then waits in the
//! cheapest way that loses no packet:
//!
//! - Every receive queue can wake the worker ([`WakeUp::Event`]): it sleeps until a packet comes. The sleep ends with the
//!   first packet, so the receive ring has only the scheduler's wake-up latency to bridge.
//! - Some queue cannot: it sleeps by the clock, at most half the time in which the smallest such receive ring fills
//!   with the smallest frames at link speed, so that a line-rate burst that begins right after the last look still finds
//!   room. Where that is too short to be slept it spins on: a lost packet costs more than a warm CPU.

use crate::base::Nanos;

/// What can wake a sleeping worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeUp {
    /// Packets announce themselves; nothing needs a look more often than this.
    Event(Nanos),
    /// The clock alone, which must not sleep longer than this.
    Timer(Nanos),
}

impl WakeUp {
    /// The same with a look at least so often.
    #[must_use]
    pub fn at_most(self, time: Nanos) -> Self {
        match self {
            Self::Event(longest) => Self::Event(longest.min(time)),
            Self::Timer(bound) => Self::Timer(bound.min(time)),
        }
    }
}

/// How to wait before the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Sleep so long.
    Sleep(Nanos),
    /// Sleep until a packet or a command comes, at most so long.
    Event(Nanos),
}

/// Decides how a worker waits.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// `None`: `idle = "poll"`.
    wake_up: Option<WakeUp>,
    idle_since: Option<Nanos>,
}

impl Idle {
    /// So long a worker spins after the last packet. Longer than the gaps between the packets of a transfer, short
    /// beside the sleeps.
    pub const SPIN: Nanos = Nanos(100_000);
    /// The longest sleep by the clock: a packet that comes at its start still waits less than a millisecond, with what a
    /// virtual machine's timer adds.
    pub const LONGEST_SLEEP: Nanos = Nanos(700_000);
    /// A sleep costs about this much to begin and to end: shorter ones save nothing.
    pub const SHORTEST_SLEEP: Nanos = Nanos(5_000);
    /// The longest wait for an event: timers and statistics go on meanwhile.
    pub const LONGEST_EVENT_WAIT: Nanos = Nanos(10_000_000);

    /// `None`: never sleep.
    #[must_use]
    pub const fn new(wake_up: Option<WakeUp>) -> Self {
        Self {
            wake_up,
            idle_since: None,
        }
    }

    /// Another set of queues is polled from now on.
    pub fn set_wake_up(&mut self, wake_up: WakeUp) {
        if self.wake_up.is_some() {
            self.wake_up = Some(wake_up);
        }
    }

    /// A turn is over that began at `now`; `worked`: it had packets or a command.
    #[inline]
    pub fn after_turn(&mut self, now: Nanos, worked: bool) -> Wait {
        if worked {
            self.idle_since = None;
            return Wait::No;
        }
        let Some(wake_up) = self.wake_up else {
            return Wait::No;
        };
        let since = *self.idle_since.get_or_insert(now);
        let idle_for = now.since(since);
        if idle_for < Self::SPIN {
            return Wait::No;
        }
        match wake_up {
            WakeUp::Event(longest) => Wait::Event(longest),
            WakeUp::Timer(bound) => {
                // Sleeps grow with the silence, so that the pauses of a busy link stay short.
                let longest = bound.min(Self::LONGEST_SLEEP);
                let sleep = Nanos(idle_for.0 / 4).min(longest);
                if sleep < Self::SHORTEST_SLEEP {
                    Wait::No
                } else {
                    Wait::Sleep(sleep)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENT: WakeUp = WakeUp::Event(Idle::LONGEST_EVENT_WAIT);

    fn us(n: u64) -> Nanos {
        Nanos(n * 1000)
    }

    #[test]
    fn poll_never_waits() {
        let mut idle = Idle::new(None);
        idle.set_wake_up(EVENT);
        for n in 0..1000 {
            assert_eq!(idle.after_turn(Nanos::from_millis(n), false), Wait::No);
        }
    }

    #[test]
    fn spins_first_and_again_after_work() {
        let mut idle = Idle::new(Some(EVENT));
        assert_eq!(idle.after_turn(us(1), false), Wait::No);
        assert_eq!(idle.after_turn(us(99), false), Wait::No);
        assert_eq!(
            idle.after_turn(us(101), false),
            Wait::Event(Idle::LONGEST_EVENT_WAIT)
        );
        assert_eq!(idle.after_turn(us(102), true), Wait::No);
        assert_eq!(idle.after_turn(us(103), false), Wait::No);
        assert_eq!(idle.after_turn(us(150), false), Wait::No);
        assert_eq!(
            idle.after_turn(us(203), false),
            Wait::Event(Idle::LONGEST_EVENT_WAIT)
        );
    }

    #[test]
    fn a_ring_too_small_to_sleep_by_is_polled() {
        let mut idle = Idle::new(Some(WakeUp::Timer(Nanos(4_999))));
        for n in 0..1000 {
            assert_eq!(idle.after_turn(Nanos::from_millis(n), false), Wait::No);
        }
    }

    proptest! {
        #[test]
        fn sleeps_stay_within_the_bound_and_reach_it(bound in 5_000u64..2_000_000) {
            let mut idle = Idle::new(Some(WakeUp::Timer(Nanos(bound))));
            let mut now = Nanos(1);
            let mut longest = Nanos(0);
            for _ in 0..10_000 {
                now = match idle.after_turn(now, false) {
                    Wait::No => now.plus(us(1)),
                    Wait::Sleep(sleep) => {
                        prop_assert!(sleep.0 <= bound && sleep <= Idle::LONGEST_SLEEP);
                        longest = longest.max(sleep);
                        now.plus(sleep)
                    }
                    Wait::Event(_) => return Err(TestCaseError::fail("no events here")),
                };
            }
            prop_assert_eq!(longest.0, bound.min(Idle::LONGEST_SLEEP.0));
        }
    }
}
