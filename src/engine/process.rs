//! The stages of a burst, in order: parse all, find all, ask the rules, act.

use super::counters::RuleRun;
use super::rate::TokenBucket;
use super::{Batch, Counters, DropReason, Engine, MAX_BATCH, Note, Outputs, RuleCounters, Why, reject};
use crate::base::simd::prefetch;
use crate::base::{Nanos, PortId, SessionIx, Tick, ZoneId};
use crate::flow::{Direction, FlowKey, SessionTable};
use crate::packet::build::MAX_ANSWER;
use crate::packet::parse::{Malformed, ParseOptions, parse_into};
use crate::packet::{PacketBuf, PacketKind, PacketMeta};
use crate::policy::{ClassifyKey, PassOrDrop, Policy, PortPolicy, RuleMatch, VlanMode};

/// What one burst needs between its stages; allocated once.
pub(super) struct Scratch {
    metas: [PacketMeta; MAX_BATCH],
    /// Packets that belong to flows, in order: their places in the batch ...
    places: [u8; MAX_BATCH],
    /// ... and, by the same index, what was found out about them.
    flows: [Flow; MAX_BATCH],
    keys: [FlowKey; MAX_BATCH],
    hashes: [u64; MAX_BATCH],
    found: [Option<SessionIx>; MAX_BATCH],
    /// What the rules are asked, and what they say; `Flow::question` points here.
    questions: [ClassifyKey; MAX_BATCH],
    matches: [RuleMatch; MAX_BATCH],
    answer: [u8; MAX_ANSWER],
}

/// A packet that belongs to a flow.
#[derive(Clone, Copy, Default)]
struct Flow {
    direction: Direction,
    /// Index of what the rules were asked for it plus one; 0: nothing.
    question: u8,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            metas: [PacketMeta::default(); MAX_BATCH],
            places: [0; MAX_BATCH],
            flows: [Flow::default(); MAX_BATCH],
            keys: [FlowKey::default(); MAX_BATCH],
            hashes: [0; MAX_BATCH],
            found: [None; MAX_BATCH],
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
        let flows = find_all(policy, scratch, &self.table, batch.len());
        let questions = collect_questions(policy, scratch, &self.table, flows);
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
        act.all(scratch, flows, batch, out, &mut self.rejects);
    }
}

/// Stage 1: headers to metadata. The frames' first lines are asked for before the first one is read.
#[inline]
fn parse_all<B: PacketBuf>(policy: &Policy, scratch: &mut Scratch, batch: &Batch<B>) {
    let options = ParseOptions {
        verify_l4: policy.verify_checksums,
        look_into_vlan: policy.transparent.vlan == VlanMode::Inspect,
    };
    let (packets, ingress) = batch.parts();
    for packet in packets {
        if let Some(first) = packet.bytes().first() {
            prefetch(first);
        }
    }
    for ((packet, port), meta) in packets.iter().zip(ingress).zip(&mut scratch.metas) {
        parse_into(packet.bytes(), packet.rx_checksum(), options, meta);
        meta.ingress = *port;
    }
}

/// Stage 2: keys, hashes and sessions of all packets that belong to flows. Returns how many those are.
#[inline]
fn find_all(policy: &Policy, scratch: &mut Scratch, table: &SessionTable, packets: usize) -> usize {
    let mut flows = 0;
    for (place, meta) in scratch.metas[..packets].iter().enumerate() {
        if !belongs_to_flow(meta, policy) {
            continue;
        }
        let pair = port_policy(policy, meta.ingress).pair;
        let (key, direction) = FlowKey::of(meta, policy.transparent.domain(pair, meta.vlan));
        scratch.places[flows] = place as u8;
        scratch.flows[flows] = Flow {
            direction,
            question: 0,
        };
        scratch.keys[flows] = key;
        flows += 1;
    }
    table.hash_batch(&scratch.keys[..flows], &mut scratch.hashes[..flows]);
    table.find_batch(
        &scratch.keys[..flows],
        &scratch.hashes[..flows],
        &mut scratch.found[..flows],
    );
    flows
}

/// Stage 3: what the rules have to be asked: packets without a session that could open one, and sessions that an older
/// policy let in. Returns how many questions there are.
#[inline]
fn collect_questions(policy: &Policy, scratch: &mut Scratch, table: &SessionTable, flows: usize) -> usize {
    let mut questions = 0;
    for i in 0..flows {
        let question = match scratch.found[i] {
            Some(ix) => {
                let session = table.get(ix);
                if session.generation == policy.generation {
                    continue;
                }
                super::session::question(session, policy)
            }
            None => {
                let meta = &scratch.metas[usize::from(scratch.places[i])];
                super::first::question(meta, policy)
            }
        };
        scratch.questions[questions] = question;
        questions += 1;
        scratch.flows[i].question = questions as u8;
    }
    questions
}

/// Is this packet looked up in the session table? ICMP errors and fragments are not: they belong to the flow of the
/// packet that they carry or are part of.
#[inline]
fn belongs_to_flow(meta: &PacketMeta, policy: &Policy) -> bool {
    let kind = matches!(
        meta.kind,
        PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp
    );
    kind && (policy.transparent.vlan == VlanMode::Inspect || !meta.has(PacketMeta::TAGGED))
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

/// Stage 4's view of the engine.
pub(super) struct Act<'a> {
    pub(super) now: Nanos,
    pub(super) tick: Tick,
    pub(super) policy: &'a Policy,
    pub(super) table: &'a mut SessionTable,
    pub(super) counters: &'a mut Counters,
    pub(super) rules: &'a mut [RuleCounters],
    pub(super) run: RuleRun,
    /// A session was made or ended in this batch: what stage 2 found may be stale.
    pub(super) table_changed: bool,
}

impl Act<'_> {
    #[inline]
    fn all<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        scratch: &mut Scratch,
        flows: usize,
        batch: &mut Batch<B>,
        out: &mut O,
        rejects: &mut TokenBucket,
    ) {
        let mut next = 0;
        for (place, packet) in batch.drain().enumerate() {
            let meta = &scratch.metas[place];
            let verdict = if next < flows && usize::from(scratch.places[next]) == place {
                let i = next;
                next += 1;
                let question = usize::from(scratch.flows[i].question);
                let answer = if question > 0 {
                    scratch.matches[question - 1]
                } else {
                    None
                };
                let flow = FlowPacket {
                    meta,
                    frame: packet.bytes(),
                    key: &scratch.keys[i],
                    hash: scratch.hashes[i],
                    direction: scratch.flows[i].direction,
                };
                self.flow(&flow, scratch.found[i], answer)
            } else {
                self.layer2(meta)
            };
            let port = port_policy(self.policy, meta.ingress);
            match verdict {
                Verdict::Forward(why) => {
                    self.counters.forwarded += 1;
                    out.forward(packet, port.peer, Note { why, meta, place });
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
        self.run.flush(self.rules, self.now);
    }

    /// A packet of a flow. Where an earlier packet of this batch made or ended a session, what stage 2 found is found
    /// again: two packets of one new flow in a burst make one session.
    #[inline]
    fn flow(&mut self, flow: &FlowPacket<'_>, found: Option<SessionIx>, answer: RuleMatch) -> Verdict {
        let was_found = found.is_some();
        let found = if self.table_changed {
            self.table.find(flow.key, flow.hash)
        } else {
            found
        };
        match found {
            Some(ix) => self.session(flow, ix, answer),
            None if was_found => self.first_asked_now(flow),
            None => self.first(flow, answer),
        }
    }

    /// A session that stage 2 found was ended by an earlier packet of the batch: ask the rules about this one alone.
    #[cold]
    fn first_asked_now(&mut self, flow: &FlowPacket<'_>) -> Verdict {
        let mut matches = [None];
        self.policy
            .classifier
            .classify(&[super::first::question(flow.meta, self.policy)], &mut matches);
        self.first(flow, matches[0])
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
}
