//! What a worker does when no packets come (`[node] idle`).
//!
//! `poll` never sleeps. `adaptive` spins for a moment, so that a trickle of packets meets no sleep, and then waits in the
//! cheapest way that loses no packet:
//!
//! - Every receive queue can wake the worker ([`WakeUp::Event`]): it sleeps until a packet comes. The sleep ends with the
//!   first packet, so the receive ring has only the scheduler's wake-up latency to bridge.
//! - Some queue cannot ([`WakeUp::Timer`]): it sleeps by the clock, at most half the time in which the smallest such
//!   receive ring fills with the smallest frames at link speed, so that a line-rate burst that begins right after the last
//!   look still finds room. Where that is too short to be slept it spins on: a lost packet costs more than a warm CPU.
//! - A port without a link receives nothing, and so fills no ring. Its worker looks whether the port has packets often
//!   enough for the first of them to wait less than a millisecond; as a port with a link it counts from when the keeper
//!   has seen that it has one.

use crate::base::Nanos;

/// What counts of a port that a worker polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    /// Its packets can wake the worker.
    pub announces: bool,
    /// It has a link.
    pub link_up: bool,
    /// Half the time in which its receive ring fills while nobody polls; `None`: nothing arrives then.
    pub ring: Option<Nanos>,
}

/// What wakes a sleeping worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeUp {
    /// Packets announce themselves; what does not needs no look more often than this.
    Event(Nanos),
    /// The clock alone, which must not sleep longer than this.
    Timer(Nanos),
}

/// How to wait before the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Not before the queues are armed, and were looked into once more: a packet that came before its queue was armed does
    /// not announce itself.
    Arm,
    /// Sleep so long.
    Sleep(Nanos),
    /// Sleep until a packet or a command comes, at most so long.
    Event(Nanos),
}

impl WakeUp {
    /// What may wake the worker of these ports.
    pub fn of(ports: impl Iterator<Item = Polled>) -> Self {
        let mut look = Idle::LONGEST_EVENT_WAIT;
        let mut announced: Option<Nanos> = None;
        let mut silent: Option<Nanos> = None;
        for port in ports {
            let least = |bound: Option<Nanos>, ring| Some(bound.map_or(ring, |b| b.min(ring)));
            match port.ring {
                Some(ring) if port.announces => announced = least(announced, ring),
                Some(ring) if port.link_up => silent = least(silent, ring),
                _ if port.announces => {}
                _ => look = look.min(Idle::LONGEST_SLEEP),
            }
        }
        let Some(bound) = silent else {
            return Self::Event(look);
        };
        // By the clock alone only if that serves the rings of those as well that would have woken the worker.
        if announced.is_none_or(|ring| bound <= ring) {
            Self::Timer(bound.min(Idle::LONGEST_SLEEP))
        } else {
            Self::Event(bound.min(Idle::LONGEST_SLEEP))
        }
    }

    /// How to wait after having had nothing to do for `idle_for`; the queues were `armed` before the last look.
    #[must_use]
    pub fn wait(self, idle_for: Nanos, armed: bool) -> Wait {
        let wait = match self {
            Self::Event(longest) => Wait::Event(longest),
            // Sleeps grow with the silence, so that the pauses of a busy link stay short.
            Self::Timer(bound) => Wait::Sleep(Nanos(idle_for.0 / 4).min(bound)),
        };
        match wait {
            Wait::Event(time) | Wait::Sleep(time) if time < Idle::SHORTEST_SLEEP => Wait::No,
            Wait::Event(_) if !armed => Wait::Arm,
            wait => wait,
        }
    }
}

/// Knows since when a worker has had nothing to do.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    adaptive: bool,
    since: Option<Nanos>,
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
    /// Sleeps of this length take about 5 % of a CPU: one costs some 25 microseconds of it (more on a slow machine).
    pub const CHEAP_SLEEP: Nanos = Nanos(500_000);
    /// The longest wait for an event: timers and statistics go on meanwhile.
    pub const LONGEST_EVENT_WAIT: Nanos = Nanos(10_000_000);

    /// Not `adaptive`: never sleep.
    #[must_use]
    pub const fn new(adaptive: bool) -> Self {
        Self {
            adaptive,
            since: None,
        }
    }

    /// A turn is over that began at `now`; `worked`: it had packets or a command. Returns for how long the worker has had
    /// nothing to do, when that is long enough to sleep.
    #[inline]
    pub fn after_turn(&mut self, now: Nanos, worked: bool) -> Option<Nanos> {
        if worked {
            self.since = None;
            return None;
        }
        if !self.adaptive {
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let idle_for = now.since(since);
        (idle_for >= Self::SPIN).then_some(idle_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(n: u64) -> Nanos {
        Nanos(n * 1000)
    }

    /// A port whose half ring is `ring` microseconds.
    fn port(announces: bool, link_up: bool, ring: u64) -> Polled {
        Polled {
            announces,
            link_up,
            ring: Some(us(ring)),
        }
    }

    fn wake_up(ports: &[Polled]) -> WakeUp {
        WakeUp::of(ports.iter().copied())
    }

    #[test]
    fn poll_never_waits() {
        let mut idle = Idle::new(false);
        for n in 0..1000 {
            assert_eq!(idle.after_turn(Nanos::from_millis(n), false), None);
        }
    }

    #[test]
    fn spins_first_and_again_after_work() {
        let mut idle = Idle::new(true);
        assert_eq!(idle.after_turn(us(1), false), None);
        assert_eq!(idle.after_turn(us(99), false), None);
        assert_eq!(idle.after_turn(us(101), false), Some(us(100)));
        assert_eq!(idle.after_turn(us(102), true), None);
        assert_eq!(idle.after_turn(us(103), false), None);
        assert_eq!(idle.after_turn(us(150), false), None);
        assert_eq!(idle.after_turn(us(203), false), Some(us(100)));
    }

    #[test]
    fn announced_packets_are_waited_for() {
        let longest = WakeUp::Event(Idle::LONGEST_EVENT_WAIT);
        assert_eq!(wake_up(&[]), longest);
        assert_eq!(wake_up(&[port(true, true, 3), port(true, false, 34)]), longest);
        assert_eq!(longest.wait(Idle::SPIN, false), Wait::Arm);
        assert_eq!(
            longest.wait(Idle::SPIN, true),
            Wait::Event(Idle::LONGEST_EVENT_WAIT)
        );
    }

    #[test]
    fn the_smallest_silent_ring_bounds_the_sleep() {
        assert_eq!(
            wake_up(&[port(false, true, 34), port(false, true, 17)]),
            WakeUp::Timer(us(17))
        );
        assert_eq!(
            wake_up(&[port(false, true, 5_000)]),
            WakeUp::Timer(Idle::LONGEST_SLEEP)
        );
        // A ring that announces its packets is as well served by the clock, or it is not.
        assert_eq!(
            wake_up(&[port(false, true, 34), port(true, true, 34)]),
            WakeUp::Timer(us(34))
        );
        assert_eq!(
            wake_up(&[port(false, true, 34), port(true, true, 3)]),
            WakeUp::Event(us(34))
        );
    }

    /// net_memif without a peer says 100 Gbit/s: 3 microseconds for half a ring of 1024.
    #[test]
    fn a_port_without_a_link_fills_no_ring() {
        let looks = WakeUp::Event(Idle::LONGEST_SLEEP);
        assert_eq!(wake_up(&[port(false, false, 3)]), looks);
        assert_eq!(wake_up(&[port(false, false, 3), port(true, true, 34)]), looks);
        assert_eq!(
            wake_up(&[port(false, false, 3), port(false, true, 34)]),
            WakeUp::Timer(us(34))
        );
        let never_fills = Polled {
            announces: false,
            link_up: true,
            ring: None,
        };
        assert_eq!(wake_up(&[never_fills]), looks);
        assert_eq!(looks.wait(Idle::SPIN, true), Wait::Event(Idle::LONGEST_SLEEP));
    }

    #[test]
    fn a_ring_too_small_to_sleep_by_is_polled() {
        for n in 0..1000 {
            let idle_for = Nanos::from_millis(n);
            assert_eq!(WakeUp::Timer(Nanos(4_999)).wait(idle_for, false), Wait::No);
            assert_eq!(WakeUp::Event(Nanos(4_999)).wait(idle_for, false), Wait::No);
        }
    }

    proptest! {
        #[test]
        fn sleeps_stay_within_the_bound_and_reach_it(bound in 5_000u64..2_000_000) {
            let wake_up = WakeUp::of(std::iter::once(Polled {
                announces: false,
                link_up: true,
                ring: Some(Nanos(bound)),
            }));
            let mut idle = Idle::new(true);
            let mut now = Nanos(1);
            let mut longest = Nanos(0);
            for _ in 0..10_000 {
                let wait = idle.after_turn(now, false).map_or(Wait::No, |idle_for| wake_up.wait(idle_for, false));
                now = match wait {
                    Wait::No => now.plus(us(1)),
                    Wait::Sleep(sleep) => {
                        prop_assert!(sleep.0 <= bound && sleep <= Idle::LONGEST_SLEEP);
                        longest = longest.max(sleep);
                        now.plus(sleep)
                    }
                    Wait::Arm | Wait::Event(_) => return Err(TestCaseError::fail("no events here")),
                };
            }
            prop_assert_eq!(longest.0, bound.min(Idle::LONGEST_SLEEP.0));
        }
    }
}
