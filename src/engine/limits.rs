//! A rule's limits: `max_sessions`, `max_sessions_per_source`, `new_sessions_per_source`. They are asked after the rule has
//! matched and before the session is made, and never exceeded.
//!
//! The engine counts what its worker owns: with one worker that is all. Several have each a share of a limit, which moves between
//! them by message ([`super::leases`], [`super::loans`]).

use super::DropReason;
use super::counters::RuleCounters;
use super::process::Act;
use super::sources::{Refusal, Sources};
use crate::base::{Nanos, RuleId};
use crate::flow::Session;
use crate::policy::Rule;

impl Act<'_> {
    /// May this source open one more session under `rule` now?
    #[inline]
    pub(super) fn within_limits(&mut self, rule: &Rule, source: &[u8; 16]) -> Result<(), DropReason> {
        self.has_room_in(rule)?;
        if rule.limits.by_source() {
            return self.source_within_limits(rule, source, true);
        }
        Ok(())
    }

    fn has_room_in(&mut self, rule: &Rule) -> Result<(), DropReason> {
        let Some(most) = rule.limits.sessions else {
            return Ok(());
        };
        let Some(counters) = self.rules.get_mut(rule.id.index()) else {
            return Ok(());
        };
        let has_room = match &mut self.leases {
            Some(leases) => leases.has_room_in(rule, counters.sessions),
            None => counters.sessions < u64::from(most),
        };
        if !has_room {
            counters.limited += 1;
            return Err(DropReason::SessionLimit);
        }
        Ok(())
    }

    /// `is_new`: the session is opened now, not one that comes from another rule.
    #[inline(never)]
    fn source_within_limits(
        &mut self,
        rule: &Rule,
        source: &[u8; 16],
        is_new: bool,
    ) -> Result<(), DropReason> {
        let mut limits = rule.limits;
        if !is_new {
            limits.new_per_source = None;
        }
        let Err(refusal) = self.sources.check(rule.id, source, &limits, self.now) else {
            return Ok(());
        };
        if let Some(counters) = self.rules.get_mut(rule.id.index()) {
            counters.limited += 1;
        }
        Err(match refusal {
            Refusal::Sessions => DropReason::SessionLimit,
            Refusal::Rate => DropReason::RateLimit,
            Refusal::Full => {
                self.counters.sources_full += 1;
                DropReason::SessionLimit
            }
        })
    }

    /// May a live session go over to another rule? It is not new, so that no rate asks about it.
    pub(super) fn may_move(&mut self, session: &Session, to: &Rule) -> Result<(), DropReason> {
        self.has_room_in(to)?;
        if to.limits.by_source() {
            return self.source_within_limits(to, &session.source(), false);
        }
        Ok(())
    }
}

/// Counts a new session for its source, if its rule asks for that. [`Act::within_limits`] has found a place.
#[inline]
pub(super) fn count_new(sources: &mut Sources, session: &mut Session, rule: &Rule, now: Nanos) {
    if rule.limits.by_source() && sources.open(rule.id, &session.source(), &rule.limits, now) {
        session.flags |= Session::COUNTED;
    }
}

/// A live session goes over to the rule `to`, which has room for it.
pub(super) fn move_session(
    rules: &mut [RuleCounters],
    sources: &mut Sources,
    session: &mut Session,
    to: &Rule,
    now: Nanos,
) {
    let from: RuleId = session.rule;
    if from != to.id {
        if let Some(rule) = rules.get_mut(from.index()) {
            rule.sessions = rule.sessions.saturating_sub(1);
        }
        if let Some(rule) = rules.get_mut(to.id.index()) {
            rule.sessions += 1;
        }
        if session.flags & Session::COUNTED != 0 {
            sources.leave(from, &session.source(), now);
            session.flags &= !Session::COUNTED;
        }
        session.rule = to.id;
    }
    count_standing(sources, session, Some(to));
}

/// Counts a live session for its source from now on, if its rule asks for that since an apply. Whatever the limit says: it
/// stands already, and keeps others from being opened.
#[inline]
pub(super) fn count_standing(sources: &mut Sources, session: &mut Session, rule: Option<&Rule>) {
    if session.flags & Session::COUNTED == 0
        && rule.is_some_and(|rule| rule.limits.by_source())
        && sources.adopt(session.rule, &session.source())
    {
        session.flags |= Session::COUNTED;
    }
}
