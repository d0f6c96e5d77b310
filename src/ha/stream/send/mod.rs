//! The sending half.

mod cut;

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use cut::{Cut, CutOf, Purpose, Resync};

use super::pace::Pace;
use super::{BARRIER_LIMIT, BARRIER_RETRY, ITEMS, Outgoing, SETTLE_ROUNDS, StreamConfig, listed};
use crate::base::Nanos;
use crate::flow::FlowKey;
use crate::flow::image::{BUCKETS, Birth, Bucket, BucketSet};
use crate::ha::message::{Ack, DigestReport, Frame, Update};
use crate::ha::wire::Writer;

/// Updates that fill a datagram, about: from then on it does not wait for more.
const FULL: usize = 10;
/// Sessions whose acknowledgement is awaited, and was not asked for yet.
const TOLD: usize = 4096;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    /// Updates that were sent,
    pub sent: u64,
    /// of them taken in by the peer,
    pub acknowledged: u64,
    /// and lost on the way, or too late.
    pub lost: u64,
    /// Lost ones that the workers were asked for again.
    pub again: u64,
    /// Frames with a number.
    pub frames: u64,
    /// Times that nothing was acknowledged in time.
    pub timeouts: u64,
    /// Acknowledgements of what was never sent.
    pub bad_acks: u64,
    /// Updates that were given up because the peer was not there, or had started anew.
    pub given_up: u64,
    /// Resyncs that were begun,
    pub resyncs: u64,
    /// and brought to their end.
    pub resynced: u64,
    /// Barriers: found equal, found different, and void because frames got lost.
    pub equal: u64,
    /// See [`Self::equal`].
    pub different: u64,
    /// See [`Self::equal`].
    pub void: u64,
}

/// An update in flight.
#[derive(Clone, Copy, Debug)]
enum Item {
    /// Its newest state can be had from the worker.
    Session {
        worker: u16,
        handle: u64,
        /// Its worker waits for the acknowledgement.
        awaited: bool,
    },
    /// Nobody else remembers it.
    Gone { key: FlowKey, birth: Birth },
}

/// What a frame in flight told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Updates,
    ResyncBegin,
    ResyncEnd,
    Barrier,
}

/// A frame in flight.
#[derive(Clone, Debug, Default)]
struct Flight {
    sent: Nanos,
    told: Told,
    items: ArrayVec<Item, ITEMS>,
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    config: StreamConfig,
    up: bool,
    /// The next number; numbers from `floor` on are in flight.
    next: u64,
    floor: u64,
    flights: Box<[Flight]>,
    pending: VecDeque<Outgoing>,
    /// Updates that ever were in `pending`, and that ever left it.
    pushed: u64,
    popped: u64,
    /// When the oldest of `pending` may have come.
    waits_since: Nanos,
    /// Lost: to be asked for again,
    again: VecDeque<(u16, u64)>,
    /// Acknowledged, and awaited.
    told: VecDeque<(u16, u64)>,
    /// and to be told again.
    gones: VecDeque<Item>,
    /// Items in flight and in the two queues: at most [`ITEMS`] for each frame of the window.
    held: usize,
    pace: Pace,
    /// Frames with updates that were lost.
    losses: u64,
    cut: Cut,
    cut_of: CutOf,
    sums: Box<[u64; BUCKETS]>,
    report: Option<BucketSet>,
    barrier_at: Nanos,
    /// The question of the last comparison that was equal, unless a later one was not.
    equal_asked_at: Option<Nanos>,
    resync: Resync,
    /// Comparisons that were different, one after the other, and when a resync may begin for it.
    futile: u32,
    resync_at: Nanos,
    resync_id: u32,
    resyncing: BucketSet,
    wanted: BucketSet,
    /// Sessions that this node owns, about.
    sessions: u64,
    /// Of the resync under way: to be walked, about; walked.
    to_walk: u64,
    walked: u64,
    /// Tokens of the walk, in billionths, and when they were counted.
    tokens: u64,
    tokens_at: Nanos,
    counters: SenderCounters,
}

impl Outgoing {
    fn item(&self) -> Item {
        match self.update {
            Update::Session(_) | Update::Station(_) => Item::Session {
                worker: self.worker,
                handle: self.handle,
                awaited: self.awaited,
            },
            Update::Gone { key, birth } => Item::Gone { key, birth },
        }
    }
}

impl Sender {
    /// Nothing may be offered before [`Self::start`].
    #[must_use]
    pub fn new(config: StreamConfig) -> Self {
        let window = config.window.max(1) as usize;
        let config = StreamConfig {
            window: window as u32,
            pending: config.pending.max(1),
            ..config
        };
        Self {
            config,
            up: false,
            next: 1,
            floor: 1,
            flights: (0..window).map(|_| Flight::default()).collect(),
            pending: VecDeque::with_capacity(config.pending),
            pushed: 0,
            popped: 0,
            waits_since: Nanos(0),
            again: VecDeque::with_capacity(window * ITEMS),
            told: VecDeque::with_capacity(TOLD),
            gones: VecDeque::with_capacity(window * ITEMS),
            held: 0,
            pace: Pace::new(config.window),
            losses: 0,
            cut: Cut::None,
            cut_of: CutOf {
                purpose: Purpose::Barrier,
                round: 0,
                asked_at: Nanos(0),
                losses: 0,
                first_part: 0,
            },
            sums: Box::new([0; BUCKETS]),
            report: None,
            barrier_at: Nanos(0),
            equal_asked_at: None,
            resync: Resync::None,
            futile: 0,
            resync_at: Nanos(0),
            resync_id: 0,
            resyncing: BucketSet::NONE,
            wanted: BucketSet::NONE,
            sessions: 0,
            to_walk: 0,
            walked: 0,
            tokens: 0,
            tokens_at: Nanos(0),
            counters: SenderCounters::default(),
        }
    }

    /// The peer is there, and knows nothing, or one does not know what: everything is to be told.
    pub fn start(&mut self, now: Nanos) {
        self.stop();
        self.up = true;
        self.barrier_at = now;
        (self.futile, self.resync_at) = (0, now);
        self.wanted = BucketSet::ALL;
    }

    /// The peer's process is another one: numbers begin anew.
    pub fn reset(&mut self) {
        self.stop();
        (self.next, self.floor) = (1, 1);
        self.pace = Pace::new(self.config.window);
    }

    /// The peer is not there: nothing is told, and what was on its way is forgotten.
    pub fn stop(&mut self) {
        self.counters.given_up += (self.held + self.pending.len()) as u64;
        self.up = false;
        self.popped = self.pushed;
        self.pending.clear();
        self.again.clear();
        self.told.clear();
        self.gones.clear();
        for number in self.floor..self.next {
            self.flight(number).items.clear();
        }
        self.floor = self.next;
        self.held = 0;
        self.cut = Cut::None;
        self.cut_of.round += 1;
        self.resync = Resync::None;
        self.wanted = BucketSet::NONE;
        self.equal_asked_at = None;
    }

    /// May updates be offered?
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Takes an update; `false`: there is no room, or no peer.
    pub fn offer(&mut self, now: Nanos, outgoing: Outgoing) -> bool {
        if !self.up || self.pending.len() >= self.config.pending {
            return false;
        }
        if self.pending.is_empty() {
            self.waits_since = now;
        }
        self.pending.push_back(outgoing);
        self.pushed += 1;
        true
    }

    fn flight(&mut self, number: u64) -> &mut Flight {
        let place = (number % self.flights.len() as u64) as usize;
        &mut self.flights[place]
    }

    /// Frames in flight.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.next - self.floor
    }

    /// Updates that it holds: in flight, lost and not asked for yet, not sent yet. Bounded by the window and `pending`.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held + self.pending.len()
    }

    // What is sent.

    /// Writes the next frame that takes a number, if there is one and it may be sent now: one a datagram.
    pub fn transmit(&mut self, now: Nanos, writer: &mut Writer<'_>) -> bool {
        self.advance(now);
        let window = u64::from(self.pace.window().min(self.config.window));
        if !self.up || self.in_flight() >= window {
            return false;
        }
        let number = self.next;
        let told = match (self.resync, self.cut) {
            (_, Cut::Telling { from }) => self.tell_sums(now, from, writer),
            (Resync::Begin { sent: false }, _) => self.tell_begin(writer),
            (Resync::End { sent: false }, _) => self.tell_end(writer),
            _ => self.tell_updates(now, writer),
        };
        let Some(told) = told else {
            return false;
        };
        self.counters.frames += 1;
        self.next += 1;
        let flight = self.flight(number);
        (flight.sent, flight.told) = (now, told);
        self.place_cut(now);
        true
    }

    fn tell_begin(&mut self, writer: &mut Writer<'_>) -> Option<Told> {
        let frame = Frame::ResyncBegin {
            number: self.next,
            resync: self.resync_id,
            buckets: listed(&self.resyncing),
            sessions: self.to_walk,
        };
        if !writer.frame(&frame) {
            return None;
        }
        self.resync = Resync::Begin { sent: true };
        Some(Told::ResyncBegin)
    }

    fn tell_end(&mut self, writer: &mut Writer<'_>) -> Option<Told> {
        let frame = Frame::ResyncEnd {
            number: self.next,
            resync: self.resync_id,
        };
        if !writer.frame(&frame) {
            return None;
        }
        self.resync = Resync::End { sent: true };
        Some(Told::ResyncEnd)
    }

    fn tell_sums(&mut self, now: Nanos, from: usize, writer: &mut Writer<'_>) -> Option<Told> {
        let rest = self.sums.get(from..)?;
        let count = writer.barrier(self.next, self.cut_of.round, Bucket(from as u16), rest);
        if count == 0 {
            return None;
        }
        self.cut = if from + count < BUCKETS {
            Cut::Telling { from: from + count }
        } else {
            Cut::Sent {
                number: self.next + 1,
                since: now,
            }
        };
        Some(Told::Barrier)
    }

    /// Of `pending`, how many may be told now: what is behind a cut waits for it.
    fn may_tell(&self) -> usize {
        match self.cut {
            Cut::Waits { updates } => (updates - self.popped) as usize,
            _ => self.pending.len(),
        }
    }

    fn tell_updates(&mut self, now: Nanos, writer: &mut Writer<'_>) -> Option<Told> {
        let ready_updates = self.may_tell();
        let ready = self.gones.len() + ready_updates;
        let is_cut = matches!(self.cut, Cut::Waits { .. });
        let lingers = ready < FULL
            && !is_cut
            && self.in_flight() > 0
            && now < self.lingers_until()
            && !self.pending.iter().take(ready_updates).any(|of| of.awaited);
        if ready == 0 || lingers || !writer.sync(self.next) {
            return None;
        }
        let place = (self.next % self.flights.len() as u64) as usize;
        let items = &mut self.flights[place].items;
        items.clear();
        // Best known before the updates; without room for it they would have none either.
        let is_awaited = self
            .pending
            .iter()
            .take(ready_updates.min(ITEMS))
            .any(|of| of.awaited);
        if is_awaited && !writer.hasten() {
            return None;
        }
        while let Some(Item::Gone { key, birth }) = self.gones.front().copied() {
            if items.is_full() || !writer.update(&Update::Gone { key, birth }) {
                break;
            }
            self.gones.pop_front();
            self.held -= 1;
            items.push(Item::Gone { key, birth });
        }
        for _ in 0..ready_updates {
            let Some(outgoing) = self.pending.front() else {
                break;
            };
            if items.is_full() || !writer.update(&outgoing.update) {
                break;
            }
            items.push(outgoing.item());
            self.pending.pop_front();
            self.popped += 1;
        }
        self.waits_since = now;
        self.held += items.len();
        self.counters.sent += items.len() as u64;
        Some(Told::Updates)
    }

    fn lingers_until(&self) -> Nanos {
        self.waits_since.plus(self.config.linger)
    }

    // What became of it.

    /// The peer says what it has taken in.
    pub fn acknowledged(&mut self, now: Nanos, ack: Ack) {
        if ack.highest >= self.next {
            self.counters.bad_acks += 1;
            return;
        }
        if ack.highest < self.floor {
            return;
        }
        let ago = now.since(self.flight(ack.highest).sent);
        let (mut taken, mut lost) = (0, false);
        for number in self.floor..=ack.highest {
            let back = ack.highest - number;
            let is_taken = back == 0 || back <= 64 && (ack.before >> (back - 1)) & 1 != 0;
            self.resolve(number, is_taken);
            taken += u32::from(is_taken);
            lost |= !is_taken;
        }
        self.floor = ack.highest + 1;
        self.pace.acknowledged(ago, taken, lost, ack.highest, self.next);
        self.advance(now);
    }

    /// What the peer says to a barrier.
    pub fn report(&mut self, now: Nanos, report: &DigestReport) {
        if self.cut_of.purpose == Purpose::Barrier
            && self.cut_of.round == report.barrier
            && matches!(self.cut, Cut::Sent { .. })
        {
            let mut differ = BucketSet::NONE;
            report.differ.iter().for_each(|bucket| differ.insert(*bucket));
            self.report = Some(differ);
            self.advance(now);
        }
    }

    /// All that is in flight is lost: nobody can read it any more.
    pub fn lose_all(&mut self, now: Nanos) {
        while self.floor < self.next {
            self.resolve(self.floor, false);
            self.floor += 1;
        }
        self.advance(now);
    }

    /// Time goes on.
    pub fn tick(&mut self, now: Nanos) {
        let timeout = self.pace.timeout();
        let mut timed_out = false;
        while self.floor < self.next && now >= self.flight(self.floor).sent.plus(timeout) {
            self.resolve(self.floor, false);
            self.floor += 1;
            timed_out = true;
        }
        if timed_out {
            self.counters.timeouts += 1;
            self.pace.timed_out(self.next);
        }
        self.advance(now);
    }

    /// When [`Self::tick`], or [`Self::transmit`], has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Nanos> {
        if !self.up {
            return None;
        }
        let place = (self.floor % self.flights.len() as u64) as usize;
        let flight = (self.in_flight() > 0).then(|| self.flights[place].sent.plus(self.pace.timeout()));
        let cut = match self.cut {
            Cut::None if self.resync == Resync::None && self.wanted.is_empty() => Some(self.barrier_at),
            Cut::None if self.resync == Resync::None => Some(self.resync_at),
            Cut::Sent { since, .. } if self.cut_of.purpose == Purpose::Barrier => {
                Some(since.plus(BARRIER_LIMIT))
            }
            _ => None,
        };
        let has_room = self.in_flight() < u64::from(self.pace.window());
        let linger = (has_room && self.gones.len() + self.may_tell() > 0).then(|| self.lingers_until());
        [flight, cut, linger].into_iter().flatten().min()
    }

    /// It is known what became of a frame.
    fn resolve(&mut self, number: u64, is_taken: bool) {
        let place = (number % self.flights.len() as u64) as usize;
        let Flight { sent, told, items } = &mut self.flights[place];
        match *told {
            Told::Updates if is_taken => {
                self.held -= items.len();
                for item in &*items {
                    match item {
                        // Without room for it the packet waits until its time is over.
                        Item::Session {
                            worker,
                            handle,
                            awaited: true,
                        } if self.told.len() < TOLD => self.told.push_back((*worker, *handle)),
                        _ => {}
                    }
                }
                self.counters.acknowledged += items.len() as u64;
            }
            Told::Updates => {
                self.losses += 1;
                self.counters.lost += items.len() as u64;
                for item in &*items {
                    match item {
                        Item::Session { worker, handle, .. } => self.again.push_back((*worker, *handle)),
                        Item::Gone { .. } => self.gones.push_back(*item),
                    }
                }
            }
            Told::ResyncBegin if is_taken => self.resync = Resync::Walk,
            Told::ResyncBegin => self.resync = Resync::Begin { sent: false },
            Told::ResyncEnd if is_taken => {
                self.counters.resynced += 1;
                self.resync = Resync::None;
                // Is it equal now?
                self.barrier_at = Nanos(0);
            }
            Told::ResyncEnd => self.resync = Resync::End { sent: false },
            Told::Barrier if is_taken => {}
            Told::Barrier => {
                let again_at = sent.plus(BARRIER_RETRY);
                self.lose_part(number, again_at);
            }
        }
        self.flights[place].items.clear();
    }

    /// The next session that the peer has, and whose worker waits for that: the worker, and its handle.
    pub fn take_told(&mut self) -> Option<(u16, u64)> {
        self.told.pop_front()
    }

    /// The next session to be asked for again: a worker, and its handle.
    pub fn take_again(&mut self) -> Option<(u16, u64)> {
        let lost = self.again.pop_front()?;
        self.held -= 1;
        self.counters.again += 1;
        Some(lost)
    }
}
