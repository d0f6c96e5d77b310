//! What an engine does between bursts, a little at a time: idle sessions end, timers follow an applied policy.

use std::cell::Cell;

use super::limits::count_standing;
use super::record::Records;
use super::sources::Sources;
use super::steer::Crew;
use super::{Counters, EndReason, Engine, Outputs, Record, RuleCounters};
use crate::base::{Nanos, SessionIx};
use crate::flow::table::Entry;
use crate::flow::{Due, Session, SessionState, SessionTable, StateTimeouts, Translation};
use crate::packet::PacketBuf;
use crate::policy::{Action, Policy};

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

impl Upkeep {
    /// A call looks at so many sessions ...
    pub const BUDGET: u32 = 128;
    /// ... so often, while it keeps up: 2.5 million sessions a second, at a tenth of the worker's time if all of them miss
    /// the cache.
    pub const EVERY: Nanos = Nanos(50_000);
    /// Timers that are so far behind are served twice as often, and so on for each doubling; a quarter of a second is still far
    /// from the second that sessions may end late by.
    const BEHIND: Nanos = Nanos(60_000_000);

    /// When the next call with [`Upkeep::BUDGET`] is to come after this one. What falls due faster than that, as under a flood of
    /// connections that last a second, has the lag decide what part of its time the worker spends: half of it at most.
    #[must_use]
    pub const fn again_in(&self) -> Nanos {
        let hurry = match self.lag.0 / Self::BEHIND.0 {
            0 => 0,
            1 => 1,
            _ => 2,
        };
        Nanos(Self::EVERY.0 >> hurry)
    }
}

/// The walk over the table that follows shorter timeouts, of an apply or of a table that fills up: sessions are linked to
/// where the new timeouts ask for. (Longer ones need none: the wheel looks too early, and links anew.)
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rearm {
    from: Option<u32>,
    /// Sessions in the table when the walk began.
    sessions: u32,
    /// All sessions are linked for a table with so many.
    armed_for: u32,
    began: Nanos,
    /// Sessions made until then.
    inserted: u64,
}

/// So often a table under pressure is walked over at least if sessions come and go, although it gets little fuller.
const REARM_EVERY: Nanos = Nanos::SECOND;

impl Rearm {
    /// Begins a walk because of an apply: what sessions are linked for says nothing any more.
    pub(super) fn start(&mut self) {
        *self = Self {
            from: Some(0),
            ..Self::default()
        };
    }

    /// The table may have fewer sessions than before: the next walk is not put off.
    pub(super) const fn shrunk(&mut self) {
        self.armed_for = 0;
    }

    /// Begins a walk if timeouts shrank further than sessions are linked for.
    fn follow(&mut self, table: &SessionTable, start: u32, now: Nanos) {
        let sessions = table.len().max(start);
        self.armed_for = self.armed_for.clamp(start, sessions);
        if sessions == start || self.from.is_some() {
            return;
        }
        // Not for every single session: a five hundredth of the table waits for the second to be over.
        let much_fuller = sessions - self.armed_for > table.capacity() / 512;
        let changed = sessions > self.armed_for || table.inserted_total() != self.inserted;
        if much_fuller || (changed && now >= self.began.plus(REARM_EVERY)) {
            *self = Self {
                from: Some(0),
                sessions,
                armed_for: self.armed_for,
                began: now,
                inserted: table.inserted_total(),
            };
        }
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Ends sessions that idled out and fragments whose time is over, and goes on with what an apply or a table that fills up
    /// left to do, looking at about `budget` sessions for each and as many fragments. What is dropped goes to `out`, RSTs for the
    /// ends of sessions too.
    ///
    /// Under pressure a session ends as soon as it has idled for its shrunk timeout and the walk has come by it: as long
    /// after that as a walk over the table takes at this budget and, if the table got little fuller meanwhile, a second.
    pub fn upkeep<O: Outputs<B>>(&mut self, now: Nanos, budget: u32, out: &mut O) -> Upkeep {
        self.offer_ripe(now, budget, out);
        self.restore_reserves(now, budget);
        self.rearm(now, budget);
        let policy = &*self.policy;
        let timeout = policy.fragments.timeout;
        let fragments = self
            .fragments
            .expire(now, timeout, budget, &mut self.counters, out);
        self.end_waits(now, out);
        let policy = &*self.policy;
        let resets = &mut self.resets;
        let waiting = resets.len();
        let mut books = Books {
            now,
            policy,
            counters: &mut self.counters,
            rules: &mut self.rules,
            records: &mut self.records,
            resets: None,
            sources: &mut self.sources,
            crew: self.crew.as_mut(),
        };
        // Each session that ends gives the others a longer timeout.
        let sessions = Cell::new(self.table.len());
        let pressure = self.pressure;
        let pair = self.pair.as_deref();
        let expiry = self.table.expire(
            now.tick(),
            budget,
            |session| {
                let timeout = session.timeout(policy.state_timeouts(session.rule));
                pressure.scale(sessions.get()).ticks(timeout)
            },
            |entry| {
                let timeout = entry.session.timeout(policy.state_timeouts(entry.session.rule));
                if let Some(ticks) = Self::put_off(pair, &entry, now.tick(), timeout) {
                    return Due::Later(ticks);
                }
                let due = resets.judge(&entry);
                if due == Due::End {
                    sessions.set(sessions.get().saturating_sub(1));
                    books.ended(&entry, idled_out(entry.session));
                }
                due
            },
        );
        self.resets.mark_since(waiting, &mut self.table);
        let reset = self.reset_waiting(now, out);
        self.sources.sweep(now, budget);
        self.records.due(now, self.policy.alert_rate);
        if self.forwards() {
            self.resend(now, out);
        }
        let unsaid = self.leases.is_some() && self.lease_upkeep(now, budget, out);
        self.syn
            .steer(self.table.half_open(), self.quota, self.policy.syn_cookies);
        Upkeep {
            expired: expiry.expired + reset,
            lag: expiry.lag,
            pending: expiry.lag > Nanos(0)
                || self.rearm.from.is_some()
                || !self.resets.is_empty()
                || fragments
                || unsaid,
        }
    }
}

impl<B> Engine<B> {
    /// A step of the walk.
    fn rearm(&mut self, now: Nanos, budget: u32) {
        let start = self.pressure.start();
        self.rearm.follow(&self.table, start, now);
        let Some(from) = self.rearm.from else {
            return;
        };
        let (policy, sources) = (&*self.policy, &mut self.sources);
        let scale = self.pressure.scale(self.table.len());
        self.rearm.from = self.table.rearm(from, budget, |session| {
            count_standing(sources, session, policy.rule(session.rule));
            if session.flags & Session::WAITS != 0 {
                return StateTimeouts::MAX_TICKS;
            }
            scale.ticks(session.timeout(policy.state_timeouts(session.rule)))
        });
        if self.rearm.from.is_none() {
            self.rearm.armed_for = self.rearm.sessions;
        }
    }

    /// Puts a copy of another engine's session into the table, idle since `idle_since`: what `explain` does with the live
    /// sessions of a node. Copies go in before the first packet, the longest idle first.
    ///
    /// `None`: its flow has a session already, or the table is full.
    pub fn adopt(
        &mut self,
        mut session: Session,
        translation: Translation,
        idle_since: Nanos,
    ) -> Option<SessionIx> {
        let hash = self.table.hash(&session.key);
        if self.table.find(&session.key, hash).is_some() {
            return None;
        }
        let timeout = session.timeout(self.policy.state_timeouts(session.rule));
        session.flags &= !(Session::COUNTED | Session::WAITS | Session::AWAY);
        let ix = self.table.insert(session, hash, idle_since, timeout).ok()?;
        count_standing(
            &mut self.sources,
            self.table.get_mut(ix),
            self.policy.rule(session.rule),
        );
        *self.table.translation_mut(ix) = translation;
        self.counters.sessions_created += 1;
        if let Some(counters) = self.rules.get_mut(session.rule.index()) {
            counters.sessions += 1;
        }
        Some(ix)
    }

    /// Writes the live sessions among `budget` slots from slot `from` on into the log, as ended by the node's stop; behind the
    /// last one the alerts that are still kept back. The sessions stay. With `wait` as many as there is room for; else what
    /// finds none is lost. Returns where to go on; `None`: that was all.
    pub fn farewell(&mut self, now: Nanos, from: u32, budget: u32, wait: bool) -> Option<u32> {
        let (policy, records, counters) = (&*self.policy, &mut self.records, &mut self.counters);
        let room = u32::try_from(records.room()).unwrap_or(u32::MAX);
        let budget = if wait { budget.min(room) } else { budget };
        if budget == 0 {
            return Some(from);
        }
        let next = self.table.scan(from, budget, |entry| {
            if logs_end(policy, entry.session) && !entry.is_peers {
                let record = Record::end(now, policy.generation, &entry, EndReason::Shutdown);
                records.push(record, counters);
            }
        });
        if next.is_some() {
            return next;
        }
        records.release_alerts(counters, wait).then_some(u32::MAX)
    }

    /// Gives up what waits in the engine: it is counted as lost.
    pub fn lose_records(&mut self) {
        while self.records.pop().is_some() {
            self.counters.log_records_lost += 1;
        }
    }

    /// Ends the sessions among `budget` slots from slot `from` on that `unwanted` picks (`sessions kill`). Returns where
    /// to go on (`None`: that was the last slot) and how many ended. Those of the other node of a pair are that node's to end.
    pub fn kill_where(
        &mut self,
        now: Nanos,
        from: u32,
        budget: u32,
        mut unwanted: impl FnMut(&Entry<'_>) -> bool,
    ) -> (Option<u32>, u32) {
        let mut books = Books {
            now,
            policy: &self.policy,
            counters: &mut self.counters,
            rules: &mut self.rules,
            records: &mut self.records,
            resets: None,
            sources: &mut self.sources,
            crew: self.crew.as_mut(),
        };
        let mut killed = 0;
        let next = self.table.retain(from, budget, |entry| {
            if entry.is_peers || !unwanted(&entry) {
                return true;
            }
            books.ended(&entry, EndReason::Killed);
            killed += 1;
            false
        });
        (next, killed)
    }
}

/// Where the end of a session is written down: counters, and the log if its rule says so.
pub(super) struct Books<'a> {
    pub(super) now: Nanos,
    pub(super) policy: &'a Policy,
    pub(super) counters: &'a mut Counters,
    pub(super) rules: &'a mut [RuleCounters],
    pub(super) records: &'a mut Records,
    /// See [`super::record::Account::resets`].
    pub(super) resets: Option<[bool; 2]>,
    pub(super) sources: &'a mut Sources,
    /// The other workers, if there are any.
    pub(super) crew: Option<&'a mut Crew>,
}

impl Books<'_> {
    /// Ends one session.
    pub(super) fn end(&mut self, table: &mut SessionTable, ix: SessionIx, reason: EndReason) {
        if let Some(entry) = table.entry(ix) {
            self.ended(&entry, reason);
            table.remove(ix);
        }
    }

    /// Writes a session down that ends now.
    pub(super) fn ended(&mut self, entry: &Entry<'_>, reason: EndReason) {
        let session = entry.session;
        self.counters.sessions_ended += 1;
        if let Some(rule) = self.rules.get_mut(session.rule.index()) {
            rule.sessions = rule.sessions.saturating_sub(1);
        }
        if session.flags & Session::COUNTED != 0 {
            self.sources.leave(session.rule, &session.source(), self.now);
        }
        // (Of one that is the other node's that node writes.)
        if logs_end(self.policy, session) && !entry.is_peers {
            self.log_end(entry, reason);
        }
        if session.is_away() {
            self.tell_end(session);
        }
    }

    /// Whoever has a redirect entry for it is to hear of it.
    #[cold]
    fn tell_end(&mut self, session: &Session) {
        let noted = self.crew.as_mut().is_none_or(|crew| crew.away_ended(session));
        self.counters.redirects_full += u64::from(!noted);
    }

    #[cold]
    fn log_end(&mut self, entry: &Entry<'_>, reason: EndReason) {
        if self.records.is_on() {
            let record = Record::end(self.now, self.policy.generation, entry, reason);
            self.records.push(record.with_resets(self.resets), self.counters);
        }
    }
}

/// Is the end of this session written to the log? As its rule says now; if that does not allow sessions any more, as it said
/// when the session was last looked at.
#[inline]
fn logs_end(policy: &Policy, session: &Session) -> bool {
    let noted = session.flags & Session::LOG_END != 0;
    if session.generation == policy.generation {
        return noted;
    }
    let rule = policy.rule(session.rule);
    rule.filter(|rule| rule.action == Action::Allow)
        .map_or(noted, |rule| rule.log.end())
}

/// Why a session whose timeout is over ends.
pub(super) fn idled_out(session: &Session) -> EndReason {
    match session.state() {
        SessionState::TimeWait => EndReason::Finished,
        SessionState::Closed => EndReason::Reset,
        _ if session.is_reset() => EndReason::Reset,
        _ => EndReason::Timeout,
    }
}
