//! What a full session table does: shrinking timeouts, reserves of zones, limits of rules.

use crate::base::{Generation, PortId, ZoneId};

/// A share of the session table, in hundredths of a percent; may be more than all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(10_000);

    /// The share of a table for `capacity` sessions, rounded down.
    #[must_use]
    pub const fn of(self, capacity: u32) -> u32 {
        let sessions = capacity as u64 * self.0 as u64 / Self::WHOLE.0 as u64;
        if sessions > u32::MAX as u64 {
            u32::MAX
        } else {
            sessions as u32
        }
    }
}

/// When timeouts shrink, as shares of the table in use: `adaptive_start` and `adaptive_end`, in the manner of pf
/// (pf.conf(5), `adaptive.start` and `adaptive.end`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// With more sessions timeouts shrink.
    pub start: Share,
    /// Here they are nothing. More than `start`.
    pub end: Share,
}

impl Adaptive {
    /// What timeouts shrink to with `sessions` in a table for `capacity`.
    #[must_use]
    pub const fn scale(&self, sessions: u32, capacity: u32) -> Scale {
        Scale::between(self.start.of(capacity), self.end.of(capacity), sessions)
    }
}

/// What part of their length timeouts have: `left / whole`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    left: u32,
    whole: u32,
}

impl Default for Scale {
    fn default() -> Self {
        Self::FULL
    }
}

impl Scale {
    /// All of it.
    pub const FULL: Self = Self { left: 1, whole: 1 };

    /// With so many sessions, where timeouts shrink from more than `start` on and are nothing at `end`.
    #[inline]
    #[must_use]
    pub const fn between(start: u32, end: u32, sessions: u32) -> Self {
        if sessions <= start {
            Self::FULL
        } else if sessions >= end {
            Self { left: 0, whole: 1 }
        } else {
            Self {
                left: end - sessions,
                whole: end - start,
            }
        }
    }

    /// A timeout of so many ticks.
    #[inline]
    #[must_use]
    pub const fn ticks(self, timeout: u32) -> u32 {
        if self.left == self.whole {
            timeout
        } else {
            // At most `timeout`.
            (timeout as u64 * self.left as u64 / self.whole as u64) as u32
        }
    }

    /// In millionths.
    #[must_use]
    pub const fn ppm(self) -> u32 {
        (self.left as u64 * 1_000_000 / self.whole as u64) as u32
    }
}

/// A zone's `reserve`: sessions that others may not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// The zone.
    pub zone: ZoneId,
    /// Its ports; never empty.
    pub ports: Vec<PortId>,
    /// What is kept for sessions that it opens.
    pub share: Share,
}

/// What a rule's sessions are limited to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of the rule.
    pub sessions: Option<u32>,
    /// The number of the policy in which `sessions` last became what it is: several workers share the limit out anew with each
    /// change.
    pub since: Generation,
    /// Sessions of the rule that one source address opened.
    pub per_source: Option<u32>,
    /// New sessions of the rule that one source address opens in a second, and at once after a second without any.
    pub new_per_source: Option<u32>,
}

impl Limits {
    /// Is there one that counts by source?
    #[inline]
    #[must_use]
    pub const fn by_source(&self) -> bool {
        self.per_source.is_some() || self.new_per_source.is_some()
    }
}

/// All zones' reserves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserves {
    list: Vec<Reserve>,
    /// By [`PortId`]: the place in `list` of its zone's.
    by_port: Vec<Option<u16>>,
}

impl Reserves {
    /// Of these zones, at most as many as there are ports.
    #[must_use]
    pub fn new(list: Vec<Reserve>) -> Self {
        let ports = list.iter().flat_map(|reserve| &reserve.ports);
        let mut by_port = vec![None; ports.map(|port| port.index() + 1).max().unwrap_or(0)];
        for (place, reserve) in (0..).zip(&list) {
            for port in &reserve.ports {
                by_port[port.index()] = Some(place);
            }
        }
        Self { list, by_port }
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> &[Reserve] {
        &self.list
    }

    /// The place in the list of the reserve of a port's zone; `None`: it has none.
    #[inline]
    #[must_use]
    pub fn of(&self, port: PortId) -> Option<usize> {
        self.by_port.get(port.index()).copied().flatten().map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_shrink_in_a_line_to_nothing() {
        let adaptive = Adaptive {
            start: Share(6_000),
            end: Share(12_000),
        };
        let shrunk = |sessions| adaptive.scale(sessions, 1_000).ticks(6_000);
        assert_eq!(
            [0, 600, 601, 750, 900, 1_000].map(shrunk),
            [6_000, 6_000, 5_990, 4_500, 3_000, 2_000]
        );
        let steep = Adaptive {
            start: Share(0),
            end: Share(9_000),
        };
        let shrunk = |sessions| steep.scale(sessions, 1_000).ticks(900);
        assert_eq!(
            [0, 1, 899, 900, 1_000, u32::MAX].map(shrunk),
            [900, 899, 1, 0, 0, 0]
        );
        assert_eq!(adaptive.scale(900, 1_000).ppm(), 500_000);
    }

    #[test]
    fn shares_of_any_table() {
        assert_eq!(Share::WHOLE.of(u32::MAX), u32::MAX);
        assert_eq!(Share(100).of(1_000_000), 10_000);
        assert_eq!(Share(50).of(64), 0);
        assert_eq!(Share(u32::MAX).of(u32::MAX), u32::MAX);
    }
}
