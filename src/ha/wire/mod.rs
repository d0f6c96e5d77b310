//! Messages to bytes and back: what a datagram carries inside of its seal ([`super::seal`]).
//!
//! A plaintext is a row of frames: kind (2 bytes), length of the body (2 bytes), body. A body is a row of fields: tag (1 byte), length
//! (2 bytes), value; a session's value is a row of fields of its own, whose lengths have 1 byte ([`session`]). Integers are
//! little-endian, addresses in the order of their own wire.
//!
//! So that versions can be mixed: frames of unknown kinds and fields of unknown tags are passed over, a field that is not there has
//! its default, a value that is longer than this version knows is read as far as it knows it. A kind or tag never changes its meaning.
//! What cannot be read in that way (a length that runs over, a value that is too short) refuses the whole datagram before
//! anything of it is believed. A session that cannot be is left out alone: with it the other node may be right, and the rest is news.
//!
//! Nothing is allocated for what comes often: [`Writer`] appends to a buffer that is used again, updates are decoded as they are
//! asked for.

mod field;
mod frame;
pub mod session;

pub use field::WireError;
pub use frame::{Message, Messages, Updates, decode};
pub use session::InvalidUpdate;

use super::message::{Ack, Crossed, Crossing, DigestReport, Frame, Heartbeat, Progress, Update};
use crate::flow::image::{BUCKETS, Bucket};
use field::{Body, body_len};

/// The version of the messages, as [`Heartbeat::version`] has it.
pub const VERSION: u16 = 1;

/// Bytes of a datagram (the UDP payload) that passes any path of Ethernet, with room for the headers of tunnels.
pub const DATAGRAM: usize = 1400;

/// A frame's kind, as it stands on the wire.
pub mod kind {
    /// [`super::Frame::Heartbeat`]
    pub const HEARTBEAT: u16 = 1;
    /// [`super::Frame::Sync`]
    pub const SYNC: u16 = 2;
    /// [`super::Frame::Ack`]
    pub const ACK: u16 = 3;
    /// [`super::Frame::ResyncBegin`]
    pub const RESYNC_BEGIN: u16 = 4;
    /// [`super::Frame::ResyncEnd`]
    pub const RESYNC_END: u16 = 5;
    /// [`super::Frame::Barrier`]
    pub const BARRIER: u16 = 6;
    /// [`super::Frame::Digests`]
    pub const DIGESTS: u16 = 7;
    /// [`super::Frame::Packet`] that is to be judged.
    pub const REDIRECT: u16 = 8;
    /// [`super::Frame::Packet`] that was.
    pub const RETURN: u16 = 9;
}

/// The tags of frames' fields, as they stand on the wire.
pub(crate) mod tag {
    // Sync, ResyncBegin, ResyncEnd, Barrier: the sync number.
    pub(crate) const NUMBER: u8 = 1;

    // Sync; each any number of times.
    pub(crate) const SESSION: u8 = 2;
    pub(crate) const GONE: u8 = 3;
    pub(crate) const STATION: u8 = 6;
    /// The sender waits for its acknowledgement.
    pub(crate) const HASTE: u8 = 7;
    // Reserved: 4, an expectation without a session; 5, a NAT binding without one.

    pub(crate) const NODE: u8 = 1;
    pub(crate) const ROLE: u8 = 2;
    pub(crate) const LEAD: u8 = 3;
    pub(crate) const PRIORITY: u8 = 4;
    pub(crate) const SAYS: u8 = 5;
    pub(crate) const POLICY: u8 = 6;
    pub(crate) const LAYOUT: u8 = 7;
    pub(crate) const SENT: u8 = 8;
    pub(crate) const HEARD: u8 = 9;
    pub(crate) const PROGRESS: u8 = 10;
    pub(crate) const VERSION: u8 = 11;

    pub(crate) const HIGHEST: u8 = 1;
    pub(crate) const BEFORE: u8 = 2;

    // ResyncBegin, ResyncEnd.
    pub(crate) const RESYNC: u8 = 2;
    pub(crate) const BUCKETS: u8 = 3;
    pub(crate) const SESSIONS: u8 = 4;

    // Barrier, Digests.
    pub(crate) const BARRIER: u8 = 2;
    pub(crate) const FIRST: u8 = 3;
    pub(crate) const DIGESTS: u8 = 4;
    pub(crate) const DIFFER: u8 = 5;

    // Redirect, Return.
    pub(crate) const PORT: u8 = 1;
    pub(crate) const FLAGS: u8 = 2;
    pub(crate) const WORKER: u8 = 3;
    pub(crate) const PART: u8 = 4;
    pub(crate) const BYTES: u8 = 5;
}

/// The bits of a heartbeat's [`tag::SAYS`].
pub(crate) mod says {
    pub(crate) const HEALTHY: u8 = 1;
    pub(crate) const IN_SYNC: u8 = 2;
    pub(crate) const YIELDS: u8 = 4;
    pub(crate) const ASKS_TO_LEAD: u8 = 8;
}

/// The bits of [`tag::FLAGS`]: of a Redirect, and of a Return.
pub(crate) mod flags {
    pub(crate) const KNOWN: u8 = 1;
    pub(crate) const MADE: u8 = 1;
    pub(crate) const SENT_BACK: u8 = 2;
}

/// Bytes of a frame's kind and length.
const FRAME: usize = 4;
/// Bytes of a field's tag and length.
const FIELD: usize = 3;
/// Bytes of a set of buckets, a bit each.
const BITMAP: usize = BUCKETS / 8;
/// Bytes of one worker's progress.
const PROGRESS: usize = 6;
/// Bytes of [`tag::PART`].
const PART: usize = 8;

/// What stands around a packet's bytes in a datagram, or around those of a part of it.
#[must_use]
pub const fn crossed_len(is_part: bool) -> usize {
    FRAME
        + body_len(if is_part {
            &[2, 1, 2, PART, 0]
        } else {
            &[2, 1, 2, 0]
        })
}

/// Packs frames into the plaintext of one datagram, as many as it has room for.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    end: usize,
    /// Where the Sync frame that takes updates has its length.
    sync: Option<usize>,
}

impl<'a> Writer<'a> {
    /// Appends to `out` `room` bytes at most (and 65,535).
    #[must_use]
    pub fn new(out: &'a mut Vec<u8>, room: usize) -> Self {
        let start = out.len();
        let room = room.min(usize::from(u16::MAX));
        out.reserve(room);
        Self {
            out,
            start,
            end: start + room,
            sync: None,
        }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn room(&self) -> usize {
        self.end - self.out.len()
    }

    /// Bytes that were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Nothing was written?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a frame of news of sessions; [`Self::update`] adds to it. `false`: there is no room for it.
    #[must_use]
    pub fn sync(&mut self, number: u64) -> bool {
        let at = self.out.len() + 2;
        let begun = self.write(kind::SYNC, |body| body.number(tag::NUMBER, number));
        if begun {
            self.sync = Some(at);
        }
        begun
    }

    /// Adds to the frame that [`Self::sync`] began, if it is the last one. `false`: there is none, or the datagram is full.
    #[must_use]
    pub fn update(&mut self, update: &Update) -> bool {
        let Some(length_at) = self.sync else {
            return false;
        };
        let before = self.out.len();
        if self.end - before < session::MAX + FIELD && self.end - before < session::len(update) + FIELD {
            return false;
        }
        session::write(self.out, update);
        self.set_length(length_at);
        true
    }

    /// The sender of the frame that [`Self::sync`] began waits for its acknowledgement. `false`: there is no room to say so.
    #[must_use]
    pub fn hasten(&mut self) -> bool {
        let Some(length_at) = self.sync.filter(|_| self.room() >= FIELD) else {
            return false;
        };
        Body(self.out).field(tag::HASTE, &[]);
        self.set_length(length_at);
        true
    }

    fn set_length(&mut self, length_at: usize) {
        let length = (self.out.len() - length_at - 2) as u16;
        if let Some(place) = self.out.get_mut(length_at..length_at + 2) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Writes a packet, or a part of one. `false`: there is no room for it, and nothing was written.
    #[must_use]
    pub fn crossed(&mut self, of: &Crossed<'_>) -> bool {
        if self.room() < crossed_len(of.part.is_some()) + of.bytes.len() {
            return false;
        }
        let (kind, said) = match of.crossing {
            Crossing::Known => (kind::REDIRECT, flags::KNOWN),
            Crossing::Unknown => (kind::REDIRECT, 0),
            Crossing::SentBack => (kind::RETURN, flags::SENT_BACK),
            Crossing::Return => (kind::RETURN, 0),
            Crossing::ReturnMade => (kind::RETURN, flags::MADE),
        };
        self.write(kind, |body| {
            body.field(tag::PORT, &of.port.0.to_le_bytes());
            body.field(tag::FLAGS, &[said]);
            body.field(tag::WORKER, &of.worker.to_le_bytes());
            if let Some(part) = of.part {
                let mut bytes = [0; PART];
                bytes[..4].copy_from_slice(&part.id.to_le_bytes());
                bytes[4..6].copy_from_slice(&part.offset.to_le_bytes());
                bytes[6..].copy_from_slice(&part.total.to_le_bytes());
                body.field(tag::PART, &bytes);
            }
            body.field(tag::BYTES, of.bytes);
        })
    }

    /// Writes a part of a barrier: as many of `digests`, which are of the buckets from `first`, as there is room for. Says how many;
    /// 0: nothing was written.
    #[must_use]
    pub fn barrier(&mut self, number: u64, barrier: u64, first: Bucket, digests: &[u64]) -> usize {
        let fixed = FRAME + body_len(&[8, 8, 2, 0]);
        let count = (self.room().saturating_sub(fixed) / 8).min(digests.len());
        if count > 0 {
            let written = self.write(kind::BARRIER, |body| {
                body.number(tag::NUMBER, number);
                body.number(tag::BARRIER, barrier);
                body.field(tag::FIRST, &first.0.to_le_bytes());
                body.list(
                    tag::DIGESTS,
                    digests[..count].iter().map(|digest| digest.to_le_bytes()),
                );
            });
            debug_assert!(written, "its length was computed");
        }
        count
    }

    /// Writes a frame. `false`: there is no room for it, and nothing was written.
    #[must_use]
    pub fn frame(&mut self, frame: &Frame) -> bool {
        match frame {
            Frame::Heartbeat(heartbeat) => {
                self.write(kind::HEARTBEAT, |body| write_heartbeat(body, heartbeat))
            }
            Frame::Sync { number, updates } => self.whole_sync(*number, updates),
            Frame::Ack(Ack { highest, before }) => self.write(kind::ACK, |body| {
                body.number(tag::HIGHEST, *highest);
                body.number(tag::BEFORE, *before);
            }),
            Frame::ResyncBegin {
                number,
                resync,
                buckets,
                sessions,
            } => self.write(kind::RESYNC_BEGIN, |body| {
                body.number(tag::NUMBER, *number);
                body.field(tag::RESYNC, &resync.to_le_bytes());
                if !buckets.is_empty() {
                    body.field(tag::BUCKETS, &bitmap(buckets));
                }
                body.number(tag::SESSIONS, *sessions);
            }),
            Frame::ResyncEnd { number, resync } => self.write(kind::RESYNC_END, |body| {
                body.number(tag::NUMBER, *number);
                body.field(tag::RESYNC, &resync.to_le_bytes());
            }),
            Frame::Barrier {
                number,
                barrier,
                first,
                digests,
            } => self.write(kind::BARRIER, |body| {
                body.number(tag::NUMBER, *number);
                body.number(tag::BARRIER, *barrier);
                body.field(tag::FIRST, &first.0.to_le_bytes());
                body.list(tag::DIGESTS, digests.iter().map(|digest| digest.to_le_bytes()));
            }),
            Frame::Digests(DigestReport { barrier, differ }) => self.write(kind::DIGESTS, |body| {
                body.number(tag::BARRIER, *barrier);
                if !differ.is_empty() {
                    body.field(tag::DIFFER, &bitmap(differ));
                }
            }),
            Frame::Packet {
                crossing,
                port,
                worker,
                part,
                bytes,
            } => self.crossed(&Crossed {
                crossing: *crossing,
                port: *port,
                worker: *worker,
                part: *part,
                bytes,
            }),
            Frame::Unknown { kind } => self.write(*kind, |_| ()),
        }
    }

    fn whole_sync(&mut self, number: u64, updates: &[Update]) -> bool {
        let (before, sync) = (self.out.len(), self.sync);
        let whole = self.sync(number) && updates.iter().all(|update| self.update(update));
        if !whole {
            self.out.truncate(before);
            self.sync = sync;
        }
        whole
    }

    /// A frame whose body `fill` writes, if there is room for it.
    fn write(&mut self, kind: u16, fill: impl FnOnce(&mut Body<'_>)) -> bool {
        let before = self.out.len();
        self.out.extend_from_slice(&kind.to_le_bytes());
        self.out.extend_from_slice(&[0; 2]);
        fill(&mut Body(self.out));
        if self.out.len() > self.end {
            self.out.truncate(before);
            return false;
        }
        let length = (self.out.len() - before - FRAME) as u16;
        self.out[before + 2..before + FRAME].copy_from_slice(&length.to_le_bytes());
        // Updates go into the last frame alone.
        self.sync = None;
        true
    }
}

fn write_heartbeat(body: &mut Body<'_>, of: &Heartbeat) {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let said = bit(of.healthy, says::HEALTHY)
        | bit(of.in_sync, says::IN_SYNC)
        | bit(of.yields, says::YIELDS)
        | bit(of.asks_to_lead, says::ASKS_TO_LEAD);
    body.field(tag::NODE, &[of.node.0]);
    body.field(tag::ROLE, &[of.role as u8]);
    body.number(tag::LEAD, of.lead.0);
    body.field(tag::PRIORITY, &[of.priority]);
    body.field(tag::SAYS, &[said]);
    body.number(tag::POLICY, of.policy);
    body.number(tag::LAYOUT, of.layout);
    body.number(tag::SENT, of.sent.0);
    body.number(tag::HEARD, of.heard.0);
    if !of.progress.is_empty() {
        let workers = of.progress.iter().map(|Progress { worker, turns }| {
            let mut bytes = [0; PROGRESS];
            bytes[..2].copy_from_slice(&worker.to_le_bytes());
            bytes[2..].copy_from_slice(&turns.to_le_bytes());
            bytes
        });
        body.list(tag::PROGRESS, workers);
    }
    body.field(tag::VERSION, &of.version.to_le_bytes());
}

/// A bit for each bucket.
fn bitmap(buckets: &[Bucket]) -> [u8; BITMAP] {
    let mut bits = [0; BITMAP];
    for Bucket(bucket) in buckets {
        if let Some(byte) = bits.get_mut(usize::from(*bucket) / 8) {
            *byte |= 1 << (bucket % 8);
        }
    }
    bits
}
