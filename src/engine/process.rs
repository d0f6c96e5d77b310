//! The stages of a burst, in order: parse all, hash all, find all, ask the rules, act.

use super::counters::RuleRun;
use super::rate::TokenBucket;
use super::{Batch, Counters, DropReason, Engine, MAX_BATCH, Note, Outputs, RuleCounters, Why, reject};
use crate::base::simd::prefetch_bytes;
use crate::base::{Nanos, PortId, SessionIx, Tick, ZoneId};
use crate::flow::{Candidate, Direction, FlowKey, Lookup, SessionTable, track};
use crate::packet::build::MAX_ANSWER;
use crate::packet::parse::{Malformed, ParseOptions, parse_into};
use crate::packet::{PacketBuf, PacketKind, PacketMeta};
use crate::policy::{ClassifyKey, PassOrDrop, Policy, PortPolicy, RuleMatch, VlanMode};

/// What one burst needs between its stages; allocated once.
pub(super) struct Scratch {
    /// By place in the batch.
    metas: [PacketMeta; MAX_BATCH],
    /// By place in the batch, too.
    flows: [Flow; MAX_BATCH],
    /// What the rules are asked, and what they say; `Flow::question` points here.
    questions: [ClassifyKey; MAX_BATCH],
    matches: [RuleMatch; MAX_BATCH],
    answer: [u8; MAX_ANSWER],
}

/// What is found out about the flow that a packet belongs to, step by step: one cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Flow {
    key: FlowKey,
    /// Where its session may be; meaningful with `is_flow`.
    candidate: Candidate,
    hash: u64,
    direction: Direction,
    /// The packet belongs to a flow.
    is_flow: bool,
    /// Index of what the rules were asked for it plus one; 0: nothing.
    question: u8,
}

const _: () = assert!(size_of::<Flow>() == 64 && MAX_BATCH < 256);

impl Default for Scratch {
    fn default() -> Self {
        Self {
            metas: [PacketMeta::default(); MAX_BATCH],
            flows: [Flow::default(); MAX_BATCH],
            questions: [ClassifyKey::default(); MAX_BATCH],
            matches: [None; MAX_BATCH],
            answer: [0; MAX_ANSWER],
        }
    }
}

/// What is decided about one packet.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    /// It leaves by the peer of its port.
    Forward(Why),
    /// It is dropped.
    Drop(DropReason, Why),
    /// It is dropped, and answered where that is allowed.
    Reject(Why),
}

impl Engine {
    /// Gives every packet of `batch` a verdict through `out`, in order of arrival, and leaves the batch empty. `now`
    /// never goes back from call to call.
    pub fn process<B: PacketBuf, O: Outputs<B>>(&mut self, now: Nanos, batch: &mut Batch<B>, out: &mut O) {
        if batch.is_empty() {
            return;
        }
        self.counters.received += batch.len() as u64;
        let policy = &*self.policy;
        let scratch = &mut *self.scratch;
        parse_all(policy, scratch, batch);
        hash_all(policy, scratch, self.table.lookup(), batch.len());
        let questions = find_all(policy, scratch, self.table.lookup(), batch.len());
        if questions > 0 {
            policy
                .classifier
                .classify(&scratch.questions[..questions], &mut scratch.matches[..questions]);
        }
        let mut act = Act {
            now,
            tick: now.tick(),
            policy,
            table: &mut self.table,
            counters: &mut self.counters,
            rules: &mut self.rules,
            run: RuleRun::EMPTY,
            table_changed: false,
        };
        act.all(scratch, batch, out, &mut self.rejects);
    }
}

/// Stage 1: headers to metadata, metadata to keys, keys to hashes; the index's buckets are asked for. The frames' first
/// lines are asked for before the first one is read.
#[inline(never)]
fn parse_all<B: PacketBuf>(policy: &Policy, scratch: &mut Scratch, batch: &Batch<B>) {
    let options = ParseOptions {
        verify_l4: policy.verify_checksums,
        look_into_vlan: policy.transparent.vlan == VlanMode::Inspect,
    };
    let (packets, ingress) = batch.parts();
    for packet in packets {
        prefetch_bytes(packet.bytes());
    }
    for ((packet, port), meta) in packets.iter().zip(ingress).zip(&mut scratch.metas) {
        parse_into(packet.bytes(), packet.rx_checksum(), options, meta);
        meta.ingress = *port;
    }
}

/// Stage 2: metadata to keys, keys to hashes; the index's buckets are asked for. (Not in the loop that parses: what was
/// just written in small pieces cannot be read in large ones until it has left the store buffer.)
#[inline(never)]
fn hash_all(policy: &Policy, scratch: &mut Scratch, table: Lookup<'_>, packets: usize) {
    // Packets come in runs of one port.
    let mut domain = Domain::of(policy, PortId(0));
    for (flow, meta) in scratch.flows[..packets].iter_mut().zip(&scratch.metas) {
        flow.is_flow = belongs_to_flow(meta);
        if flow.is_flow {
            if meta.ingress != domain.port {
                domain = Domain::of(policy, meta.ingress);
            }
            let (key, direction) = FlowKey::of(meta, domain.base | (meta.vlan & domain.vlan_mask));
            let hash = table.hash(&key);
            table.prefetch(hash);
            flow.key = key;
            flow.hash = hash;
            flow.direction = direction;
        }
    }
}

/// [`crate::policy::Transparent::domain`] for the packets of one port.
struct Domain {
    port: PortId,
    base: u32,
    vlan_mask: u32,
}

impl Domain {
    #[inline]
    fn of(policy: &Policy, port: PortId) -> Self {
        let pair = port_policy(policy, port).pair;
        let base = policy.transparent.domain(pair, 0);
        Self {
            port,
            base,
            vlan_mask: policy.transparent.domain(pair, 0x00ff_ffff) ^ base,
        }
    }
}

/// Stage 3: where each flow's session may be; the sessions are asked for. What has none for certain is what the rules have
/// to be asked about. Returns how many questions there are.
#[inline(never)]
fn find_all(policy: &Policy, scratch: &mut Scratch, table: Lookup<'_>, packets: usize) -> usize {
    let mut questions = 0;
    for (flow, meta) in scratch.flows[..packets].iter_mut().zip(&scratch.metas) {
        if !flow.is_flow {
            continue;
        }
        flow.candidate = table.probe(flow.hash);
        flow.question = 0;
        if flow.candidate == Candidate::NONE {
            scratch.questions[questions] = super::first::question(meta, policy);
            questions += 1;
            flow.question = questions as u8;
        }
    }
    questions
}

/// Is this packet looked up in the session table? ICMP errors and fragments are not: they belong to the flow of the
/// packet that they carry or are part of. (Tagged frames that are not looked into are [`PacketKind::NonIp`].)
#[inline(always)]
fn belongs_to_flow(meta: &PacketMeta) -> bool {
    matches!(
        meta.kind,
        PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp
    )
}

/// A port of the policy. Every port of the node is in every policy: an id that is not is a port of no zone to itself.
#[inline]
pub(super) fn port_policy(policy: &Policy, port: PortId) -> PortPolicy {
    policy.ports.get(port.index()).copied().unwrap_or(PortPolicy {
        zone: ZoneId(u16::MAX),
        peer: port,
        pair: crate::base::PairId(u16::MAX),
    })
}

/// The last stage's view of the engine.
pub(super) struct Act<'a> {
    pub(super) now: Nanos,
    pub(super) tick: Tick,
    pub(super) policy: &'a Policy,
    pub(super) table: &'a mut SessionTable,
    pub(super) counters: &'a mut Counters,
    pub(super) rules: &'a mut [RuleCounters],
    pub(super) run: RuleRun,
    /// A session was made or ended in this batch: what stage 3 found may be stale.
    pub(super) table_changed: bool,
}

impl Act<'_> {
    #[inline(never)]
    fn all<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        scratch: &mut Scratch,
        batch: &mut Batch<B>,
        out: &mut O,
        rejects: &mut TokenBucket,
    ) {
        let mut forwarded = 0;
        for (place, packet) in batch.drain().enumerate() {
            let (meta, flow) = (&scratch.metas[place], &scratch.flows[place]);
            // Nearly every packet; the rest is judged out of line, where it costs these nothing.
            if let Some(ix) = self.steady(meta, flow) {
                forwarded += 1;
                let note = Note {
                    why: Why::Session(ix),
                    meta,
                    place,
                };
                out.forward(packet, port_policy(self.policy, meta.ingress).peer, note);
            } else {
                self.judge(scratch, place, packet, out, rejects);
            }
        }
        self.counters.forwarded += forwarded;
        self.run.flush(self.rules, self.now);
    }

    /// A packet of a session that stays as it is but for its counters.
    #[inline(always)]
    fn steady(&mut self, meta: &PacketMeta, flow: &Flow) -> Option<SessionIx> {
        if !flow.is_flow || self.table_changed {
            return None;
        }
        let ix = self.table.lookup().confirm(&flow.key, flow.candidate)?;
        let session = self.table.get_mut(ix);
        if session.ingress_of(flow.direction) != meta.ingress
            || session.generation != self.policy.generation
            || !track::is_steady(session, flow.direction, meta)
        {
            return None;
        }
        self.count(ix, flow.direction, meta);
        Some(ix)
    }

    /// Any packet.
    #[inline(never)]
    fn judge<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        scratch: &mut Scratch,
        place: usize,
        packet: B,
        out: &mut O,
        rejects: &mut TokenBucket,
    ) {
        let (meta, flow) = (&scratch.metas[place], &scratch.flows[place]);
        let verdict = if flow.is_flow {
            let flow = FlowPacket {
                meta,
                frame: packet.bytes(),
                key: &flow.key,
                hash: flow.hash,
                direction: flow.direction,
                candidate: flow.candidate,
                question: flow.question,
            };
            self.flow(&flow, &scratch.matches)
        } else {
            self.layer2(meta)
        };
        match verdict {
            Verdict::Forward(why) => {
                self.counters.forwarded += 1;
                let peer = port_policy(self.policy, meta.ingress).peer;
                out.forward(packet, peer, Note { why, meta, place });
            }
            Verdict::Drop(reason, why) => {
                self.counters.drops[reason.index()] += 1;
                out.drop(packet, reason, Note { why, meta, place });
            }
            Verdict::Reject(why) => {
                self.counters.drops[DropReason::Policy.index()] += 1;
                reject::answer(
                    self.counters,
                    rejects,
                    self.now,
                    meta,
                    &packet,
                    &mut scratch.answer,
                    out,
                );
                out.drop(packet, DropReason::Policy, Note { why, meta, place });
            }
        }
    }

    /// A packet of a flow. Where an earlier packet of this batch made or ended a session, what stage 3 found is found
    /// again: two packets of one new flow in a burst make one session.
    #[inline]
    fn flow(&mut self, flow: &FlowPacket<'_>, matches: &[RuleMatch; MAX_BATCH]) -> Verdict {
        let found = if self.table_changed {
            self.table.find(flow.key, flow.hash)
        } else {
            let near = self.table.lookup().confirm(flow.key, flow.candidate);
            let further = || match flow.candidate {
                Candidate::NONE => None,
                // Another flow's session, or one further on.
                _ => self.table.find(flow.key, flow.hash),
            };
            near.or_else(further)
        };
        if let Some(ix) = found {
            return self.session(flow, ix);
        }
        let answer = match usize::from(flow.question) {
            // Stage 3 saw something: another flow's session, or one that an earlier packet of the batch ended.
            0 => self.ask(&super::first::question(flow.meta, self.policy)),
            question => matches[question - 1],
        };
        self.first(flow, answer)
    }

    /// Asks the rules about one packet alone.
    #[cold]
    pub(super) fn ask(&self, question: &ClassifyKey) -> RuleMatch {
        let mut matches = [None];
        self.policy
            .classifier
            .classify(std::slice::from_ref(question), &mut matches);
        matches[0]
    }

    /// Everything that no session and no rule is asked about.
    fn layer2(&mut self, meta: &PacketMeta) -> Verdict {
        let transparent = &self.policy.transparent;
        if meta.has(PacketMeta::TAGGED) && transparent.vlan != VlanMode::Inspect {
            return match transparent.vlan {
                VlanMode::Pass => Verdict::Forward(Why::Layer2),
                _ => Verdict::Drop(DropReason::VlanTagged, Why::Layer2),
            };
        }
        match meta.kind {
            PacketKind::Arp | PacketKind::NeighbourDiscovery => Verdict::Forward(Why::Layer2),
            PacketKind::NonIp => match transparent.non_ip {
                PassOrDrop::Pass => Verdict::Forward(Why::Layer2),
                PassOrDrop::Drop => Verdict::Drop(DropReason::NonIp, Why::Layer2),
            },
            PacketKind::BadChecksum => Verdict::Drop(DropReason::BadChecksum, Why::Layer2),
            PacketKind::Fragment => Verdict::Drop(DropReason::Fragment, Why::Layer2),
            PacketKind::IcmpError => Verdict::Drop(DropReason::IcmpErrorUnrelated, Why::Layer2),
            // The kinds of flows never come here; should one, it is not let through.
            _ => {
                let detail = usize::from(meta.detail).min(Malformed::ALL.len() - 1);
                self.counters.malformed[detail] += 1;
                Verdict::Drop(DropReason::Malformed, Why::Layer2)
            }
        }
    }
}

/// A packet of a flow, as the session and first-packet paths need it.
#[derive(Clone, Copy)]
pub(super) struct FlowPacket<'a> {
    pub(super) meta: &'a PacketMeta,
    pub(super) frame: &'a [u8],
    pub(super) key: &'a FlowKey,
    pub(super) hash: u64,
    pub(super) direction: Direction,
    candidate: Candidate,
    question: u8,
}
