//! A table that fills up: timeouts shrink, sessions give way, zones keep their reserve.
//!
//! The reserve's rule: a session that zone Z opens leaves at least as much room free as all other zones lack of their
//! reserves. As every insertion keeps to it, a zone with a reserve finds its room whatever the others do.

use super::process::{Act, port_policy};
use super::{EndReason, Engine};
use crate::base::{Nanos, PortId};
use crate::flow::SessionTable;
use crate::flow::evict::MAX_PORTS;
use crate::policy::{Policy, Scale};

/// A policy's shares of this engine's table, in sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pressure {
    start: u32,
    end: u32,
    /// The sum of all reserves.
    reserved: u32,
}

impl Pressure {
    /// Of a table that may have `quota` sessions.
    pub(super) fn of(policy: &Policy, quota: u32) -> Self {
        let reserves = policy
            .reserves
            .list()
            .iter()
            .map(|reserve| reserve.share.of(quota));
        Self {
            start: policy.adaptive.start.of(quota),
            end: policy.adaptive.end.of(quota),
            reserved: reserves.fold(0, u32::saturating_add),
        }
    }

    /// None, however full the table is.
    pub(super) const NEVER: Self = Self {
        start: u32::MAX,
        end: u32::MAX,
        reserved: 0,
    };

    /// What timeouts shrink to with so many sessions.
    #[inline]
    pub(super) const fn scale(&self, sessions: u32) -> Scale {
        Scale::between(self.start, self.end, sessions)
    }

    /// Room that is not for everybody.
    pub(super) const fn reserved(&self) -> u32 {
        self.reserved
    }

    /// Up to so many sessions timeouts have their whole length.
    pub(super) const fn start(&self) -> u32 {
        self.start
    }
}

/// Which zones have not taken their reserve yet, by place in [`crate::policy::Reserves`], and how much they lack.
struct Kept {
    lacking: [u64; MAX_PORTS / 64],
    sessions: u32,
}

impl Kept {
    /// For all zones but the one at `except`.
    fn of(policy: &Policy, (table, quota): (&SessionTable, u32), except: Option<usize>) -> Self {
        let mut kept = Self {
            lacking: [0; MAX_PORTS / 64],
            sessions: 0,
        };
        for (place, reserve) in policy.reserves.list().iter().enumerate() {
            let opened: u32 = reserve.ports.iter().map(|port| table.opened_by(*port)).sum();
            let whole = reserve.share.of(quota);
            if opened <= whole && Some(place) != except {
                // One at its reserve lacks nothing, but would if a session of it were evicted.
                kept.sessions = kept.sessions.saturating_add(whole - opened);
                if let Some(word) = kept.lacking.get_mut(place / 64) {
                    *word |= 1 << (place % 64);
                }
            }
        }
        kept
    }

    /// Does evicting a session that this port opened make room?
    fn gives_room(&self, policy: &Policy, port: PortId) -> bool {
        let is_lacking = |place: usize| {
            let word = self.lacking.get(place / 64).copied().unwrap_or(0);
            (word >> (place % 64)) & 1 == 1
        };
        !policy.reserves.of(port).is_some_and(is_lacking)
    }
}

impl Act<'_> {
    /// A timeout of so many ticks, as the table is now.
    #[inline]
    pub(super) const fn scaled(&self, timeout: u32) -> u32 {
        self.pressure.scale(self.table.len()).ticks(timeout)
    }

    /// Makes room for a session that a packet of `ingress` opens, if there is none. False: nothing can be evicted.
    #[inline]
    pub(super) fn make_room(&mut self, ingress: PortId) -> bool {
        let taken = self.table.len().saturating_add(self.pressure.reserved);
        taken < self.quota || self.make_room_in_full_table(ingress)
    }

    #[inline(never)]
    fn make_room_in_full_table(&mut self, ingress: PortId) -> bool {
        let reserved = self.pressure.reserved > 0;
        let own = if reserved {
            self.policy.reserves.of(ingress)
        } else {
            None
        };
        let kept = if reserved {
            Kept::of(self.policy, (self.table, self.quota), own)
        } else {
            Kept {
                lacking: [0; MAX_PORTS / 64],
                sessions: 0,
            }
        };
        let quota = self.quota;
        let has_room = |table: &SessionTable| quota.saturating_sub(table.len()) > kept.sessions;
        if has_room(self.table) {
            return true;
        }
        let capacity = self.table.capacity();
        if self
            .leases
            .as_deref_mut()
            .is_some_and(|leases| leases.missed(capacity))
        {
            // Nobody gives way while other workers may have room to give.
            return false;
        }
        let zone = port_policy(self.policy, ingress).zone;
        let victim = self.table.victim(|port| {
            !reserved || port_policy(self.policy, port).zone == zone || kept.gives_room(self.policy, port)
        });
        let Some(victim) = victim else {
            return false;
        };
        self.counters.sessions_evicted += 1;
        self.end(victim, EndReason::Evicted);
        has_room(self.table)
    }
}

impl<B> Engine<B> {
    /// After an apply that asks for a larger reserve than is free: what can be evicted gives way, `budget` sessions at most.
    /// Otherwise there is nothing to do, since insertions leave the reserve alone.
    pub(super) fn restore_reserves(&mut self, now: Nanos, budget: u32) {
        let taken = self.table.len().saturating_add(self.pressure.reserved);
        if self.pressure.reserved == 0 || taken <= self.quota {
            return;
        }
        for _ in 0..budget {
            let policy = &*self.policy;
            let kept = Kept::of(policy, (&self.table, self.quota), None);
            if self.quota.saturating_sub(self.table.len()) >= kept.sessions {
                return;
            }
            let Some(victim) = self.table.victim(|port| kept.gives_room(policy, port)) else {
                return;
            };
            self.counters.sessions_evicted += 1;
            self.end(now, victim, EndReason::Evicted, None);
        }
    }

    /// What timeouts shrink to as the table is now.
    #[must_use]
    pub fn timeout_scale(&self) -> Scale {
        self.pressure.scale(self.table.len())
    }

    /// From now on the table is under no pressure, however full it is, and keeps no reserve: for an engine whose table is
    /// smaller than the policy's, and tells nothing of how full that is.
    pub fn ignore_pressure(&mut self) {
        self.ignores_pressure = true;
        self.pressure = Pressure::NEVER;
    }
}
