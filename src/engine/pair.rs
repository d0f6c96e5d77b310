//! The engine's side of an HA pair: what the other node is told of sessions, what it says of its own, and whose sessions are whose
//! (ARCHITECTURE.md, "The HA pair"). What goes over the wire is `ha`'s.
//!
//! Sessions of the other node stand in the same table. They have no policy that they were judged by ([`Generation`] 0), so that their
//! first packet here takes the slow path: there the policy is asked again, and a session that was the other node's is adopted. The
//! fast path knows nothing of all this.

use super::defer::{DEFERRED, Patience};
use super::limits::count_standing;
use super::message::Message;
use super::offers::Offers;
use super::process::{Act, FlowPacket};
use super::stations::Known;
use super::{Engine, IMPLICIT_DROP, Outputs};
use crate::base::{Generation, Memory, Nanos, SessionIx, Tick, WorkerId};
use crate::flow::image::{Birth, BucketSet, DigestKey, Image};
use crate::flow::relearn::Relearnt;
use crate::flow::table::journal::Sums;
use crate::flow::table::{Entry, Journal, News, Standing, TakenIn};
use crate::flow::{FlowKey, Segment, Session, TableError};
use crate::packet::PacketBuf;
use crate::packet::parse::protocol;

/// How far the numbers of a TCP connection may be from what is known of them when this node adopts it, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Bytes, each way.
    pub bytes: u32,
    /// From the session's first packet on.
    pub time: Nanos,
}

/// What makes an engine one of a pair's.
#[derive(Clone, Copy)]
pub struct PairSetup {
    /// Keys the digests of sessions.
    pub key: DigestKey,
    /// Of sessions that the other node has had.
    pub adoption: Adoption,
    /// Ends of sessions that wait to be told, at most; with more of them everything is told anew.
    pub ends: usize,
}

/// A walk over the table for some buckets, and the slot where it goes on.
type Walk = (u32, BucketSet);

/// What an engine of a pair has besides its table's journal.
pub(super) struct Pair {
    /// Packets are judged; else all of them are dropped.
    forwards: bool,
    adoption: Adoption,
    /// When all sessions became this node's own.
    own_since: Nanos,
    /// Marks follow a new standing.
    settling: Option<u32>,
    /// Sessions that are to be told, changed or not.
    telling: Option<Walk>,
    /// Sessions that the other node has not named are to go.
    sweeping: Option<Walk>,
    /// The hosts around the node.
    pub(super) known: Known,
    /// What goes to the other node to be judged there.
    pub(super) offers: Offers,
    pub(super) patience: Patience,
}

/// Sessions that one step of a sweep ends at most.
const SWEEP: usize = 64;

impl<B> Engine<B> {
    /// The same engine, of a node that is one of a pair: it forwards nothing, and all sessions are the other node's, until
    /// [`Engine::stand`] says otherwise. Before the first session.
    ///
    /// # Errors
    /// When the memory is not there.
    pub fn with_pair(mut self, setup: &PairSetup, memory: &impl Memory) -> Result<Self, TableError> {
        let journal = Journal::new(self.table.capacity(), memory, setup.key, setup.ends)?;
        self.table = self.table.with_journal(journal);
        self.table.set_standing(Standing::Follow);
        self.fragments.deferred.reserve_exact(DEFERRED);
        self.pair = Some(Box::new(Pair {
            forwards: false,
            adoption: setup.adoption,
            own_since: Nanos(0),
            settling: None,
            telling: None,
            sweeping: None,
            known: Known::default(),
            offers: Offers::default(),
            patience: Patience::DEFAULT,
        }));
        Ok(self)
    }

    /// Are packets judged? (Of a node that follows in its pair none is.)
    #[inline]
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.pair.as_ref().is_none_or(|pair| pair.forwards)
    }

    /// From now on sessions are whose `standing` says, and packets are judged or not. Takes effect at once; [`Engine::step_pair`] does
    /// what is left to do.
    pub fn stand(&mut self, now: Nanos, standing: Standing, forwards: bool) {
        let Some(pair) = &mut self.pair else { return };
        if forwards && !pair.forwards {
            // Switches send to the other node what is for these.
            pair.known.next = Some(0);
        }
        pair.forwards = forwards;
        let before = self.table.journal().map(Journal::standing);
        if before == Some(standing) {
            return;
        }
        self.table.set_standing(standing);
        pair.telling = None;
        pair.sweeping = None;
        pair.settling = Some(0);
        if standing == Standing::Own {
            pair.own_since = now;
        }
    }

    /// The other node has begun anew: nothing that it said before counts. Its sessions stay until it has named those that it has.
    pub fn forget_heard(&mut self) {
        self.table.forget_heard();
        if let Some(pair) = &mut self.pair {
            pair.sweeping = None;
        }
    }

    /// The other node is there, and knows nothing.
    pub fn begin_telling(&mut self) {
        self.table.begin_telling();
        if let Some(pair) = &mut self.pair {
            pair.known.stations.tell_all();
        }
        self.end_telling_all();
    }

    /// The other node is gone.
    pub fn end_telling(&mut self) {
        self.table.end_telling();
        self.end_telling_all();
    }

    fn end_telling_all(&mut self) {
        if let Some(pair) = &mut self.pair {
            pair.telling = None;
        }
    }

    /// Tells the other node all own sessions of these buckets, changed or not.
    pub fn tell_all(&mut self, buckets: &BucketSet) {
        if let Some(pair) = &mut self.pair {
            pair.telling = Some((0, *buckets));
        }
    }

    /// Is [`Engine::tell_all`] still under way?
    #[must_use]
    pub fn is_telling_all(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.telling.is_some())
    }

    /// What was told of this session got lost.
    pub fn tell_again(&mut self, name: u64) {
        let is_station = |pair: &mut Box<Pair>| pair.known.stations.tell_again(name);
        if !self.pair.as_mut().is_some_and(is_station) {
            self.table.tell_again(name);
        }
    }

    /// Was an end of a session lost for want of room, so that all are to be told anew? Asking forgets it.
    pub fn take_gap(&mut self) -> bool {
        self.table.journal_mut().is_some_and(Journal::take_gap)
    }

    /// How many news wait, at most.
    #[inline]
    #[must_use]
    pub fn news(&self) -> usize {
        let stations = self.pair.as_ref().map_or(0, |pair| pair.known.stations.news());
        stations + self.table.journal().map_or(0, Journal::len)
    }

    /// The same by kind: changes, and ends. Of each kind the oldest goes first.
    #[must_use]
    pub fn news_by_kind(&self) -> [usize; 2] {
        self.table.journal().map_or([0; 2], Journal::waiting)
    }

    /// The next change that the other node is to be told, looking at `budget` slots of the table at most.
    pub fn next_change(&mut self, now: Nanos, budget: &mut u32) -> Option<News> {
        let policy = &*self.policy;
        let news = self
            .table
            .next_news(now, budget, |id| policy.rule(id).map_or(0, |rule| rule.name_hash));
        news.or_else(|| {
            let (station, name) = self.pair.as_mut()?.known.stations.next_news()?;
            Some(News::Station(station, name))
        })
    }

    /// The next session that [`Engine::tell_all`] asked for, looking at `budget` slots of the table at most.
    pub fn next_untold(&mut self, now: Nanos, budget: &mut u32) -> Option<News> {
        let policy = &*self.policy;
        let rule = |id| policy.rule(id).map_or(0, |rule| rule.name_hash);
        let (from, buckets) = self.pair.as_mut()?.telling.as_mut()?;
        while *from < self.table.used() {
            *budget = budget.checked_sub(1)?;
            let ix = SessionIx(*from);
            *from += 1;
            let wanted =
                self.table.entry(ix).is_some() && self.table.bucket(ix).is_some_and(|b| buckets.has(b));
            if wanted {
                let news = self.table.tell(ix, now, rule);
                if news.is_some() {
                    return news;
                }
            }
        }
        if let Some(pair) = &mut self.pair {
            pair.telling = None;
        }
        None
    }

    /// Digests by bucket, modulo 2^64: of the own sessions as last told, and of the other node's as taken in.
    #[must_use]
    pub fn digests(&self) -> Option<(&Sums, &Sums)> {
        self.table
            .journal()
            .map(|journal| (journal.told(), journal.heard()))
    }

    /// The other node is about to name all its sessions ...
    pub fn begin_resync(&mut self) {
        self.table.begin_resync();
        if let Some(pair) = &mut self.pair {
            pair.sweeping = None;
        }
    }

    /// ... and has named those of these buckets: what it has not named goes, by and by ([`Engine::step_pair`]).
    pub fn end_resync(&mut self, buckets: &BucketSet) {
        if let Some(pair) = &mut self.pair {
            pair.sweeping = Some((0, *buckets));
        }
    }

    /// Is there something left for [`Engine::step_pair`]? What the other node says meanwhile waits.
    #[inline]
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.pair
            .as_ref()
            .is_some_and(|pair| pair.settling.is_some() || pair.sweeping.is_some())
    }

    /// Is there something left to say in the name of hosts ([`Engine::announce`])?
    #[inline]
    #[must_use]
    pub fn is_announcing(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.known.next.is_some())
    }

    /// Goes on with what a change of standing or a resync left to do, looking at about `budget` slots of the table.
    #[cold]
    pub fn step_pair(&mut self, now: Nanos, budget: u32) {
        let Some(pair) = &mut self.pair else { return };
        if let Some(from) = pair.settling {
            pair.settling = self.table.settle_standing(from, budget);
            return;
        }
        let Some((from, buckets)) = pair.sweeping else {
            return;
        };
        let (mut slots, mut count) = ([SessionIx(0); SWEEP], 0);
        let next = self.table.unnamed(
            from,
            budget.min(SWEEP as u32),
            |bucket| buckets.has(bucket),
            |ix| {
                slots[count] = ix;
                count += 1;
            },
        );
        pair.sweeping = next.map(|from| (from, buckets));
        for ix in &slots[..count] {
            self.let_go(now, *ix);
        }
    }

    /// A session of the other node's ends here because it says so. Nothing is written to the logs: that is the other node's to do.
    fn let_go(&mut self, now: Nanos, ix: SessionIx) {
        let session = *self.table.get(ix);
        self.counters.sessions_synced_out += 1;
        if let Some(rule) = self.rules.get_mut(session.rule.index()) {
            rule.sessions = rule.sessions.saturating_sub(1);
        }
        if session.flags & Session::COUNTED != 0 {
            self.sources.leave(session.rule, &session.source(), now);
        }
        self.table.remove(ix);
    }

    /// How long a session of this node's that the other one has had may idle on, in ticks; `None`: not longer than any other.
    pub(super) fn put_off(pair: Option<&Pair>, entry: &Entry<'_>, now: Tick, timeout: u32) -> Option<u32> {
        let pair = pair?;
        if entry.is_peers {
            // Its owner says when it ends.
            return Some(timeout.max(1));
        }
        // It may have had packets that this node does not know of, until it became its own.
        let idle_since = pair.own_since.tick();
        let late = now.distance(idle_since.plus(timeout.saturating_add(1)));
        let is_new = entry.session.last_seen().distance(idle_since) < 0;
        (is_new && entry.session.generation == Generation(0) && late < 0).then(|| late.unsigned_abs())
    }

    fn take_gone(&mut self, now: Nanos, key: &FlowKey, birth: Birth) {
        if let Some(ix) = self.table.find_gone(key, birth) {
            self.let_go(now, ix);
        }
    }

    /// Returns the session that was there and is what it says now.
    fn take_image(&mut self, now: Nanos, image: &Image, yields: bool) -> Option<SessionIx> {
        let policy = &*self.policy;
        let rule = policy.rule_named(image.rule);
        let (id, mut flags) = (rule.map_or(IMPLICIT_DROP, |rule| rule.id), 0);
        if let Some(rule) = rule {
            if rule.reset_on_timeout && image.key.protocol == protocol::TCP {
                flags |= Session::RESETS;
            }
            if !rule.tcp_strict {
                flags |= Session::LIBERAL;
            }
            if rule.log.end() {
                flags |= Session::LOG_END;
            }
        }
        let timeout = policy.state_timeouts(id).ticks(image.state);
        // What the session there counts for is given back before the new one takes its place.
        let before = self
            .table
            .find(&image.key, self.table.hash(&image.key))
            .map(|ix| *self.table.get(ix));
        let taken = self.table.take_image(image, now, (id, flags), timeout, yields);
        match taken {
            TakenIn::Changed(ix) => {
                if let Some(before) = before {
                    if let Some(rule) = self.rules.get_mut(before.rule.index()) {
                        rule.sessions = rule.sessions.saturating_sub(1);
                    }
                    if before.flags & Session::COUNTED != 0 {
                        self.sources.leave(before.rule, &before.source(), now);
                    }
                }
                self.count_taken(ix);
                Some(ix)
            }
            TakenIn::New(ix) => {
                self.counters.sessions_synced_in += 1;
                self.count_taken(ix);
                None
            }
            TakenIn::Full => {
                self.counters.sync_refused += 1;
                None
            }
            TakenIn::Old | TakenIn::Ours(_) => None,
        }
    }

    fn count_taken(&mut self, ix: SessionIx) {
        let rule = self.table.get(ix).rule;
        if let Some(rule) = self.rules.get_mut(rule.index()) {
            rule.sessions += 1;
        }
        let rule = self.policy.rule(rule);
        count_standing(&mut self.sources, self.table.get_mut(ix), rule);
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Takes news of the other node's sessions in: the owner's, here or, by a message, at another worker. If both nodes have made the
    /// session, this one's goes if it `yields`.
    pub fn take_news<O: Outputs<B>>(&mut self, now: Nanos, news: &News, yields: bool, out: &mut O) {
        if let Some(owners) = self.owners_of_news(news) {
            for (place, owner) in owners.iter().enumerate() {
                let is_new = !owners[..place].contains(owner);
                if is_new && out.tell(*owner, Message::Peer(*news, yields)).is_err() {
                    // The digests will tell.
                    self.counters.sync_refused += 1;
                }
            }
            return;
        }
        match news {
            News::Session(image, _) => {
                if let Some(ix) = self
                    .take_image(now, image, yields)
                    .filter(|_| self.has_deferred())
                {
                    // If it was this node's before, the other one knows it.
                    let name = self.table.name_of(ix);
                    self.told(now, name, out);
                }
            }
            News::Gone(key, birth) => self.take_gone(now, key, *birth),
            News::Station(station, _) => {
                if let Some(pair) = &mut self.pair {
                    pair.known.note(*station, false);
                }
            }
        }
    }

    /// The other workers whose session it may be.
    fn owners_of_news(&self, news: &News) -> Option<[WorkerId; 2]> {
        let crew = self.crew.as_ref()?;
        let owners = match news {
            News::Session(image, _) => [crew.placement.owner_of_image(image); 2],
            // Whoever has it.
            News::Gone(key, _) if self.table.find(key, self.table.hash(key)).is_some() => return None,
            News::Gone(key, _) => crew.placement.owners_of_key(key),
            News::Station(..) => [WorkerId(0); 2],
        };
        (!owners.contains(&crew.me)).then_some(owners)
    }
}

impl Act<'_> {
    /// A session that no policy of this run has let in comes to its first packet here, or learns its numbers still.
    #[cold]
    pub(super) fn adopt(&mut self, ix: SessionIx) {
        let Some(pair) = self.pair.as_deref() else { return };
        let session = self.table.get_mut(ix);
        if session.learns_until != 0 {
            return;
        }
        if session.key.protocol == protocol::TCP {
            let until = self.now.plus(pair.adoption.time).tick().0 as u16;
            session.learns_until = until.max(1);
        }
        self.table.adopt_peers(ix);
    }

    /// A segment of a connection whose numbers may be learnt. True: it passes, and nothing is known of it.
    #[cold]
    pub(super) fn learns(&mut self, flow: &FlowPacket<'_>, ix: SessionIx, segment: &Segment) -> bool {
        let Some(bytes) = self.pair.as_ref().map(|pair| pair.adoption.bytes) else {
            return false;
        };
        let until = self.table.get(ix).learns_until;
        let is_over = (self.tick.0 as u16).wrapping_sub(until) as i16 >= 0;
        let (relearnt, learnt) = if is_over {
            (Relearnt::Judge, true)
        } else {
            self.table.relearn(ix, flow.direction, segment, bytes)
        };
        let session = self.table.get_mut(ix);
        if learnt {
            session.learns_until = 0;
        } else {
            // The next packet comes by here, too.
            session.generation = Generation(0);
        }
        relearnt == Relearnt::Pass
    }
}
