//! A worker's part in an HA pair: it does what the HA thread orders, and says what is new of its sessions. Between the two are two
//! bounded queues; neither ever waits for the other.

use crossbeam_queue::ArrayQueue;

use super::frames::Frames;
use crate::base::Nanos;
use crate::engine::rate::Pacer;
use crate::engine::{Engine, Outputs};
use crate::flow::image::BucketSet;
use crate::flow::table::journal::Sums;
use crate::flow::table::{News, Standing};
use crate::packet::PacketBuf;

/// What the HA thread orders. Orders are carried out one after the other: one that takes several turns keeps the others waiting.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a worker neither allocates nor frees")]
pub enum Order {
    /// Take news of the other node's sessions in; whether a session of this node's own gives way to it.
    TakeIn(News, bool),
    /// What was told of this session got lost ([`News::Session`]).
    TellAgain(u64),
    /// The other node has what it was told of this session: what waits for that goes.
    Told(u64),
    /// Sessions are whose this says; whether packets are judged.
    Stand(Standing, bool),
    /// The other node has begun anew: what it said counts no more.
    ForgetHeard,
    /// The other node is there, and knows nothing. Say [`Word::Begun`] with this number.
    BeginTelling(u32),
    /// The other node is gone.
    EndTelling,
    /// Tell of all own sessions in these buckets, so many a second, and say [`Word::ToldAll`] with this number.
    TellAll(BucketSet, u32, u32),
    /// The other node is about to name its sessions ...
    BeginResync,
    /// ... and has named those in these buckets.
    EndResync(BucketSet),
    /// Tell what is new by now, then say [`Word::Told`] with this number: the digests of what was told so far.
    SumTold(u64, Box<Sums>),
    /// Say [`Word::Heard`] with this number: the digests of what was taken in so far.
    SumHeard(u64, Box<Sums>),
    /// Say [`Word::Here`] with this number.
    Ping(u64),
}

/// What a worker says.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a worker neither allocates nor frees")]
pub enum Word {
    /// News of a session of this node's; whether a packet waits until the other node has them ([`Order::Told`]).
    News(News, bool),
    /// What it says from now on is for the other node as it is now: [`Order::BeginTelling`].
    Begun(u32),
    /// All own sessions have been told of, as was ordered by this number.
    ToldAll(u32),
    /// Ends of sessions got lost: all is to be told anew.
    Gap,
    /// See [`Order::SumTold`]: by bucket.
    Told(u64, Box<Sums>),
    /// See [`Order::SumHeard`].
    Heard(u64, Box<Sums>),
    /// It turns.
    Here(u64),
}

/// The queues between the HA thread and one worker.
#[derive(Debug)]
pub struct Queues {
    /// To the worker.
    pub orders: ArrayQueue<Order>,
    /// From the worker.
    pub words: ArrayQueue<Word>,
    /// Packets that cross, of an active-active pair.
    pub frames: Option<Frames>,
}

impl Queues {
    /// Orders and words that wait, each.
    pub const ROOM: usize = 4096;

    /// The same, and packets that cross.
    #[must_use]
    pub fn with_frames(self, frames: Option<Frames>) -> Self {
        Self { frames, ..self }
    }

    /// Empty ones, for `room` orders and words each.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            orders: ArrayQueue::new(room),
            words: ArrayQueue::new(room),
            frames: None,
        }
    }
}

/// Orders in one turn of a worker.
const ORDERS: usize = 64;
/// News in one turn ...
const NEWS: usize = 32;
/// ... that had packets: a worker that is short of time makes new sessions rather than tell of them, and still tells hundreds of
/// thousands a second.
const NEWS_BESIDE_PACKETS: usize = 4;
/// Slots of the table that one turn looks at for news, and to settle.
const BUDGET: u32 = 256;

/// A worker's side of the queues.
#[derive(Debug)]
pub struct Member {
    queues: std::sync::Arc<Queues>,
    /// What found no room.
    unsent: Option<Word>,
    /// All own sessions are told of, by this number.
    telling: Option<u32>,
    /// A cut: the number, where the sums go, and how much of what waited then is still to be told, by kind.
    cut: Option<(u64, Box<Sums>, [usize; 2])>,
    pace: Pacer,
}

impl Member {
    /// Of these queues.
    #[must_use]
    pub fn new(queues: std::sync::Arc<Queues>) -> Self {
        Self {
            queues,
            unsent: None,
            telling: None,
            cut: None,
            pace: Pacer::new(u32::MAX, 1),
        }
    }

    /// A turn's share of the pair's work, which is smaller if the turn `had_packets`. True: there was some, or there is more.
    #[inline]
    pub fn turn<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        now: Nanos,
        had_packets: bool,
        engine: &mut Engine<B>,
        out: &mut O,
    ) -> bool {
        let idle = self.queues.orders.is_empty()
            && engine.news() == 0
            && self.telling.is_none()
            && self.unsent.is_none()
            && self.cut.is_none()
            && !engine.is_settling()
            && !engine.is_announcing();
        if idle {
            return false;
        }
        let news = if had_packets { NEWS_BESIDE_PACKETS } else { NEWS };
        self.work(now, news, engine, out);
        true
    }

    #[inline(never)]
    fn work<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        now: Nanos,
        news: usize,
        engine: &mut Engine<B>,
        out: &mut O,
    ) {
        if engine.is_announcing() {
            engine.announce(now, out);
        }
        if engine.is_settling() {
            engine.step_pair(now, BUDGET);
        }
        for _ in 0..ORDERS {
            // An answer that found no room, or a walk over the table, comes first.
            if !self.flush() || engine.is_settling() {
                break;
            }
            let Some(order) = self.queues.orders.pop() else {
                break;
            };
            self.carry_out(now, order, engine, out);
        }
        self.tell(now, news, engine);
    }

    /// False: there is still no room.
    fn flush(&mut self) -> bool {
        if let Some(word) = self.unsent.take() {
            self.say(word);
        }
        self.unsent.is_none()
    }

    fn say(&mut self, word: Word) {
        self.unsent = self.queues.words.push(word).err();
    }

    fn carry_out<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        now: Nanos,
        order: Order,
        engine: &mut Engine<B>,
        out: &mut O,
    ) {
        match order {
            Order::TakeIn(news, yields) => engine.take_news(now, &news, yields, out),
            Order::TellAgain(name) => engine.tell_again(name),
            Order::Told(name) => engine.told(now, name, out),
            Order::Stand(standing, forwards) => engine.stand(now, standing, forwards),
            Order::ForgetHeard => engine.forget_heard(),
            Order::BeginTelling(number) => {
                (self.telling, self.cut) = (None, None);
                engine.begin_telling();
                self.say(Word::Begun(number));
            }
            Order::EndTelling => {
                (self.telling, self.cut) = (None, None);
                engine.end_telling();
            }
            Order::TellAll(buckets, rate, number) => {
                self.telling = Some(number);
                self.pace = Pacer::new(rate, NEWS as u32);
                engine.tell_all(&buckets);
            }
            Order::BeginResync => engine.begin_resync(),
            Order::EndResync(buckets) => engine.end_resync(&buckets),
            Order::SumTold(number, sums) => self.cut = Some((number, sums, engine.news_by_kind())),
            Order::SumHeard(number, mut sums) => {
                sums.fill(0);
                if let Some((_, heard)) = engine.digests() {
                    *sums = *heard;
                }
                self.say(Word::Heard(number, sums));
            }
            Order::Ping(number) => self.say(Word::Here(number)),
        }
    }

    /// So much less is to be told before a cut.
    fn told(&mut self, before: [usize; 2], after: [usize; 2]) {
        if let Some((_, _, left)) = &mut self.cut {
            for kind in 0..2 {
                left[kind] = left[kind].saturating_sub(before[kind].saturating_sub(after[kind]));
            }
        }
    }

    /// Answers a cut, once all is told that was new when it was asked for.
    fn say_sums<B>(&mut self, engine: &Engine<B>) {
        if self.cut.as_ref().is_none_or(|(_, _, left)| *left != [0; 2]) {
            return;
        }
        if let Some((number, mut sums, _)) = self.cut.take() {
            sums.fill(0);
            if let Some((told, _)) = engine.digests() {
                *sums = *told;
            }
            self.say(Word::Told(number, sums));
        }
    }

    /// Says what is new, as far as there is room.
    fn tell<B>(&mut self, now: Nanos, most: usize, engine: &mut Engine<B>) {
        if self.flush() && engine.take_gap() {
            self.say(Word::Gap);
        }
        let mut budget = BUDGET;
        for _ in 0..most {
            if !self.flush() || self.queues.words.is_full() {
                return;
            }
            self.say_sums(engine);
            if !self.flush() {
                return;
            }
            // Changes go first, and as fast as they can; the others by and by.
            let before = engine.news_by_kind();
            let changes = engine.next_change(now, &mut budget);
            self.told(before, engine.news_by_kind());
            let news = match (changes, self.telling) {
                (Some(news), _) => Some(news),
                (None, Some(_)) if self.pace.try_pass(now) => engine.next_untold(now, &mut budget),
                _ => None,
            };
            match news {
                Some(news) => {
                    let awaited = match news {
                        News::Session(_, name) => engine.has_deferred() && engine.is_awaited(name),
                        News::Gone(..) | News::Station(..) => false,
                    };
                    self.say(Word::News(news, awaited));
                }
                None => break,
            }
        }
        if let Some(number) = self.telling.filter(|_| !engine.is_telling_all()) {
            if self.flush() {
                self.telling = None;
                self.say(Word::ToldAll(number));
            }
        }
    }
}
