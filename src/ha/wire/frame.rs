//! Bytes to messages.

use super::field::{Fields, u16_of, u32_of, u64_of};
use super::session::{self, InvalidUpdate, STATION};
use super::{BITMAP, FRAME, PART, PROGRESS, WireError, flags, kind, says, tag};
use crate::base::{Nanos, PortId};
use crate::flow::image::{BUCKETS, Bucket};
use crate::ha::message::{
    Ack, Crossed, Crossing, DigestReport, Frame, Heartbeat, Lead, NodeId, Part, Progress, Role, Update,
};

/// One message of a datagram.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// [`Frame::Sync`], whose updates are decoded as they are asked for.
    Sync {
        /// The sync number.
        number: u64,
        /// The sender waits for the acknowledgement.
        haste: bool,
        /// What is new.
        updates: Updates<'a>,
    },
    /// [`Frame::Packet`], in its place.
    Packet(Crossed<'a>),
    /// Any other one, [`Frame::Unknown`] too.
    Other(Frame),
    /// A kind that this version knows with a value that it does not (the role of a later version, a bucket that does not exist): to be
    /// counted and passed over.
    Invalid {
        /// Its kind.
        kind: u16,
    },
}

impl Message<'_> {
    /// The message by itself, without the updates that are invalid; `None`: it is invalid as a whole.
    #[must_use]
    pub fn into_frame(self) -> Option<Frame> {
        match self {
            Self::Sync { number, updates, .. } => Some(Frame::Sync {
                number,
                updates: updates.flatten().collect(),
            }),
            Self::Packet(of) => Some(Frame::Packet {
                crossing: of.crossing,
                port: of.port,
                worker: of.worker,
                part: of.part,
                bytes: of.bytes.to_vec(),
            }),
            Self::Other(frame) => Some(frame),
            Self::Invalid { .. } => None,
        }
    }
}

/// The messages of a datagram whose structure is right.
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a [u8]);

/// The updates of one [`Message::Sync`]. One that cannot be is an error of its own.
#[derive(Clone, Debug)]
pub struct Updates<'a>(Fields<'a, 2>);

/// Reads a datagram's plaintext. All lengths are looked at before any message comes out.
///
/// # Errors
///
/// Something of it cannot be read: all of it is refused.
pub fn decode(plain: &[u8]) -> Result<Messages<'_>, WireError> {
    let mut rest = plain;
    while !rest.is_empty() {
        let (kind, body, after) = split(rest).ok_or(WireError::Overrun { kind: 0 })?;
        check(kind, body)?;
        rest = after;
    }
    Ok(Messages(plain))
}

/// The first frame's kind and body, and what comes behind it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME)?;
    let (body, after) = rest.split_at_checked(usize::from(u16_of(&head[2..])))?;
    Some((u16_of(head), body, after))
}

/// Is a body's structure right? Bodies of unknown kinds may have any.
fn check(kind: u16, body: &[u8]) -> Result<(), WireError> {
    if !(kind::HEARTBEAT..=kind::RETURN).contains(&kind) {
        return Ok(());
    }
    for field in Fields::<2>(body) {
        let (tag, value) = field.ok_or(WireError::Overrun { kind })?;
        let is_long_enough = match (kind, tag) {
            (kind::SYNC, tag::SESSION | tag::GONE) => {
                session::check(tag, value).ok_or(WireError::Overrun { kind })?
            }
            (kind::SYNC, tag::STATION) => value.len() >= STATION,
            (kind::HEARTBEAT, tag::PROGRESS) => value.len() % PROGRESS == 0,
            (kind::BARRIER, tag::DIGESTS) => value.len() % 8 == 0,
            _ => value.len() >= shortest(kind, tag),
        };
        if !is_long_enough {
            return Err(WireError::TooShort { kind, tag });
        }
    }
    Ok(())
}

/// Bytes of a field's value in version 1; 0 for one that it does not know.
const fn shortest(kind: u16, tag: u8) -> usize {
    match (kind, tag) {
        (kind::HEARTBEAT, tag::NODE | tag::ROLE | tag::PRIORITY | tag::SAYS) => 1,
        (kind::REDIRECT | kind::RETURN, tag::FLAGS) => 1,
        (kind::HEARTBEAT, tag::VERSION)
        | (kind::BARRIER, tag::FIRST)
        | (kind::REDIRECT | kind::RETURN, tag::PORT | tag::WORKER) => 2,
        (kind::REDIRECT | kind::RETURN, tag::PART) => PART,
        (kind::HEARTBEAT, tag::LEAD | tag::POLICY | tag::LAYOUT | tag::SENT | tag::HEARD)
        | (kind::ACK, tag::HIGHEST | tag::BEFORE)
        | (kind::SYNC | kind::RESYNC_BEGIN | kind::RESYNC_END | kind::BARRIER, tag::NUMBER)
        | (kind::RESYNC_BEGIN, tag::SESSIONS)
        | (kind::BARRIER | kind::DIGESTS, tag::BARRIER) => 8,
        (kind::RESYNC_BEGIN | kind::RESYNC_END, tag::RESYNC) => 4,
        (kind::RESYNC_BEGIN, tag::BUCKETS) | (kind::DIGESTS, tag::DIFFER) => BITMAP,
        _ => 0,
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, body, after) = split(self.0)?;
        self.0 = after;
        Some(match kind {
            kind::SYNC => sync(body),
            kind::REDIRECT | kind::RETURN => packet(kind, body),
            _ => other(kind, body).map_or(Message::Invalid { kind }, Message::Other),
        })
    }
}

impl Iterator for Updates<'_> {
    type Item = Result<Update, InvalidUpdate>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()?? {
                (tag::SESSION, value) => return Some(session::read(value).map(Update::Session)),
                (tag::GONE, value) => return Some(session::read_gone(value)),
                (tag::STATION, value) => return Some(session::read_station(value)),
                _ => (),
            }
        }
    }
}

fn sync(body: &[u8]) -> Message<'_> {
    let mut fields = Fields(body);
    // It comes first, as this version writes it; in another order it is looked for.
    let number = fields
        .flatten()
        .find_map(|(tag, value)| (tag == tag::NUMBER).then(|| u64_of(value)));
    if let Some(Some((tag::NUMBER, _))) = fields.clone().next() {
        fields.next();
    }
    // It comes next.
    let haste = matches!(fields.clone().next(), Some(Some((tag::HASTE, _))));
    Message::Sync {
        number: number.unwrap_or_default(),
        haste,
        updates: Updates(fields),
    }
}

/// A packet that crosses. One without bytes, or of which a part is beyond its end, is none.
fn packet(kind: u16, body: &[u8]) -> Message<'_> {
    let mut of = Crossed {
        crossing: Crossing::default(),
        port: PortId(0),
        worker: 0,
        part: None,
        bytes: &[],
    };
    let mut said = 0;
    for (tag, value) in Fields::<2>(body).flatten() {
        match tag {
            tag::PORT => of.port = PortId(u16_of(value)),
            tag::FLAGS => said = value.first().copied().unwrap_or_default(),
            tag::WORKER => of.worker = u16_of(value),
            tag::PART => {
                of.part = Some(Part {
                    id: u32_of(value),
                    offset: u16_of(&value[4..]),
                    total: u16_of(&value[6..]),
                });
            }
            tag::BYTES => of.bytes = value,
            _ => (),
        }
    }
    of.crossing = match kind {
        kind::REDIRECT if said & flags::KNOWN != 0 => Crossing::Known,
        kind::REDIRECT => Crossing::Unknown,
        _ if said & flags::SENT_BACK != 0 => Crossing::SentBack,
        _ if said & flags::MADE != 0 => Crossing::ReturnMade,
        _ => Crossing::Return,
    };
    let fits = |part: Part| usize::from(part.offset) + of.bytes.len() <= usize::from(part.total);
    if of.bytes.is_empty() || !of.part.is_none_or(fits) {
        return Message::Invalid { kind };
    }
    Message::Packet(of)
}

/// Any kind but Sync; `None`: it is invalid.
fn other(kind: u16, body: &[u8]) -> Option<Frame> {
    let fields = Fields::<2>(body).flatten();
    match kind {
        kind::HEARTBEAT => heartbeat(fields).map(Frame::Heartbeat),
        kind::ACK => {
            let mut ack = Ack::default();
            for (tag, value) in fields {
                match tag {
                    tag::HIGHEST => ack.highest = u64_of(value),
                    tag::BEFORE => ack.before = u64_of(value),
                    _ => (),
                }
            }
            Some(Frame::Ack(ack))
        }
        kind::RESYNC_BEGIN | kind::RESYNC_END => resync(kind, fields),
        kind::BARRIER => barrier(fields),
        kind::DIGESTS => {
            let mut report = DigestReport::default();
            for (tag, value) in fields {
                match tag {
                    tag::BARRIER => report.barrier = u64_of(value),
                    tag::DIFFER => report.differ = buckets(value),
                    _ => (),
                }
            }
            Some(Frame::Digests(report))
        }
        _ => Some(Frame::Unknown { kind }),
    }
}

fn heartbeat<'a>(fields: impl Iterator<Item = (u8, &'a [u8])>) -> Option<Heartbeat> {
    let mut of = Heartbeat::default();
    for (tag, value) in fields {
        let first = value.first().copied().unwrap_or_default();
        match tag {
            tag::NODE => of.node = NodeId(first),
            tag::ROLE => of.role = role(first)?,
            tag::LEAD => of.lead = Lead(u64_of(value)),
            tag::PRIORITY => of.priority = first,
            tag::SAYS => {
                of.healthy = first & says::HEALTHY != 0;
                of.in_sync = first & says::IN_SYNC != 0;
                of.yields = first & says::YIELDS != 0;
                of.asks_to_lead = first & says::ASKS_TO_LEAD != 0;
            }
            tag::POLICY => of.policy = u64_of(value),
            tag::LAYOUT => of.layout = u64_of(value),
            tag::SENT => of.sent = Nanos(u64_of(value)),
            tag::HEARD => of.heard = Nanos(u64_of(value)),
            tag::PROGRESS => {
                let workers = value.chunks_exact(PROGRESS).map(|worker| Progress {
                    worker: u16_of(worker),
                    turns: u32_of(&worker[2..]),
                });
                of.progress = workers.collect();
            }
            tag::VERSION => of.version = u16_of(value),
            _ => (),
        }
    }
    matches!(of.node, NodeId(1 | 2)).then_some(of)
}

const fn role(number: u8) -> Option<Role> {
    Some(match number {
        0 => Role::Waiting,
        1 => Role::Standby,
        2 => Role::Leader,
        3 => Role::Isolated,
        4 => Role::Active,
        _ => return None,
    })
}

fn resync<'a>(kind: u16, fields: impl Iterator<Item = (u8, &'a [u8])>) -> Option<Frame> {
    let (mut number, mut resync, mut of, mut sessions) = (0, 0, Vec::new(), 0);
    for (tag, value) in fields {
        match tag {
            tag::NUMBER => number = u64_of(value),
            tag::RESYNC => resync = u32_of(value),
            tag::BUCKETS if kind == kind::RESYNC_BEGIN => {
                of = buckets(value);
                // None would be read as all.
                if of.is_empty() {
                    return None;
                }
            }
            tag::SESSIONS if kind == kind::RESYNC_BEGIN => sessions = u64_of(value),
            _ => (),
        }
    }
    if kind == kind::RESYNC_END {
        return Some(Frame::ResyncEnd { number, resync });
    }
    Some(Frame::ResyncBegin {
        number,
        resync,
        buckets: of,
        sessions,
    })
}

fn barrier<'a>(fields: impl Iterator<Item = (u8, &'a [u8])>) -> Option<Frame> {
    let (mut number, mut barrier, mut first, mut digests) = (0, 0, Bucket(0), Vec::new());
    for (tag, value) in fields {
        match tag {
            tag::NUMBER => number = u64_of(value),
            tag::BARRIER => barrier = u64_of(value),
            tag::FIRST => first = Bucket(u16_of(value)),
            tag::DIGESTS => {
                if value.len() / 8 > BUCKETS {
                    return None;
                }
                digests = value.chunks_exact(8).map(u64_of).collect();
            }
            _ => (),
        }
    }
    (usize::from(first.0) + digests.len() <= BUCKETS).then_some(Frame::Barrier {
        number,
        barrier,
        first,
        digests,
    })
}

/// The buckets whose bits are set. A set that has a bit beyond is of other buckets; the peers' layouts differ, and they do not synchronise.
fn buckets(value: &[u8]) -> Vec<Bucket> {
    let bits = value.get(..BITMAP).unwrap_or_default();
    (0..BUCKETS as u16)
        .filter(|bucket| {
            bits.get(usize::from(bucket / 8))
                .is_some_and(|byte| byte & (1 << (bucket % 8)) != 0)
        })
        .map(Bucket)
        .collect()
}
