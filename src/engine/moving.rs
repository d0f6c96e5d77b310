//! Buckets of the logical table that go from one worker to another, with their sessions, while packets come (ARCHITECTURE.md, "A
//! rebalance").
//!
//! A flow's packets stay in order, and none meets a worker that does not know its session:
//!
//! 1. The new table is given to the *target* first. From then on what reaches it of the buckets waits, in order, in a bounded queue.
//! 2. Every other worker gets the table, and sends what it polls of the buckets to the target from then on. Behind the last packet that
//!    it handed to the *source* by the old table it puts a mark ([`Mark::Switched`]). The source goes on judging what was handed to it
//!    until all marks are in: then it has seen everything that came before.
//! 3. The source sends its sessions, each in one [`Message`]. Meanwhile a mark ([`Mark::Drain`]) goes from it to every other worker and is
//!    answered: what it gave them (to be sent by their ports, or to be judged because of a redirect entry) has been done by then.
//! 4. The source says that this was all ([`Message::Moved`]). The target judges what waited, and the move is over.
//!
//! Sessions for which the target has no room stay where they are; it gets redirect entries for them.
//!
//! Fragments are not moved: a datagram's pieces meet by the table of the start ([`super::steer`]), whatever has been moved since.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::Batch;
use super::leases::{Units, is_older};
use super::limits::count_standing;
use super::message::Message;
use super::steer::Placement;
use super::upkeep::Books;
use super::{DropReason, EndReason, Engine, Outputs};
use crate::base::{Generation, Nanos, SessionIx, WorkerId};
use crate::flow::owner::{BucketSet, BucketTable};
use crate::flow::table::{Moved, SessionId, SessionTable};
use crate::flow::{FlowKey, Session, SessionState};
use crate::packet::PacketBuf;

/// Packets that may wait at a move's target; one more is dropped (`queue_full`).
pub const WAITING: usize = 4096;
/// Sessions for which the target makes room at a time.
const GRANT: u16 = 256;
/// Packets that waited and are judged in one step at most: more than one turn of a worker takes in, so that the queue gets empty.
const RELEASE: usize = 1024;
/// Entries and notes that one step passes on.
const NOTES: usize = 16;
/// What looking for a SYN that is to be sent again costs of a step's budget.
const RETRY_COST: u32 = 256;

/// Which buckets go where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Who has them.
    pub from: WorkerId,
    /// Who gets them.
    pub to: WorkerId,
    /// How many workers there are.
    pub workers: u16,
    /// Which.
    pub buckets: BucketSet,
}

/// What is put behind the packets that one worker has handed to another ([`Outputs::mark`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No packet of the buckets comes after this by an older table than the one of this version.
    Switched(u32),
    /// To be answered with [`Message::Passed`].
    Drain(u32),
}

/// There is no place to note what a session takes along: it stays.
pub(super) struct NoPlace;

/// What a worker has to say to another one, and found no room for yet.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Mark(WorkerId, Mark),
    Passed(WorkerId, u32),
    Granted(WorkerId, u16, Generation),
}

/// The source's progress.
#[derive(Clone, Debug)]
struct Source {
    /// Workers that still get a [`Mark::Drain`]: those below this.
    to_drain: u16,
    /// The slot of its table to go on with; `None`: all were looked at.
    from: Option<u32>,
    /// Sessions for which the target has made room.
    granted: u16,
    /// The target's policy then: the source sends none by an older one, since limits may be others.
    policy: Generation,
    /// It was asked to make room.
    asked: bool,
    /// It has none: so many sessions stay before it is asked again.
    full: u16,
    /// A session that has gone, whose SYN may wait to be sent again.
    retry_of: Option<(SessionId, FlowKey)>,
}

#[derive(Clone, Debug, Default)]
enum Role {
    #[default]
    Bystander,
    Source(Source),
    Target {
        /// All sessions are here.
        complete: bool,
        /// What waited is judged now.
        releasing: bool,
    },
}

/// What one worker has to do with the move that is under way, if one is.
#[derive(Debug, Default)]
pub(super) struct Moving {
    role: Role,
    of: Option<Move>,
    /// Marks that have come to the source: some come before it has the table itself.
    switched: u16,
    drained: u16,
    owed: VecDeque<Owed>,
    /// What became of sessions that are away, for the workers that have redirect entries: flow, hash, and whether it is here.
    notes: VecDeque<(FlowKey, u32, bool)>,
    /// Sessions here with [`Session::AWAY`].
    away: u32,
    /// Sessions for which there is room here, and which are not here yet.
    arriving: u32,
    /// A packet was kept for one of them in this batch.
    pub(super) kept: bool,
}

impl Moving {
    /// Of a table of `most` redirect entries.
    pub(super) fn new(most: usize) -> Self {
        Self {
            // Each worker owes at most two marks, an answer and a grant of each move, and there is one at a time.
            owed: VecDeque::with_capacity(16),
            notes: VecDeque::with_capacity(2 * most),
            ..Self::default()
        }
    }

    /// Is there anything to do?
    #[inline]
    fn is_busy(&self) -> bool {
        self.of.is_some() || !self.owed.is_empty() || !self.notes.is_empty()
    }

    /// Are packets to be looked at with the move in mind?
    #[inline]
    pub(super) fn concerns_packets(&self) -> bool {
        self.of.is_some()
    }

    fn has(&self, hash: u32) -> bool {
        self.of.as_ref().is_some_and(|of| of.buckets.has_hash(hash))
    }

    /// A packet of this hash is this worker's, but its session is not here yet.
    pub(super) fn waits(&self, hash: u32) -> bool {
        matches!(self.role, Role::Target { releasing: false, .. }) && self.has(hash)
    }

    /// A packet of this hash that was handed over is another worker's by now, but was not when it was handed over.
    pub(super) fn is_older(&self, hash: u32) -> bool {
        matches!(self.role, Role::Source(_)) && !self.all_switched() && self.has(hash)
    }

    fn all_switched(&self) -> bool {
        self.of.as_ref().is_some_and(|of| self.switched + 1 >= of.workers)
    }

    fn all_drained(&self) -> bool {
        self.of.as_ref().is_some_and(|of| self.drained + 1 >= of.workers)
    }

    /// Are there sessions that the owner function does not expect here?
    #[inline]
    pub(super) const fn has_away(&self) -> bool {
        self.away > 0
    }

    /// Notes what became of a session that is away. False: there is no room.
    pub(super) fn note(&mut self, key: &FlowKey, hash: u32, is_here: bool) -> bool {
        let room = self.notes.len() < self.notes.capacity();
        if room {
            self.notes.push_back((*key, hash, is_here));
        }
        room
    }

    /// A session that was away has ended.
    pub(super) fn away_ended(&mut self, key: &FlowKey, hash: u32) -> bool {
        self.away = self.away.saturating_sub(1);
        self.note(key, hash, false)
    }

    /// The bucket of a session that is away has come to where it is.
    fn comes_home(&mut self, table: &mut SessionTable, key: &FlowKey) {
        if let Some(ix) = away_in(table, key) {
            table.get_mut(ix).flags &= !Session::AWAY;
            self.away = self.away.saturating_sub(1);
        }
    }

    /// A session is away, and whoever owns its flow is to be told.
    pub(super) fn away_begins(&mut self, key: &FlowKey, hash: u32) -> bool {
        self.away += 1;
        self.note(key, hash, true)
    }
}

/// The session of a flow, if it is away.
fn away_in(table: &SessionTable, key: &FlowKey) -> Option<SessionIx> {
    let found = table.find(key, table.hash(key));
    found.filter(|ix| table.get(*ix).is_away())
}

impl<B> Engine<B> {
    /// From now on `placement` says whose packets are, and a move of buckets begins that makes the difference. The old one comes
    /// back, to be freed off the worker. The target has to be told before all others.
    ///
    /// # Errors
    /// Gives the new one back: this worker is alone, or an earlier move is not over.
    pub fn begin_move(
        &mut self,
        placement: Arc<Placement>,
        of: &Move,
    ) -> Result<Arc<Placement>, Arc<Placement>> {
        let Some(crew) = self.crew.as_mut().filter(|crew| crew.moving.of.is_none()) else {
            return Err(placement);
        };
        let version = placement.buckets.version;
        let moving = &mut crew.moving;
        if crew.me == of.from {
            moving.role = Role::Source(Source {
                to_drain: of.workers,
                from: Some(0),
                granted: 0,
                policy: Generation::default(),
                asked: false,
                full: 0,
                retry_of: None,
            });
        } else {
            moving
                .owed
                .push_back(Owed::Mark(of.from, Mark::Switched(version)));
            moving.role = Role::Bystander;
        }
        if crew.me == of.to {
            moving.role = Role::Target {
                complete: false,
                releasing: false,
            };
        }
        let has_part = crew.me == of.from || crew.me == of.to;
        // (A few words; nothing is allocated.)
        moving.of = has_part.then(|| of.clone());
        Ok(crew.place_by(placement))
    }

    /// Has this worker anything to do with a move, or to say of one? Then [`Engine::step_move`] is to be called with every turn.
    #[inline]
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.crew.as_ref().is_some_and(|crew| crew.moving.is_busy())
    }

    /// Everything that `from` had handed over before this mark was judged, and what came of it sent.
    pub fn passed(&mut self, from: WorkerId, mark: Mark) {
        let Some(crew) = &mut self.crew else { return };
        match mark {
            Mark::Switched(_) => crew.moving.switched += 1,
            Mark::Drain(version) => crew.moving.owed.push_back(Owed::Passed(from, version)),
        }
    }

    /// Sessions here that the owner function does not expect here.
    #[must_use]
    pub fn away(&self) -> u32 {
        self.crew.as_ref().map_or(0, |crew| crew.moving.away)
    }

    /// The version of the table by which packets are placed; none of a worker alone.
    #[must_use]
    pub fn table_version(&self) -> Option<u32> {
        self.crew.as_ref().map(|crew| crew.placement.buckets.version)
    }

    /// Sessions here in each bucket: what a rebalance goes by. `slots` slots from slot `from` on; returns where to go on.
    pub fn count_buckets(&self, from: u32, slots: u32, counts: &mut [u32]) -> Option<u32> {
        let crew = self.crew.as_ref()?;
        self.table.scan(from, slots, |entry| {
            let bucket = BucketTable::bucket(crew.placement.hash_of_session(entry.session));
            if let Some(count) = counts.get_mut(bucket) {
                *count += 1;
            }
        })
    }

    /// Sessions on their way here for which there is room.
    pub(super) fn arriving(&self) -> u32 {
        self.crew.as_ref().map_or(0, |crew| crew.moving.arriving)
    }

    fn set_arriving(&mut self, sessions: u32) {
        if let Some(crew) = &mut self.crew {
            crew.moving.arriving = sessions;
        }
        self.set_quota();
    }

    /// A session of another worker comes, with what it takes of limits.
    pub(super) fn take_in(&mut self, now: Nanos, mut moved: Moved, units: Units) {
        let arriving = self.arriving().saturating_sub(1);
        moved.session.flags &= !(Session::COUNTED | Session::WAITS);
        let session = &moved.session;
        let (rule, source) = (session.rule, session.source());
        let timeout = session.timeout(self.policy.state_timeouts(rule));
        let timeout = self.pressure.scale(self.table.len()).ticks(timeout);
        let hash = self.table.hash(&session.key);
        let is_double = self.table.find(&session.key, hash).is_some();
        let taken = (!is_double).then(|| self.table.unpack(&moved, now.tick(), timeout));
        self.take_units(rule, units);
        self.set_arriving(arriving);
        self.counters.sessions_moved_in += 1;
        if let Some(rule) = self.rules.get_mut(rule.index()) {
            rule.sessions += 1;
        }
        let Some(Ok(ix)) = taken else {
            return self.gives_way(now, &moved, units);
        };
        let session = self.table.get_mut(ix);
        count_standing(&mut self.sources, session, self.policy.rule(rule));
        // One that is not counted frees nothing when it ends.
        let counts = session.flags & Session::COUNTED != 0 || !units.of_source();
        if units.of_source() && (!counts || !self.sources.came_along(rule, &source, now)) {
            self.counters.sources_full += 1;
        }
    }

    /// There was room for a session that came. Should there be none, or another one of its flow, it ends as one that gave way.
    #[cold]
    fn gives_way(&mut self, now: Nanos, moved: &Moved, units: Units) {
        self.counters.sessions_evicted += 1;
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
        books.ended(&moved.entry(), EndReason::Evicted);
        // What it brought of its source's part is paid back as every loan that nobody needs.
        let (rule, source) = (moved.session.rule, moved.session.source());
        if units.of_source() && !self.sources.came_along(rule, &source, now) {
            self.counters.sources_full += 1;
        }
    }

    /// The target makes room for sessions of `source`.
    pub(super) fn make_room_for(&mut self, source: WorkerId) {
        let arriving = self.arriving();
        // What is kept for zones stays theirs.
        let free = self
            .table
            .capacity()
            .saturating_sub(self.table.len())
            .saturating_sub(self.pressure.reserved())
            .min(self.sources.room_for_loans())
            .saturating_sub(arriving);
        let granted = free.min(u32::from(GRANT)) as u16;
        self.set_arriving(arriving + u32::from(granted));
        let policy = self.policy.generation;
        if let Some(crew) = &mut self.crew {
            crew.moving.owed.push_back(Owed::Granted(source, granted, policy));
        }
    }

    /// The target has made room for so many.
    pub(super) fn granted(&mut self, sessions: u16, policy: Generation) {
        let role = self.crew.as_mut().map(|crew| &mut crew.moving.role);
        if let Some(Role::Source(source)) = role {
            source.asked = false;
            source.granted = sessions;
            source.policy = policy;
            source.full = if sessions == 0 { GRANT } else { 0 };
        }
    }

    /// Another worker has done what this one had given it before a mark.
    pub(super) fn drained(&mut self) {
        if let Some(crew) = &mut self.crew {
            crew.moving.drained += 1;
        }
    }

    /// All sessions are here.
    pub(super) fn all_moved(&mut self, cookies_until: Nanos) {
        self.set_arriving(0);
        self.syn.await_until(cookies_until);
        let role = self.crew.as_mut().map(|crew| &mut crew.moving.role);
        if let Some(Role::Target { complete, .. }) = role {
            *complete = true;
        }
    }

    /// A redirect entry that leads here has gone to another worker, or here: then its session is no longer away. `hash`: the owner
    /// function's.
    pub(super) fn entry_moved(&mut self, key: &FlowKey, hash: u32) {
        let Some(crew) = &mut self.crew else { return };
        if crew.placement.buckets.owner(hash) == crew.me {
            crew.moving.comes_home(&mut self.table, key);
        } else if away_in(&self.table, key).is_none() {
            // It has ended: the entry leads nowhere. Without room for a note the next packet will say so.
            let _ = crew.moving.note(key, hash, false);
        }
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Goes on with a move, looking at about `budget` slots of the table, and says what is to be said to other workers. To be called when
    /// everything that was handed over before the marks that have passed was judged, and sent.
    #[cold]
    pub fn step_move<O: Outputs<B>>(&mut self, now: Nanos, budget: u32, out: &mut O) {
        self.pay(out);
        self.tell_notes(out);
        let Some(crew) = &mut self.crew else { return };
        let Some(of) = crew.moving.of.clone() else {
            return;
        };
        let all_switched = crew.moving.all_switched();
        match &mut crew.moving.role {
            Role::Bystander => {}
            Role::Target { complete: false, .. } => {}
            Role::Target { releasing, .. } => {
                *releasing = true;
                self.release(now, out);
            }
            Role::Source(_) if !all_switched => {}
            Role::Source(source) => {
                let mut source = source.clone();
                let over = self.send(&of, &mut source, now, budget, out);
                if let Some(crew) = &mut self.crew {
                    if over {
                        crew.moving.of = None;
                        crew.moving.role = Role::Bystander;
                        (crew.moving.switched, crew.moving.drained) = (0, 0);
                    } else {
                        crew.moving.role = Role::Source(source);
                    }
                }
            }
        }
    }

    /// What is owed, as far as there is room.
    fn pay<O: Outputs<B>>(&mut self, out: &mut O) {
        let Some(crew) = &mut self.crew else { return };
        let owed = &mut crew.moving.owed;
        while let Some(first) = owed.front() {
            let paid = match *first {
                Owed::Mark(to, mark) => out.mark(to, mark),
                Owed::Passed(to, version) => out.tell(to, Message::Passed { version }).is_ok(),
                Owed::Granted(to, sessions, policy) => {
                    out.tell(to, Message::Granted { sessions, policy }).is_ok()
                }
            };
            if !paid {
                return;
            }
            owed.pop_front();
        }
    }

    /// What became of sessions that are away.
    fn tell_notes<O: Outputs<B>>(&mut self, out: &mut O) {
        let Some(crew) = &mut self.crew else { return };
        for _ in 0..NOTES {
            let Some((key, hash, is_here)) = crew.moving.notes.front().copied() else {
                return;
            };
            let owner = crew.placement.buckets.owner(hash);
            if owner == crew.me {
                if is_here {
                    // Its bucket has come to where it is.
                    crew.moving.comes_home(&mut self.table, &key);
                } else {
                    // An entry that led nowhere.
                    self.redirects.remove(&key);
                }
            } else {
                let to = is_here.then_some(crew.me);
                if out.tell(owner, Message::Redirect { key, hash, to }).is_err() {
                    return;
                }
            }
            crew.moving.notes.pop_front();
        }
    }

    /// The source's step. True: the move is over here.
    fn send<O: Outputs<B>>(
        &mut self,
        of: &Move,
        source: &mut Source,
        now: Nanos,
        budget: u32,
        out: &mut O,
    ) -> bool {
        let version = self.table_version().unwrap_or(0);
        while source.to_drain > 0 {
            let worker = WorkerId(source.to_drain - 1);
            if worker != of.from && !out.mark(worker, Mark::Drain(version)) {
                return false;
            }
            source.to_drain -= 1;
        }
        let mut budget = budget;
        while let Some(slot) = source.from {
            if !self.send_retry(of, source, out) || budget == 0 {
                return false;
            }
            if slot >= self.table.used() {
                source.from = None;
                break;
            }
            budget -= 1;
            if !self.is_to_go(of, slot) {
                source.from = Some(slot + 1);
                continue;
            }
            match self.send_session(of, source, SessionIx(slot), now, out) {
                Some(cost) => {
                    budget = budget.saturating_sub(cost);
                    source.from = Some(slot + 1);
                }
                None => return false,
            }
        }
        if !self.send_retry(of, source, out) || !self.send_entries(of, out) {
            return false;
        }
        let drained = self.crew.as_ref().is_some_and(|crew| crew.moving.all_drained());
        let awaited_until = self.syn.awaited_until();
        drained && out.tell(of.to, Message::Moved { awaited_until }).is_ok()
    }

    /// Is there a session in this slot that is to go? (Of one that is away already another worker's entry says where it is.)
    fn is_to_go(&self, of: &Move, slot: u32) -> bool {
        let Some(crew) = &self.crew else { return false };
        self.table.entry(SessionIx(slot)).is_some_and(|entry| {
            !entry.session.is_away() && of.buckets.has_hash(crew.placement.hash_of_session(entry.session))
        })
    }

    /// Sends one session, or has it stay. Returns what that costs of the budget; `None`: later.
    fn send_session<O: Outputs<B>>(
        &mut self,
        of: &Move,
        source: &mut Source,
        ix: SessionIx,
        now: Nanos,
        out: &mut O,
    ) -> Option<u32> {
        if source.full > 0 {
            self.stay(of, ix, now, out)?;
            source.full -= 1;
            return Some(8);
        }
        if source.granted == 0 {
            if !source.asked {
                let asks = Message::Room { source: of.from };
                source.asked = out.tell(of.to, asks).is_ok();
            }
            return None;
        }
        if is_older(self.policy.generation, source.policy) {
            // The limits that it goes by are changing.
            return None;
        }
        let id = self.table.entry(ix)?.id;
        let moved = self.table.pack(ix)?;
        let units = match self.units_of(&moved.session, out)? {
            Ok(units) => units,
            Err(NoPlace) => {
                self.stay(of, ix, now, out)?;
                return Some(8);
            }
        };
        if out.tell(of.to, Message::Session(moved, units)).is_err() {
            return None;
        }
        self.give_units(&moved.session, units, now);
        source.granted -= 1;
        self.leave(now, &moved, ix);
        let session = &moved.session;
        if session.is_proxied() && session.state() == SessionState::SynSent {
            source.retry_of = Some((id, session.key));
            return Some(8 + RETRY_COST);
        }
        Some(8)
    }

    /// A session has gone.
    fn leave(&mut self, now: Nanos, moved: &Moved, ix: SessionIx) {
        let session = &moved.session;
        self.counters.sessions_moved_out += 1;
        if let Some(rule) = self.rules.get_mut(session.rule.index()) {
            rule.sessions = rule.sessions.saturating_sub(1);
        }
        if session.flags & Session::COUNTED != 0 {
            self.sources.leave(session.rule, &session.source(), now);
        }
        self.table.remove_moved(ix);
    }

    /// The target has no room for a session: it stays here, and the target gets a redirect entry, before it judges anything of the
    /// buckets. Where there are too many of these it ends, as it would in a full table.
    fn stay<O: Outputs<B>>(&mut self, of: &Move, ix: SessionIx, now: Nanos, out: &mut O) -> Option<()> {
        let (key, away) = (self.table.get(ix).key, self.away());
        let session = self.table.get(ix);
        let hash = self.crew.as_ref()?.placement.hash_of_session(session);
        if away as usize >= self.redirects.most() {
            self.counters.sessions_evicted += 1;
            self.end(now, ix, EndReason::Evicted, None);
            return Some(());
        }
        let to = Some(of.from);
        out.tell(of.to, Message::Redirect { key, hash, to }).ok()?;
        self.table.get_mut(ix).flags |= Session::AWAY;
        if let Some(crew) = &mut self.crew {
            crew.moving.away += 1;
        }
        Some(())
    }

    /// The SYN of a session that has gone, if it is to be sent again. False: later.
    fn send_retry<O: Outputs<B>>(&mut self, of: &Move, source: &mut Source, out: &mut O) -> bool {
        let Some((id, key)) = source.retry_of else {
            return true;
        };
        if let Some(retry) = self.syn.waiting_of(id) {
            if out.tell(of.to, Message::Retry { key, retry }).is_err() {
                return false;
            }
            self.syn.forget_waiting_of(id);
        }
        source.retry_of = None;
        true
    }

    /// Redirect entries of the buckets go where the buckets go. True: there are none left.
    fn send_entries<O: Outputs<B>>(&mut self, of: &Move, out: &mut O) -> bool {
        for _ in 0..NOTES {
            let Some((key, hash, to)) = self.redirects.any(|hash| of.buckets.has_hash(hash)) else {
                return true;
            };
            // Whoever has the session hears of it, too: it may have ended since, and the target have been told before this.
            let entry = Message::Redirect {
                key,
                hash,
                to: Some(to),
            };
            let told = out.tell(of.to, entry.clone()).is_ok();
            if !told || (to != of.to && out.tell(to, entry).is_err()) {
                return false;
            }
            self.redirects.remove(&key);
        }
        false
    }

    /// The target judges what waited.
    fn release<O: Outputs<B>>(&mut self, now: Nanos, out: &mut O) {
        for _ in 0..RELEASE / super::MAX_BATCH {
            let mut batch = Batch::new();
            let waiting = &mut self.fragments.waiting;
            let of_peer = waiting.front().is_some_and(|next| next.hops.is_from_peer());
            while batch.room() > 0 {
                // Those of the other node have batches of their own.
                if waiting
                    .front()
                    .is_some_and(|next| next.hops.is_from_peer() != of_peer)
                {
                    break;
                }
                let Some(waiting) = waiting.pop_front() else {
                    break;
                };
                // There is room.
                let _ = batch.try_push_handed(waiting.packet, waiting.ingress, waiting.hops);
            }
            if batch.is_empty() {
                break;
            }
            // They were counted when they came.
            self.counters.received -= batch.len() as u64;
            if of_peer {
                self.judge_redirected(now, &mut batch, out);
            } else {
                self.process(now, &mut batch, out);
            }
        }
        if let Some(crew) = &mut self.crew {
            let moving = &mut crew.moving;
            if self.fragments.waiting.is_empty() {
                moving.of = None;
                moving.role = Role::Bystander;
            } else if let Role::Target { releasing, .. } = &mut moving.role {
                // What comes meanwhile waits behind them.
                *releasing = false;
            }
        }
    }

    /// Drops what waits: the node stops.
    pub(super) fn drop_waiting<O: Outputs<B>>(&mut self, out: &mut O) {
        while let Some(waiting) = self.fragments.waiting.pop_front() {
            self.counters.drops[DropReason::QueueFull.index()] += 1;
            let note = super::Note {
                why: super::Why::Elsewhere,
                place: super::Place::Batch(0),
            };
            out.drop(waiting.packet, DropReason::QueueFull, note);
        }
    }
}
