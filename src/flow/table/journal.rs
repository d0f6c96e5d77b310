//! What a table keeps of its sessions for the other node of an HA pair: which of them have news, what the other node was told, and
//! which of them are the other node's.
//!
//! The journal is coalesced: a slot stands in it once, however often its session changes, and what is told is the state of that
//! moment. So it never holds more than the table has slots. Only the ends of sessions that the other node knows take room of their
//! own; should that run out, the journal says that it has a gap, and everything is told anew.
//!
//! Two sums of digests for each of [`BUCKETS`] buckets, of the own sessions as last told and of the other node's as taken in, let the
//! nodes find out whether they have the same (ARCHITECTURE.md, "The HA pair").

use std::collections::VecDeque;

use super::{SessionId, SessionTable, deadline, index};
use crate::base::slab::{Memory, MemoryError};
use crate::base::{Nanos, RuleId, SessionIx, Slab, Tick};
use crate::flow::image::{BUCKETS, Birth, Bucket, DigestKey, Image};
use crate::flow::relearn::{Claims, Relearnt, relearn};
use crate::flow::session::PacketCount;
use crate::flow::station::Station;
use crate::flow::window::is_in_window;
use crate::flow::{Direction, FlowKey, HashKey, Segment, Session, StateTimeouts};

/// Ends of sessions that wait to be told, at most, of a node.
pub const MAX_GONE: usize = 1 << 16;

/// Whose the sessions of a table are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// All are this node's own: it leads, or is alone.
    #[default]
    Own,
    /// All are the other node's: this one follows.
    Follow,
    /// Each is either's: both nodes forward.
    Both,
}

/// Of each session.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Mark {
    birth: Birth,
    /// The digest of what the other node was told of it, or of what it told; means something in the epoch.
    digest: u64,
    serial: u32,
    /// [`Journal::told_epoch`]: the other node was told of it; [`Journal::heard_epoch`]: it is the other node's; else neither.
    epoch: u16,
    /// The last resync that named it.
    resync: u8,
    flags: u8,
    /// See [`Claims`]; mean something by the flags.
    claims: [u32; 2],
}

const _: () = assert!(size_of::<Mark>() == 32);

impl Mark {
    /// In `flags`: the slot waits in the journal.
    const DIRTY: u8 = 1;
    /// In `flags`: the other node owns it, with [`Standing::Both`].
    const PEERS: u8 = 2;
    /// In `flags`, shifted by [`Direction::index`]: there is a claim.
    const CLAIM: u8 = 4;
    /// In `flags`, shifted likewise: a segment was within what is known, and acknowledged all that is known of the other end.
    const KNOWN: u8 = 16;
    /// In `flags`: a packet waits for the other node to know the session.
    const AWAITED: u8 = 64;

    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A session that ended, of which the other node knows.
#[derive(Clone, Copy, Debug)]
struct Gone {
    key: FlowKey,
    birth: Birth,
    digest: u64,
}

/// One thing to tell the other node.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "nothing is boxed: a worker allocates nothing"
)]
pub enum News {
    /// The session as it is now, and the name by which [`SessionTable::tell_again`] finds it.
    Session(Image, u64),
    /// A session has ended.
    Gone(FlowKey, Birth),
    /// A host is behind a port; and its name, as with a session.
    Station(Station, u64),
}

/// What became of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenIn {
    /// It is a session of the table now.
    New(SessionIx),
    /// The session that was there is what it says.
    Changed(SessionIx),
    /// The table has newer news of the session, or a later session of the flow.
    Old,
    /// There is a session of this node's own, which stays.
    Ours(SessionIx),
    /// There is no room.
    Full,
}

/// Sums of digests by bucket, modulo 2^64.
pub type Sums = [u64; BUCKETS];

/// The journal of one table.
pub struct Journal {
    key: DigestKey,
    standing: Standing,
    marks: Slab<Mark>,
    /// Slots with news, a ring.
    ring: Slab<u32>,
    first: u32,
    waiting: u32,
    gone: VecDeque<Gone>,
    ends: usize,
    gap: bool,
    told: Box<Sums>,
    heard: Box<Sums>,
    /// Of the conversation in which this node tells, the last number that was given, and of that in which it hears.
    told_epoch: u16,
    heard_epoch: u16,
    last_epoch: u16,
    /// There is somebody to be told.
    tells: bool,
    resync: u8,
    last_birth: Birth,
}

impl Journal {
    /// Of a table of `capacity` sessions, with room for so many `ends` of sessions that wait to be told.
    ///
    /// # Errors
    /// When the memory is not there.
    pub fn new(
        capacity: u32,
        memory: &impl Memory,
        key: DigestKey,
        ends: usize,
    ) -> Result<Self, MemoryError> {
        Ok(Self {
            key,
            standing: Standing::default(),
            marks: memory.slab(capacity as usize)?,
            ring: memory.slab(capacity as usize)?,
            first: 0,
            waiting: 0,
            gone: VecDeque::with_capacity(ends),
            ends,
            gap: false,
            told: Box::new([0; BUCKETS]),
            heard: Box::new([0; BUCKETS]),
            told_epoch: 1,
            heard_epoch: 2,
            last_epoch: 2,
            tells: false,
            resync: 0,
            last_birth: Birth(0),
        })
    }

    /// Whose the sessions are.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Is the session in this slot the other node's?
    #[must_use]
    pub fn is_peers(&self, ix: SessionIx) -> bool {
        match self.standing {
            Standing::Own => false,
            Standing::Follow => true,
            Standing::Both => self.marks[ix.index()].has(Mark::PEERS),
        }
    }

    /// Was an end of a session lost for want of room? Then all sessions are to be told anew. Asking forgets it.
    pub const fn take_gap(&mut self) -> bool {
        std::mem::replace(&mut self.gap, false)
    }

    /// News that wait, at most: some may have been overtaken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting as usize + self.gone.len()
    }

    /// The same by kind: changes, and ends.
    #[must_use]
    pub fn waiting(&self) -> [usize; 2] {
        [self.waiting as usize, self.gone.len()]
    }

    /// Is there no news?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The own sessions as last told.
    #[must_use]
    pub const fn told(&self) -> &Sums {
        &self.told
    }

    /// The other node's sessions as taken in.
    #[must_use]
    pub const fn heard(&self) -> &Sums {
        &self.heard
    }

    /// Is there anybody to be told?
    const fn tells(&self) -> bool {
        self.tells && !matches!(self.standing, Standing::Follow)
    }

    /// A session begins in a slot.
    pub(super) fn begin(&mut self, slot: u32, now: Nanos) {
        self.last_birth = Birth((self.last_birth.0 + 1).max(now.0));
        let mark = &mut self.marks[slot as usize];
        *mark = Mark {
            birth: self.last_birth,
            flags: mark.flags & Mark::DIRTY,
            ..Mark::default()
        };
        self.dirty(slot);
    }

    /// A session has news.
    pub(super) fn dirty(&mut self, slot: u32) {
        let tells = self.tells();
        let mark = &mut self.marks[slot as usize];
        if !tells || mark.flags & (Mark::DIRTY | Mark::PEERS) != 0 {
            return;
        }
        mark.flags |= Mark::DIRTY;
        // Each slot is in it once: there is room.
        let last = self.around(self.first + self.waiting);
        self.ring[last as usize] = slot;
        self.waiting += 1;
    }

    /// A place in the ring, of one that is less than once around too far.
    fn around(&self, place: u32) -> u32 {
        let most = self.ring.len() as u32;
        if place < most { place } else { place - most }
    }

    /// The slot whose news have waited longest.
    fn pop(&mut self) -> Option<u32> {
        self.waiting = self.waiting.checked_sub(1)?;
        let slot = *self.ring.get(self.first as usize)?;
        self.first = self.around(self.first + 1);
        self.marks[slot as usize].flags &= !Mark::DIRTY;
        Some(slot)
    }

    /// A session ends.
    pub(super) fn end(&mut self, slot: u32, key: &FlowKey) {
        let mark = self.marks[slot as usize];
        self.marks[slot as usize].epoch = 0;
        if mark.epoch == self.heard_epoch {
            let bucket = self.key.bucket(key);
            subtract(&mut self.heard, bucket, mark.digest);
        } else if !self.was_told(&mark) {
            // Nobody knows of it.
        } else if self.gone.len() < self.ends {
            self.gone.push_back(Gone {
                key: *key,
                birth: mark.birth,
                digest: mark.digest,
            });
        } else {
            // The resync that follows leaves it out.
            let bucket = self.key.bucket(key);
            subtract(&mut self.told, bucket, mark.digest);
            self.gap = true;
        }
    }

    /// What a session takes along that goes to another worker of this node.
    pub(super) fn carried(&self, slot: u32) -> Carried {
        let mark = self.marks[slot as usize];
        Carried {
            birth: mark.birth,
            serial: mark.serial,
            digest: self.knows(&mark).then_some(mark.digest),
            dirty: mark.has(Mark::DIRTY),
            is_peers: mark.has(Mark::PEERS),
            resync: mark.resync,
        }
    }

    /// Is its digest in the sums?
    fn knows(&self, mark: &Mark) -> bool {
        self.was_told(mark) || mark.epoch == self.heard_epoch
    }

    fn was_told(&self, mark: &Mark) -> bool {
        self.tells && mark.epoch == self.told_epoch
    }

    /// The sums that its digest is in, if it is in any.
    fn sums_of(&mut self, mark: &Mark) -> Option<&mut Sums> {
        if self.was_told(mark) {
            Some(&mut self.told)
        } else {
            (mark.epoch == self.heard_epoch).then_some(&mut self.heard)
        }
    }

    /// A number that no mark has. (After 65,535 of them some may: then digests differ, and the resync that follows mends it.)
    fn next_epoch(&mut self) -> u16 {
        self.last_epoch = self.last_epoch.checked_add(1).unwrap_or(1);
        self.last_epoch
    }

    /// It has gone: nobody is told that it ended.
    pub(super) fn leave(&mut self, slot: u32, key: &FlowKey) {
        let mark = self.marks[slot as usize];
        let bucket = self.key.bucket(key);
        if let Some(sums) = self.sums_of(&mark) {
            subtract(sums, bucket, mark.digest);
        }
        self.marks[slot as usize].epoch = 0;
    }

    /// The other end of [`Journal::leave`].
    pub(super) fn arrive(&mut self, slot: u32, key: &FlowKey, carried: &Carried) {
        self.last_birth = self.last_birth.max(carried.birth);
        let dirty = self.marks[slot as usize].flags & Mark::DIRTY;
        self.marks[slot as usize] = Mark {
            birth: carried.birth,
            digest: carried.digest.unwrap_or(0),
            serial: carried.serial,
            epoch: match carried.digest {
                None => 0,
                Some(_) if carried.is_peers => self.heard_epoch,
                Some(_) => self.told_epoch,
            },
            resync: carried.resync,
            claims: [0; 2],
            flags: dirty | if carried.is_peers { Mark::PEERS } else { 0 },
        };
        let mark = self.marks[slot as usize];
        let bucket = self.key.bucket(key);
        if let Some(sums) = self.sums_of(&mark) {
            add(sums, bucket, mark.digest);
        }
        if carried.dirty || carried.digest.is_none() {
            self.dirty(slot);
        }
    }
}

/// What a session takes along to another worker's journal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Carried {
    birth: Birth,
    serial: u32,
    digest: Option<u64>,
    dirty: bool,
    is_peers: bool,
    resync: u8,
}

fn add(sums: &mut Sums, Bucket(bucket): Bucket, digest: u64) {
    let sum = &mut sums[usize::from(bucket)];
    *sum = sum.wrapping_add(digest);
}

fn subtract(sums: &mut Sums, bucket: Bucket, digest: u64) {
    add(sums, bucket, digest.wrapping_neg());
}

impl<H: HashKey> SessionTable<H> {
    /// The same table with a journal. Before the first session.
    #[must_use]
    pub fn with_journal(mut self, journal: Journal) -> Self {
        self.journal = Some(Box::new(journal));
        self
    }

    /// Its journal, if the node is one of a pair.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_deref()
    }

    /// Its journal, to be asked for a gap.
    pub fn journal_mut(&mut self) -> Option<&mut Journal> {
        self.journal.as_deref_mut()
    }

    /// Is this session the other node's?
    #[must_use]
    pub fn is_peers(&self, ix: SessionIx) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_peers(ix))
    }

    /// A conversation with the other node begins: it knows of no session. Sessions are told as they change, all others by
    /// [`SessionTable::tell`].
    pub fn begin_telling(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        journal.told_epoch = journal.next_epoch();
        journal.tells = true;
        journal.gone.clear();
        journal.gap = false;
        *journal.told = [0; BUCKETS];
    }

    /// There is nobody to be told any more.
    pub fn end_telling(&mut self) {
        self.begin_telling();
        if let Some(journal) = &mut self.journal {
            journal.tells = false;
        }
    }

    /// Nothing that the other node has told so far counts: it has begun anew, or its sessions are this node's by now.
    pub fn forget_heard(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.heard_epoch = journal.next_epoch();
            *journal.heard = [0; BUCKETS];
        }
    }

    /// From now on the sessions are whose `standing` says. With [`Standing::Own`] all sessions of the other node are this node's own.
    pub fn set_standing(&mut self, standing: Standing) {
        if standing == Standing::Own {
            self.forget_heard();
        }
        if let Some(journal) = &mut self.journal {
            journal.standing = standing;
        }
    }

    /// After [`SessionTable::set_standing`]: has the marks of `budget` slots from slot `from` on follow. `Some`: where to go on.
    pub fn settle_standing(&mut self, from: u32, budget: u32) -> Option<u32> {
        let (slots, next) = self.page(from, budget);
        let Some(journal) = &mut self.journal else {
            return next;
        };
        for slot in slots {
            // With all of them one node's the flag says nothing.
            if journal.standing == Standing::Own {
                journal.marks[slot as usize].flags &= !Mark::PEERS;
            }
        }
        next
    }

    /// The next thing that the other node is to be told, looking at `budget` slots at most; `None`: nothing has changed, or the budget is
    /// spent. `rule` gives what stands for a rule on both nodes.
    pub fn next_news(&mut self, now: Nanos, budget: &mut u32, rule: impl Fn(RuleId) -> u64) -> Option<News> {
        let journal = self.journal.as_deref_mut()?;
        if let Some(gone) = journal.gone.pop_front() {
            let bucket = journal.key.bucket(&gone.key);
            subtract(&mut journal.told, bucket, gone.digest);
            return Some(News::Gone(gone.key, gone.birth));
        }
        while *budget > 0 {
            *budget -= 1;
            let slot = self.journal.as_deref_mut()?.pop()?;
            let news = self.tell(SessionIx(slot), now, &rule);
            if news.is_some() {
                return news;
            }
        }
        None
    }

    /// What the other node is to be told of a session of this one; `None`: there is none in the slot, or it is the other node's.
    pub fn tell(&mut self, ix: SessionIx, now: Nanos, rule: impl Fn(RuleId) -> u64) -> Option<News> {
        let journal = self.journal.as_deref()?;
        if !journal.tells() || journal.is_peers(ix) {
            return None;
        }
        let mut image = self.image(ix, now, rule)?;
        let name = self.name_of(ix);
        let journal = self.journal.as_deref_mut()?;
        let mark = &mut journal.marks[ix.index()];
        mark.serial = mark.serial.wrapping_add(1);
        image.serial = mark.serial;
        let digest = image.digest(&journal.key);
        let before = if mark.epoch == journal.told_epoch {
            mark.digest
        } else {
            0
        };
        (mark.digest, mark.epoch) = (digest, journal.told_epoch);
        let bucket = journal.key.bucket(&image.key);
        add(&mut journal.told, bucket, digest.wrapping_sub(before));
        Some(News::Session(image, name))
    }

    /// What was told of this session got lost: it is told again, as it is then. One that has ended says so by itself.
    pub fn tell_again(&mut self, name: u64) {
        let slot = self.named(name);
        if let (Some(ix), Some(journal)) = (slot, self.journal.as_deref_mut()) {
            journal.dirty(ix.0);
        }
    }

    /// A session as the other node is to know it.
    fn image(&self, ix: SessionIx, now: Nanos, rule: impl Fn(RuleId) -> u64) -> Option<Image> {
        let entry = self.entry(ix)?;
        let mark = self.journal.as_ref()?.marks[ix.index()];
        let session = entry.session;
        let opener = session.opener.index();
        let mut packets = [0; 2];
        (packets[opener], packets[1 - opener]) = (entry.packets[0], entry.packets[1]);
        let links = if session.resets() || session.is_proxied() {
            self.links[ix.index()]
        } else {
            Default::default()
        };
        let translation = if session.is_proxied() {
            entry.translation
        } else {
            Default::default()
        };
        let idle = now.tick().distance(session.last_seen).max(0) as u64 * Tick::NANOS;
        Some(Image {
            key: session.key,
            birth: mark.birth,
            serial: mark.serial,
            state: session.state,
            opener: session.opener,
            ingress: session.ingress,
            egress: session.egress,
            flags: session.flags & Image::FLAGS,
            icmp: [session.icmp_type, session.icmp_code],
            rule: rule(session.rule),
            tcp: session.tcp,
            translation,
            links,
            bytes: session.bytes,
            packets,
            age: now.since(entry.created),
            idle: Nanos(idle),
        })
    }

    /// Takes a session of the other node in. It goes by `rule` here, may idle for `timeout` ticks, and is judged anew by the policy at
    /// its first packet. If this node has one of its own for the flow, that stays, unless `yields`.
    pub fn take_image(
        &mut self,
        image: &Image,
        now: Nanos,
        (rule, flags): (RuleId, u8),
        timeout: u32,
        yields: bool,
    ) -> TakenIn {
        let hash = self.hash(&image.key);
        let found = self.find(&image.key, hash);
        let Some(journal) = self.journal.as_deref_mut() else {
            return TakenIn::Full;
        };
        if let Some(ix) = found {
            let mark = journal.marks[ix.index()];
            let ours = !journal.is_peers(ix);
            if ours && !yields {
                // The other node does not know it, or has let it go for want of room.
                journal.dirty(ix.0);
                return TakenIn::Ours(ix);
            }
            let is_known = mark.epoch == journal.heard_epoch;
            if is_known && (image.birth, image.serial) <= (mark.birth, mark.serial) {
                // News that are known name the session nevertheless.
                journal.marks[ix.index()].resync = journal.resync;
                return TakenIn::Old;
            }
        }
        let mut session = Session::new(image.key, image.opener, image.state);
        session.flags = (flags & !Image::FLAGS) | (image.flags & Image::FLAGS);
        session.rule = rule;
        (session.ingress, session.egress) = (image.ingress, image.egress);
        (session.icmp_type, session.icmp_code) = (image.icmp[0], image.icmp[1]);
        (session.tcp, session.bytes) = (image.tcp, image.bytes);
        session.packets = image.packets.map(|packets| PacketCount::new(packets as u32));
        let idle = Tick::count(image.idle).min(StateTimeouts::MAX_TICKS);
        session.last_seen = Tick(now.tick().0.wrapping_sub(idle));
        let created = Nanos(now.0.saturating_sub(image.age.0));
        let taken = match found {
            Some(ix) => {
                self.replace(ix, session, timeout);
                TakenIn::Changed(ix)
            }
            None => match self.place(session, hash, created, timeout, now.tick()) {
                Ok(ix) => TakenIn::New(ix),
                Err(_) => return TakenIn::Full,
            },
        };
        let (TakenIn::New(ix) | TakenIn::Changed(ix)) = taken else {
            return taken;
        };
        self.cold[ix.index()].carry = image.packets.map(|packets| (packets >> 32) as u16);
        if session.resets() || session.is_proxied() {
            self.links[ix.index()] = image.links;
        }
        if session.is_proxied() {
            self.translations[ix.index()] = image.translation;
        }
        self.note_image(ix, image, found.is_some(), now);
        taken
    }

    /// The journal's part of [`SessionTable::take_image`].
    fn note_image(&mut self, ix: SessionIx, image: &Image, was_there: bool, now: Nanos) {
        // Of the session as it stands in the table: what the sums prove.
        let stands = self.image(ix, now, |_| 0);
        let Some(journal) = self.journal.as_deref_mut() else {
            return;
        };
        let mark = journal.marks[ix.index()];
        let bucket = journal.key.bucket(&image.key);
        if was_there {
            // One of this node's own that yields was told, perhaps; now it is heard.
            if let Some(sums) = journal.sums_of(&mark) {
                subtract(sums, bucket, mark.digest);
            }
        }
        journal.marks[ix.index()] = Mark {
            birth: image.birth,
            digest: 0,
            serial: image.serial,
            epoch: journal.heard_epoch,
            resync: journal.resync,
            claims: [0; 2],
            flags: (mark.flags & Mark::DIRTY) | Mark::PEERS,
        };
        journal.last_birth = journal.last_birth.max(image.birth);
        if let Some(mut stands) = stands {
            stands.birth = image.birth;
            let digest = stands.digest(&journal.key);
            journal.marks[ix.index()].digest = digest;
            add(&mut journal.heard, bucket, digest);
        }
    }

    /// The other node says that a session of its has ended: the session to be ended here, if there is one.
    #[must_use]
    pub fn find_gone(&self, key: &FlowKey, birth: Birth) -> Option<SessionIx> {
        let journal = self.journal.as_deref()?;
        let ix = self.find(key, self.hash(key))?;
        (journal.is_peers(ix) && journal.marks[ix.index()].birth <= birth).then_some(ix)
    }

    /// The other node is about to name all of its sessions.
    pub fn begin_resync(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.resync = journal.resync.wrapping_add(1);
        }
    }

    /// It has named them: the slots among `budget` ones from slot `from` on whose sessions it has not named go to `unnamed`, if it named all
    /// of `buckets`. `Some`: where to go on.
    pub fn unnamed(
        &self,
        from: u32,
        budget: u32,
        buckets: impl Fn(Bucket) -> bool,
        mut unnamed: impl FnMut(SessionIx),
    ) -> Option<u32> {
        let (slots, next) = self.page(from, budget);
        let Some(journal) = &self.journal else { return next };
        for slot in slots {
            let ix = SessionIx(slot);
            let named = journal.marks[slot as usize].resync == journal.resync;
            if !named && self.cold[slot as usize].is_live() && journal.is_peers(ix) {
                let bucket = journal.key.bucket(&self.sessions[slot as usize].key);
                if buckets(bucket) {
                    unnamed(ix);
                }
            }
        }
        next
    }

    /// The bucket of a session, of a table with a journal.
    #[must_use]
    pub fn bucket(&self, ix: SessionIx) -> Option<Bucket> {
        let journal = self.journal.as_deref()?;
        Some(journal.key.bucket(&self.sessions[ix.index()].key))
    }

    /// This session of the other node's is this node's own from now on: the other node has gone, or gives it up.
    pub fn adopt_peers(&mut self, ix: SessionIx) {
        if let Some(journal) = self.journal.as_deref_mut() {
            journal.marks[ix.index()].flags &= !Mark::PEERS;
            journal.dirty(ix.0);
        }
    }

    /// Is there another node that hears of this one's sessions?
    #[must_use]
    pub fn tells(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.tells())
    }

    /// The name by which this session is told ([`News::Session`]).
    #[must_use]
    pub fn name_of(&self, ix: SessionIx) -> u64 {
        (u64::from(self.cold[ix.index()].version) << 32) | u64::from(ix.0)
    }

    /// The session that was told by this name; `None`: it has ended.
    #[must_use]
    pub fn named(&self, name: u64) -> Option<SessionIx> {
        let (ix, version) = (SessionIx(name as u32), (name >> 32) as u32);
        self.resolve(SessionId { ix, version })
    }

    /// From now on a packet waits for the other node to know this session, or does not.
    pub fn set_awaited(&mut self, ix: SessionIx, awaited: bool) {
        if let Some(journal) = &mut self.journal {
            let flags = &mut journal.marks[ix.index()].flags;
            *flags = (*flags & !Mark::AWAITED) | if awaited { Mark::AWAITED } else { 0 };
        }
    }

    /// Does one wait for that?
    #[must_use]
    pub fn is_awaited(&self, ix: SessionIx) -> bool {
        let has = |journal: &Journal| journal.marks[ix.index()].has(Mark::AWAITED);
        self.journal.as_deref().is_some_and(has)
    }

    /// Is each session either node's?
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.standing == Standing::Both)
    }

    /// Are all sessions the other node's?
    #[must_use]
    pub fn follows(&self) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.standing == Standing::Follow)
    }

    /// A segment of a session whose numbers are learnt ([`relearn`]). True: each end has acknowledged all that is known of the other.
    pub fn relearn(
        &mut self,
        ix: SessionIx,
        sender: Direction,
        segment: &Segment,
        tolerance: u32,
    ) -> (Relearnt, bool) {
        let Some(journal) = self.journal.as_deref_mut() else {
            return (Relearnt::Judge, true);
        };
        let mark = &mut journal.marks[ix.index()];
        let mut claims = Claims::default();
        for direction in 0..2 {
            claims.0[direction] = mark
                .has(Mark::CLAIM << direction)
                .then_some(mark.claims[direction]);
        }
        let session = &mut self.sessions[ix.index()];
        let relearnt = relearn(session, &mut claims, sender, segment, tolerance);
        for direction in 0..2 {
            if let Some(claim) = claims.0[direction] {
                mark.claims[direction] = claim;
                mark.flags |= Mark::CLAIM << direction;
            }
        }
        // Less would not do: a retransmission and an old acknowledgement may both be within what was known long ago, and the next
        // acknowledgement, of all that the receiver had already, far beyond it.
        let acknowledges_all = segment.ack == session.tcp[sender.reverse().index()].end;
        if relearnt == Relearnt::Judge && acknowledges_all && is_in_window(&session.tcp, sender, segment) {
            mark.flags |= Mark::KNOWN << sender.index();
        }
        let both = Mark::KNOWN | (Mark::KNOWN << 1);
        (relearnt, mark.flags & both == both)
    }

    /// Another state of the same flow takes a session's place.
    fn replace(&mut self, ix: SessionIx, session: Session, timeout: u32) {
        let old = self.sessions[ix.index()];
        let at = (session.ingress, session.state);
        self.queues.end(ix.0, old.ingress, old.state);
        self.queues.begin(ix.0, at.0, at.1);
        self.by_state[old.state.index()] -= 1;
        self.by_state[at.1.index()] += 1;
        self.sessions[ix.index()] = session;
        let deadline = deadline(&session, timeout);
        self.wheel.hasten(&mut self.cold, ix.0, deadline);
    }

    /// Puts a session in that another table had.
    pub(super) fn place(
        &mut self,
        session: Session,
        hash: u64,
        created: Nanos,
        timeout: u32,
        now: Tick,
    ) -> Result<SessionIx, super::TableFull> {
        let slot = self.take_slot().ok_or(super::TableFull)?;
        if !index::insert(&mut self.index, hash, slot) {
            self.give_slot(slot);
            return Err(super::TableFull);
        }
        if self.len == 0 {
            self.wheel.restart(now);
        }
        self.by_state[session.state.index()] += 1;
        self.len += 1;
        self.inserted += 1;
        self.sessions[slot as usize] = session;
        self.cold[slot as usize].begin(hash, created);
        self.queues.begin(slot, session.ingress, session.state);
        let deadline = deadline(&session, timeout);
        let due = if now.distance(deadline) >= 0 {
            now.plus(1)
        } else {
            deadline
        };
        self.wheel.link(&mut self.cold, slot, due);
        Ok(SessionIx(slot))
    }
}
