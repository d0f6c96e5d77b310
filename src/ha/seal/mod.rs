//! Datagrams that nobody but the two nodes can read, forge or replay: AES-256-GCM (NIST SP 800-38D) under keys derived from the pair's
//! key by HKDF-SHA256 (RFC 5869). Without I/O: time, bytes and randomness come as arguments.
//!
//! A datagram is a header in clear ([`header`]), which the seal covers, and the sealed frames. Its key is derived of the pair's key,
//! who sends it, a *salt* of its sender's and a *salt* of its receiver's, the sending thread and its epoch; its nonce is the
//! thread and a counter that never goes back. So both directions, all threads and all starts have keys of their own, and no key
//! sees a nonce twice.
//!
//! # Who is there
//!
//! A salt is 8 bytes that name the process (its *start*) and 8 that are new with each *association*: two salts, one of each node. Both
//! nodes have a *next* salt, which nothing of the peer's can have been sealed for before it was told to it.
//!
//! 1. A node that has no association, or has heard nothing in it for a while, says hello: sealed from its next salt for no salt.
//!    Anybody can replay that: a hello is believed in nothing, and only answered.
//! 2. The answer is sealed from the answerer's next salt for the salt of the hello.
//! 3. What comes in sealed for the own next salt is from a peer that lives, whoever's salt it comes from: the two salts are the
//!    new association, the former one is over, and the next salt is another one.
//!
//! So both take the association up with the first datagram that the other can only have made just now, hellos that cross do no harm,
//! and what was recorded earlier opens nothing. A next salt that was told and came to nothing is given up after a few seconds, so
//! that a datagram that was held up on its way cannot be kept for long to start with. A peer that starts anew has another start in
//! its salt; one that comes back after a silence has the same.

mod counters;
mod header;
mod key;
mod receive;
mod send;
mod window;

pub use counters::{Refused, SealCounters};
pub use key::{PairKey, PairKeyError};
pub use send::Sealer;

use header::{Header, Kind, Salt};
use key::{Mixed, derive};
use receive::Association;
use zeroize::Zeroizing;

use super::message::NodeId;
use crate::base::Nanos;

/// Bytes in clear before the sealed ones.
pub const HEADER: usize = header::SIZE;
/// Bytes of the authentication tag behind them.
pub const TAG: usize = 16;
/// What sealing adds to a plaintext.
pub const OVERHEAD: usize = HEADER + TAG;

/// Threads of a node that may send: the HA thread (0) and its workers (from 1).
pub const THREADS: u16 = 1 + 256;

/// Hellos of so many peers are answered in turn (of one pair there is one, and what was recorded of it).
const HELLOS: usize = 8;
/// A hello is answered this long after the one before from the same salt, at the earliest.
const ANSWER_EVERY: Nanos = Nanos::from_millis(10);
/// A next salt is told for so long at most.
const NEXT_FOR: Nanos = Nanos::from_secs(10);

/// How a node seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealConfig {
    /// This node; the peer is the other one of 1 and 2.
    pub node: NodeId,
    /// Datagrams that a thread seals under one key. 2^28 of them are far from what AES-GCM's bounds allow (NIST SP 800-38D,
    /// section 8.3: 2^32 datagrams).
    pub rekey_after: u64,
    /// How long a thread seals under one key.
    pub rekey_time: Nanos,
    /// How long a receiver takes datagrams under the former key after the first under a new one.
    pub grace: Nanos,
    /// After this long without a datagram that was believed, hellos are sent again.
    pub silence: Nanos,
}

impl SealConfig {
    /// What is used where nobody says otherwise.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            rekey_after: 1 << 28,
            rekey_time: Nanos::from_secs(3600),
            grace: Nanos::from_secs(5),
            silence: Nanos::from_secs(1),
        }
    }

    /// The other node of the pair.
    #[must_use]
    pub const fn peer(&self) -> NodeId {
        NodeId(3 - if self.node.0 == 2 { 2 } else { 1 })
    }
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The peer's salt is not known yet: hellos go first.
    #[error("the peer has not been heard of yet")]
    NoPeer,
    /// The buffer has no room for header and tag.
    #[error("no room for the header and the tag")]
    NoRoom,
    /// More epochs or bytes than there can be.
    #[error("the keys are used up, or the datagram is too long")]
    Exhausted,
}

/// What a datagram was that had the right seal.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// The peer wants to begin, or somebody has recorded that it once did.
    Hello {
        /// It is to be answered: [`Seal::answer`], by the way that it came.
        answer: bool,
    },
    /// Sent by the peer, to this process, once.
    Data {
        /// The sending thread.
        thread: u16,
        /// Names the peer's process.
        start: u64,
        /// Has the association changed with this datagram?
        change: Change,
        /// What was sealed; empty for an answer.
        plain: &'a [u8],
    },
}

/// Whether an association is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is the one of the datagrams before.
    None,
    /// It is new, but of the same processes: what was on its way is lost, and all else as it was.
    SameStart,
    /// It is new, and so is the peer's process, or it is the first that is heard of.
    NewStart,
}

/// One node's side of all ways between the nodes.
pub struct Seal {
    config: SealConfig,
    mixed: Mixed,
    /// What the own salts are made of.
    secret: Zeroizing<[u8; 32]>,
    start: u64,
    next: Salt,
    /// Makes each next salt another one.
    turn: u64,
    /// When the next salt was first told.
    told: Option<Nanos>,
    association: Option<Association>,
    /// How many associations there have been.
    count: u32,
    /// Of the HA thread, over all keys; the next one to be used.
    counter: u64,
    /// When a datagram was last believed.
    heard: Nanos,
    hellos: [Option<(Salt, Nanos)>; HELLOS],
    to_answer: Option<Salt>,
    counters: SealCounters,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal")
            .field("config", &self.config)
            .field("association", &self.count)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Empties `out` and leaves room for the header: what is appended is what [`Seal::seal`] seals.
pub fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER, 0);
}

impl Seal {
    /// `random`: from the operating system, new with each start of the process.
    #[must_use]
    pub fn new(config: SealConfig, key: &PairKey, random: [u8; 32]) -> Self {
        let secret = Zeroizing::new(random);
        let start = u64::from_le_bytes(*derive::<8>(&secret, &[b"start"]));
        let mut seal = Self {
            config,
            mixed: key.mixed(),
            secret,
            start,
            next: Salt::default(),
            turn: 0,
            told: None,
            association: None,
            count: 0,
            counter: 1,
            heard: Nanos(0),
            hellos: [None; HELLOS],
            to_answer: None,
            counters: SealCounters::default(),
        };
        seal.renew();
        seal
    }

    /// Names this process, as [`Opened::Data`] names the peer's.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Is there an association?
    #[must_use]
    pub const fn has_peer(&self) -> bool {
        self.association.is_some()
    }

    /// Grows with each association: then the workers need new [`Self::sealer`]s.
    #[must_use]
    pub const fn association(&self) -> u32 {
        self.count
    }

    /// What was sealed, opened and refused.
    #[must_use]
    pub const fn counters(&self) -> &SealCounters {
        &self.counters
    }

    /// Is it time to say hello (as well)? To be asked with each heartbeat.
    #[must_use]
    pub const fn wants_hello(&self, now: Nanos) -> bool {
        self.association.is_none() || now.since(self.heard).0 >= self.config.silence.0
    }

    /// Another next salt.
    fn renew(&mut self) {
        self.turn += 1;
        let fresh = derive::<8>(&self.secret, &[b"salt", &self.turn.to_le_bytes()]);
        self.next = Salt::new(self.start, *fresh);
        self.told = None;
    }

    /// The next salt, to be told to the peer.
    fn tell(&mut self, now: Nanos) -> Salt {
        if self.told.is_some_and(|since| now.since(since) >= NEXT_FOR) {
            self.renew();
        }
        self.told.get_or_insert(now);
        self.next
    }

    /// Makes `out` a hello.
    ///
    /// # Errors
    ///
    /// [`SealError::Exhausted`], after 2^64 datagrams.
    pub fn hello(&mut self, now: Nanos, out: &mut Vec<u8>) -> Result<(), SealError> {
        let from = self.tell(now);
        begin(out);
        self.counters.hellos_sent += 1;
        self.seal_for(now, Kind::Hello, from, Salt::default(), out)
    }

    /// Makes `out` the answer to the hello that [`Self::open`] wanted answered last.
    ///
    /// # Errors
    ///
    /// [`SealError::NoPeer`]: there is none to be answered.
    pub fn answer(&mut self, now: Nanos, out: &mut Vec<u8>) -> Result<(), SealError> {
        let to = self.to_answer.take().ok_or(SealError::NoPeer)?;
        let from = self.tell(now);
        begin(out);
        self.counters.hellos_answered += 1;
        self.seal_for(now, Kind::Data, from, to, out)
    }

    /// Seals what is in `out` behind [`HEADER`] bytes (see [`begin`]) for the peer, in its place, and appends the tag.
    ///
    /// # Errors
    ///
    /// [`SealError::NoPeer`]; or `out` is shorter than a header.
    pub fn seal(&mut self, now: Nanos, out: &mut Vec<u8>) -> Result<(), SealError> {
        let association = self.association.as_mut().ok_or(SealError::NoPeer)?;
        association.sealer.set_counter(self.counter);
        let sealed = association.sealer.seal(now, out);
        self.counter = association.sealer.counter();
        self.counters.rekeys += u64::from(association.sealer.take_rekeyed());
        self.counters.sealed += u64::from(sealed.is_ok());
        sealed
    }

    /// With a key of its own, made for this one datagram.
    fn seal_for(
        &mut self,
        now: Nanos,
        kind: Kind,
        from: Salt,
        to: Salt,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let mut sealer = Sealer::new(&self.config, &self.mixed, kind, 0, [from, to], now);
        sealer.set_counter(self.counter);
        let sealed = sealer.seal(now, out);
        self.counter = sealer.counter();
        self.counters.sealed += u64::from(sealed.is_ok());
        sealed
    }

    /// What another thread of this node seals with: worker `n` is thread `1 + n`. Once a thread and association, because two that
    /// count alike would seal two datagrams with one nonce; `None` for the second, without an association, and for no thread.
    #[must_use]
    pub fn sealer(&mut self, now: Nanos, thread: u16) -> Option<Sealer> {
        let association = self.association.as_mut()?;
        association.issue(&self.config, &self.mixed, thread, now)
    }

    /// Opens a datagram in its place.
    ///
    /// # Errors
    ///
    /// Why it is not believed; counted.
    pub fn open<'a>(&mut self, now: Nanos, datagram: &'a mut [u8]) -> Result<Opened<'a>, Refused> {
        let opened = self.judge(now, datagram);
        match &opened {
            Ok(_) => self.counters.opened += 1,
            Err(why) => self.counters.refused[why.index()] += 1,
        }
        opened
    }

    fn judge<'a>(&mut self, now: Nanos, datagram: &'a mut [u8]) -> Result<Opened<'a>, Refused> {
        let header = Header::read(datagram)?;
        if header.node == self.config.node {
            return Err(Refused::Reflected);
        }
        if header.node != self.config.peer() {
            return Err(Refused::Node);
        }
        if header.thread >= THREADS {
            return Err(Refused::Thread);
        }
        match header.kind {
            Kind::Hello => self.judge_hello(now, &header, datagram),
            Kind::Data => self.judge_data(now, &header, datagram),
        }
    }

    fn judge_hello<'a>(
        &mut self,
        now: Nanos,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, Refused> {
        let salts = [header.salt, Salt::default()];
        receive::open_once(&self.config, &self.mixed, header, salts, datagram)?;
        self.counters.hellos_heard += 1;
        // Its data finds the way without an answer.
        let known = self
            .association
            .as_ref()
            .is_some_and(|with| with.peer == header.salt);
        let answer = !known && self.may_answer(now, header.salt);
        if answer {
            self.to_answer = Some(header.salt);
        }
        Ok(Opened::Hello { answer })
    }

    /// Each salt now and then, and a few in all: a flood of old hellos makes no flood of answers, and leaves a place for the new one.
    fn may_answer(&mut self, now: Nanos, salt: Salt) -> bool {
        let place = self
            .hellos
            .iter()
            .position(|place| place.is_some_and(|(known, _)| known == salt))
            .or_else(|| {
                let oldest = |place: &usize| self.hellos[*place].map_or(Nanos(0), |(_, at)| at);
                (0..HELLOS).min_by_key(oldest)
            })
            .and_then(|place| self.hellos.get_mut(place));
        let Some(place) = place else {
            return false;
        };
        if place.is_some_and(|(_, at)| now.since(at) < ANSWER_EVERY) {
            return false;
        }
        *place = Some((salt, now));
        true
    }

    fn judge_data<'a>(
        &mut self,
        now: Nanos,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, Refused> {
        let present = self.association.as_mut().filter(|with| with.is_of(header));
        let change = if let Some(association) = present {
            association.open(now, header, datagram)?;
            Change::None
        } else if header.to == self.next.mark() && self.told.is_some_and(|at| now.since(at) < NEXT_FOR) {
            self.associate(now, header, datagram)?
        } else {
            return Err(Refused::Stale);
        };
        self.heard = now;
        Ok(Opened::Data {
            thread: header.thread,
            start: header.salt.start(),
            change,
            plain: plain_of(datagram),
        })
    }

    /// Opens what is sealed for the next salt, and takes the association up.
    fn associate(&mut self, now: Nanos, header: &Header, datagram: &mut [u8]) -> Result<Change, Refused> {
        let association = Association::begin(&self.config, &self.mixed, now, self.next, header, datagram)?;
        let before = self.association.replace(association);
        let same = before.is_some_and(|before| before.peer.start() == header.salt.start());
        self.count += 1;
        self.counters.associations += 1;
        self.renew();
        Ok(if same { Change::SameStart } else { Change::NewStart })
    }
}

/// What was sealed, of a datagram that was opened.
fn plain_of(datagram: &[u8]) -> &[u8] {
    let end = datagram.len().saturating_sub(TAG);
    datagram.get(HEADER..end).unwrap_or_default()
}
