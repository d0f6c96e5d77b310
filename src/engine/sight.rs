//! What the stages of a burst find out about its packets, step by step.

use wide::u32x8;

use super::process::FlowPacket;
use super::{Hops, MAX_BATCH};
use crate::base::simd::LANES;
use crate::base::{PortId, WorkerId};
use crate::flow::proof::Kinds;
use crate::flow::{Candidate, Direction, FlowKey, Plain};
use crate::packet::build::MAX_ANSWER;
use crate::packet::parse::{Lanes, ParseOptions, Straight, TcpLanes, parse_into};
use crate::packet::{PacketBuf, PacketMeta};
use crate::policy::{ClassifyKey, RuleMatch};

/// What one burst needs between its stages; allocated once.
pub(super) struct Scratch {
    /// By place in the batch.
    pub(super) sights: [Sight; MAX_BATCH],
    /// By place in the batch, too; written where `Sight::parsed` says so.
    pub(super) metas: [PacketMeta; MAX_BATCH],
    /// By place in the batch; meaningful where `Sight::parsed` is [`Parsed::Plain`].
    pub(super) segments: Segments,
    /// By place in the batch: how a packet came to this worker, one of several.
    pub(super) hops: [Hops; MAX_BATCH],
    /// What the rules are asked, and what they say; `Sight::question` points here.
    pub(super) questions: [ClassifyKey; MAX_BATCH],
    pub(super) matches: [RuleMatch; MAX_BATCH],
    pub(super) answer: [u8; MAX_ANSWER],
}

/// What the stages find out about one packet, step by step: one cache line, all that a packet of a steady session needs.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Sight {
    /// Its flow, its session's candidate, its hash: meaningful with `is_flow`. Of a packet that is another worker's, `hash` says whose
    /// ([`Sight::elsewhere`]).
    pub(super) key: FlowKey,
    pub(super) candidate: Candidate,
    pub(super) hash: u64,
    /// The port that it came in by.
    pub(super) ingress: PortId,
    /// Of a packet of the straight path: bytes of the IP packet.
    pub(super) ip_len: u16,
    pub(super) direction: Direction,
    /// Index of what the rules were asked for it plus one; 0: nothing.
    pub(super) question: u8,
    pub(super) parsed: Parsed,
    /// On a node of several workers, of a packet of the straight path: [`Kinds::of_lanes`]; of others 0.
    pub(super) kinds: u8,
}

impl Sight {
    /// The packet waits for its session.
    pub(super) const fn set_waits(&mut self) {
        self.parsed = Parsed::Waits;
    }

    /// The packet is `owner`'s.
    pub(super) const fn set_elsewhere(&mut self, owner: WorkerId) {
        self.parsed = Parsed::Elsewhere;
        self.hash = owner.0 as u64;
    }

    /// Whose it is, if another worker's.
    pub(super) const fn elsewhere(&self) -> Option<WorkerId> {
        match self.parsed {
            Parsed::Elsewhere => Some(WorkerId(self.hash as u16)),
            _ => None,
        }
    }
}

/// How much was read of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(super) enum Parsed {
    /// It is another worker's.
    Elsewhere,
    /// It is this worker's, and its session may still be on the way here.
    Waits,
    /// Its metadata are in [`Scratch::metas`]; it belongs to no flow.
    #[default]
    Layer2,
    /// Its metadata are in [`Scratch::metas`]; it belongs to a flow.
    Flow,
    /// It belongs to a flow, and its metadata were not asked for yet.
    Straight,
    /// The same of a TCP segment with ACK alone: it is in [`Scratch::segments`].
    Plain,
}

impl Parsed {
    /// As tags of packets of the straight path; those of others are 0.
    pub(super) const STRAIGHT: u8 = 2;
    pub(super) const PLAIN: u8 = 3;

    /// With [`Sight::kinds`] in the high byte.
    #[inline(always)]
    pub(super) fn tags(lanes: &Lanes, several: bool) -> u32x8 {
        let plain = u32x8::splat((Self::PLAIN ^ Self::STRAIGHT).into()) & lanes.tcp.plain;
        let mut tags = u32x8::splat(Self::STRAIGHT.into()) | plain;
        if several {
            tags |= Kinds::of_lanes(lanes) << 8;
        }
        tags & lanes.taken
    }
}

/// TCP segments with ACK alone, side by side as they were parsed.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Segments {
    sequence: [u32; MAX_BATCH],
    acknowledgment: [u32; MAX_BATCH],
    window_and_len: [u32; MAX_BATCH],
}

impl Segments {
    const NONE: Self = Self {
        sequence: [0; MAX_BATCH],
        acknowledgment: [0; MAX_BATCH],
        window_and_len: [0; MAX_BATCH],
    };

    /// Keeps what a group of eight says, of which the first is at `place`.
    #[inline(always)]
    pub(super) fn keep(&mut self, place: usize, lanes: &TcpLanes) {
        let fields = [
            (&mut self.sequence, lanes.sequence),
            (&mut self.acknowledgment, lanes.acknowledgment),
            (&mut self.window_and_len, lanes.window_and_len),
        ];
        for (kept, lanes) in fields {
            if let Some(kept) = kept.get_mut(place..place + LANES) {
                kept.copy_from_slice(&lanes.to_array());
            }
        }
    }

    #[inline(always)]
    pub(super) const fn plain(&self, place: usize) -> Plain {
        let window_and_len = self.window_and_len[place];
        Plain {
            seq: self.sequence[place],
            ack: self.acknowledgment[place],
            window: window_and_len as u16,
            data_len: window_and_len >> 16,
        }
    }
}

const _: () = assert!(size_of::<Sight>() == 64 && MAX_BATCH < 256);

impl Default for Scratch {
    fn default() -> Self {
        Self {
            sights: [Sight::default(); MAX_BATCH],
            metas: [PacketMeta::default(); MAX_BATCH],
            segments: Segments::NONE,
            hops: [Hops::NONE; MAX_BATCH],
            questions: [ClassifyKey::default(); MAX_BATCH],
            matches: [None; MAX_BATCH],
            answer: [0; MAX_ANSWER],
        }
    }
}

impl Scratch {
    /// The packet at `place`, of a flow, whose metadata were read.
    #[inline(always)]
    pub(super) fn flow<'a>(&'a self, place: usize, frame: &'a [u8]) -> FlowPacket<'a> {
        let sight = &self.sights[place];
        FlowPacket {
            meta: &self.metas[place],
            frame,
            key: &sight.key,
            hash: sight.hash,
            direction: sight.direction,
            candidate: sight.candidate,
            question: sight.question,
            hops: self.hops[place],
        }
    }

    /// Has the metadata of the packet at `place` read if they are not there yet.
    #[inline(never)]
    pub(super) fn complete<B: PacketBuf>(&mut self, place: usize, packet: &B, options: ParseOptions) {
        let (sight, meta) = (&mut self.sights[place], &mut self.metas[place]);
        if matches!(sight.parsed, Parsed::Straight | Parsed::Plain) {
            match Straight::of_taken(packet.bytes(), sight.ip_len) {
                Some(straight) => straight.meta(meta),
                None => parse_into(packet.bytes(), packet.rx_checksum(), options, meta),
            }
            meta.ingress = sight.ingress;
            sight.parsed = Parsed::Flow;
        }
    }
}
