//! What an engine does between bursts, a little at a time: idle sessions end, timers follow an applied policy.

use super::{Counters, Engine, Outputs, RuleCounters};
use crate::base::{Nanos, RuleId, SessionIx};
use crate::flow::table::Entry;
use crate::flow::{Due, Session, SessionTable};
use crate::packet::PacketBuf;

/// What one call of [`Engine::upkeep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Sessions that idled out.
    pub expired: u32,
    /// How far the timers are behind: `expiry_lag_ms` of the API.
    pub lag: Nanos,
    /// The budget was too small: there is more to do now.
    pub pending: bool,
}

/// The walk over the table that follows an apply: timers of idle sessions are linked to where the new timeouts ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rearm {
    from: Option<u32>,
}

impl Rearm {
    pub(super) const fn start() -> Self {
        Self { from: Some(0) }
    }
}

impl Engine {
    /// Ends sessions that idled out and goes on with what an apply left to do, looking at about `budget` sessions. RSTs for
    /// the ends of sessions go to `out`.
    pub fn upkeep<B: PacketBuf, O: Outputs<B>>(&mut self, now: Nanos, budget: u32, out: &mut O) -> Upkeep {
        let policy = &*self.policy;
        if let Some(from) = self.rearm.from {
            self.rearm.from = self.table.rearm(from, budget, |session| {
                session.timeout(policy.state_timeouts(session.rule))
            });
        }
        let (counters, rules, resets) = (&mut self.counters, &mut self.rules, &mut self.resets);
        let expiry = self.table.expire(
            now.tick(),
            budget,
            |session| session.timeout(policy.state_timeouts(session.rule)),
            |entry| {
                let due = resets.judge(&entry);
                if due == Due::End {
                    count_end(counters, rules, entry.session.rule);
                }
                due
            },
        );
        let reset = self.reset_waiting(now, out);
        Upkeep {
            expired: expiry.expired + reset,
            lag: expiry.lag,
            pending: expiry.lag > Nanos(0) || self.rearm.from.is_some() || !self.resets.is_empty(),
        }
    }

    /// Puts a copy of another engine's session into the table, idle since `idle_since`: what `explain` does with the live
    /// sessions of a node. Copies go in before the first packet, the longest idle first.
    ///
    /// `None`: its flow has a session already, or the table is full.
    pub fn adopt(&mut self, session: Session, idle_since: Nanos) -> Option<SessionIx> {
        let hash = self.table.hash(&session.key);
        if self.table.find(&session.key, hash).is_some() {
            return None;
        }
        let timeout = session.timeout(self.policy.state_timeouts(session.rule));
        let ix = self.table.insert(session, hash, idle_since, timeout).ok()?;
        self.counters.sessions_created += 1;
        if let Some(counters) = self.rules.get_mut(session.rule.index()) {
            counters.sessions += 1;
        }
        Some(ix)
    }

    /// Ends the sessions among `budget` slots from slot `from` on that `unwanted` picks (`sessions kill`). Returns where
    /// to go on (`None`: that was the last slot) and how many ended.
    pub fn kill_where(
        &mut self,
        from: u32,
        budget: u32,
        mut unwanted: impl FnMut(&Entry<'_>) -> bool,
    ) -> (Option<u32>, u32) {
        let (counters, rules) = (&mut self.counters, &mut self.rules);
        let mut killed = 0;
        let next = self.table.retain(from, budget, |entry| {
            if !unwanted(&entry) {
                return true;
            }
            count_end(counters, rules, entry.session.rule);
            killed += 1;
            false
        });
        (next, killed)
    }
}

/// Ends one session.
pub(super) fn end_session(
    table: &mut SessionTable,
    counters: &mut Counters,
    rules: &mut [RuleCounters],
    ix: SessionIx,
) {
    let rule = table.get(ix).rule;
    if table.remove(ix) {
        count_end(counters, rules, rule);
    }
}

fn count_end(counters: &mut Counters, rules: &mut [RuleCounters], rule: RuleId) {
    counters.sessions_ended += 1;
    if let Some(rule) = rules.get_mut(rule.index()) {
        rule.sessions = rule.sessions.saturating_sub(1);
    }
}

/// A live session goes over to another rule.
pub(super) fn move_session(rules: &mut [RuleCounters], from: RuleId, to: RuleId) {
    if let Some(rule) = rules.get_mut(from.index()) {
        rule.sessions = rule.sessions.saturating_sub(1);
    }
    if let Some(rule) = rules.get_mut(to.index()) {
        rule.sessions += 1;
    }
}
