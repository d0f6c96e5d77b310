//! Explain: what would happen to packets, from the same engine that a node runs, with a clock that the packets set.
//!
//! [`Simulator`] is a scratch engine. Without a node it starts empty under a configuration's policy; for a running node
//! it starts with copies of the live sessions that the packets touch ([`live`]), and nothing in the node changes.

pub mod capture;
pub mod live;
mod words;

use std::collections::HashMap;
use std::sync::Arc;

use super::NodeError;
use super::node::{ErrorKind, Fate, Verdict, Word};
use super::view::{LiveSession, Names};
use crate::base::slab::HeapMemory;
use crate::base::{Nanos, PortId, WorkerId};
use crate::engine::{Batch, DropReason, Engine, Note, Outputs, Why};
use crate::flow::table::SessionId;
use crate::flow::{Direction, FlowKey, HashSeed, TcpSender};
use crate::packet::parse::{Malformed, ParseOptions, parse, parse_embedded};
use crate::packet::view::link_header;
use crate::packet::{PacketKind, PacketMeta, RxChecksum, VecPacket};
use crate::policy::{Policy, VlanMode};

pub use words::{Conversation, check_words, describe};

/// Time that the engine's coarse clock can look back on (see [`crate::base::Tick`]), with room to spare.
const LONGEST_STEP: Nanos = Nanos::from_secs(300 * 86_400);

/// A scratch engine that says what it does and why.
pub struct Simulator {
    engine: Engine,
    names: Arc<Names>,
    /// The engine's time of the first packet.
    start: Nanos,
    now: Nanos,
    packets: u64,
    /// What the copies of live sessions were like when they were taken; the table counts from there.
    copies: HashMap<SessionId, LiveSession>,
}

impl Simulator {
    /// An engine under `policy` with room for `sessions`, whose first packet comes at `start`.
    ///
    /// # Errors
    /// When it cannot have so much memory.
    pub fn new(
        policy: Arc<Policy>,
        names: Arc<Names>,
        sessions: u32,
        start: Nanos,
    ) -> Result<Self, NodeError> {
        let engine = Engine::new(sessions.max(1), policy, &HeapMemory, HashSeed::random())
            .map_err(|e| NodeError::new(ErrorKind::Internal, format!("cannot explain: {e}")))?;
        Ok(Self {
            engine,
            names,
            start,
            now: start,
            packets: 0,
            copies: HashMap::new(),
        })
    }

    /// The policy that is asked.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        self.engine.policy()
    }

    /// The names of its ports and rules.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The port that a zone or a port's name means; `None`: neither is given.
    ///
    /// # Errors
    /// When there is no such port or zone, or when the zone has several ports.
    pub fn port(&self, from: Option<&str>, port: Option<&str>) -> Result<Option<PortId>, NodeError> {
        words::ingress(self, from, port)
    }

    /// Puts copies of live sessions into the engine, before the first packet.
    pub fn adopt(&mut self, mut sessions: Vec<LiveSession>) {
        let tick = self.start.tick();
        let idle = |live: &LiveSession| tick.distance(live.session.last_seen()).max(0) as u32;
        sessions.sort_by_key(|live| std::cmp::Reverse(idle(live)));
        for live in sessions {
            let idle_since = self
                .start
                .since(Nanos(u64::from(idle(&live)) * crate::base::Tick::NANOS));
            let Some(ix) = self.engine.adopt(live.session, idle_since) else {
                continue;
            };
            if let Some(entry) = self.engine.table().entry(ix) {
                let base = LiveSession {
                    packets: std::array::from_fn(|end| live.packets[end].wrapping_sub(entry.packets[end])),
                    ..live
                };
                self.copies.insert(entry.id, base);
            }
        }
    }

    /// Parses a frame as the engine will.
    #[must_use]
    pub fn parse(&self, frame: &[u8], ingress: PortId) -> PacketMeta {
        parse_as(self.policy(), frame, ingress)
    }

    /// The next sequence numbers of the TCP session that a packet belongs to: of its sender, and of the other end.
    pub(crate) fn next_numbers(&self, meta: &PacketMeta) -> [Option<u32>; 2] {
        let Some((key, direction)) =
            flow_key(self.policy(), meta, &[]).filter(|_| meta.kind == PacketKind::Tcp)
        else {
            return [None; 2];
        };
        let table = self.engine.table();
        let Some(ix) = table.find(&key, table.hash(&key)) else {
            return [None; 2];
        };
        let next = |end: Direction| {
            let sender = &table.get(ix).tcp[end.index()];
            sender.has(TcpSender::SYN).then_some(sender.end)
        };
        [next(direction), next(direction.reverse())]
    }

    /// Gives the engine a frame that comes in by `ingress` at `at_ns` after the first packet (time never goes back: an
    /// earlier one counts as now), and says what became of it.
    pub fn feed(&mut self, frame: Vec<u8>, ingress: PortId, at_ns: u64) -> Verdict {
        self.advance(self.start.plus(Nanos(at_ns)));
        self.packets += 1;
        let (length, ip_len) = (frame.len(), frame.len().saturating_sub(link_header(&frame)));
        let meta = self.parse(&frame, ingress);
        let packet = describe(&meta, &frame);
        let mut batch = Batch::new();
        let mut sink = Sink::default();
        // An empty batch takes a packet.
        if batch.try_push(VecPacket::new(frame), ingress).is_ok() {
            self.engine.process(self.now, &mut batch, &mut sink);
        }
        let (fate, why) = sink
            .outcome
            .unwrap_or((Outcome::Dropped(DropReason::Malformed), Why::Layer2));
        let fate = match fate {
            // What the worker decides when it sends; other reasons of its own depend on links and queues.
            Outcome::Forwarded(to) if ip_len > self.names.mtu(to) => {
                Outcome::Dropped(DropReason::FrameTooLong)
            }
            fate => fate,
        };
        let answers = sink
            .answers
            .iter()
            .map(|(answer, to)| self.answer(answer, *to))
            .collect();
        let mut verdict = Verdict {
            number: self.packets,
            at_ns: self.now.since(self.start).0,
            packet,
            length,
            ingress: self.names.port(ingress).to_string(),
            from: self.names.zone_of(ingress).to_string(),
            verdict: Fate::Drop,
            egress: None,
            to: None,
            reason: None,
            detail: None,
            by: Word::Borrowed("layer2"),
            rule: None,
            session: None,
            answers,
        };
        match fate {
            Outcome::Forwarded(to) => {
                verdict.verdict = Fate::Forward;
                verdict.egress = Some(self.names.port(to).to_string());
                verdict.to = Some(self.names.zone_of(to).to_string());
            }
            Outcome::Dropped(reason) => {
                verdict.reason = Some(reason.name().to_owned());
                verdict.detail = Some(detail(reason, &meta));
            }
        }
        self.say_why(&mut verdict, why, fate);
        verdict
    }

    fn say_why(&self, verdict: &mut Verdict, why: Why, fate: Outcome) {
        let table = self.engine.table();
        let policy = self.policy();
        let rule_name = |place: u32| policy.rules.get(place as usize).map(|rule| rule.name.clone());
        let session = match why {
            Why::Layer2 => return,
            Why::Rule(Some(place)) => {
                verdict.by = Word::Borrowed("rule");
                verdict.rule = rule_name(place);
                return;
            }
            Why::Rule(None) => {
                let asked = matches!(fate, Outcome::Dropped(DropReason::Policy));
                verdict.by = Word::Borrowed(if asked { "implicit_drop" } else { "none" });
                return;
            }
            Why::NewSession(ix, place) => {
                verdict.by = Word::Borrowed("new_session");
                verdict.rule = rule_name(place);
                ix
            }
            Why::Session(ix) => {
                verdict.by = Word::Borrowed("session");
                ix
            }
            Why::Related(ix) => {
                verdict.by = Word::Borrowed("related");
                ix
            }
        };
        let Some(entry) = table.entry(session) else {
            return;
        };
        let mut live = LiveSession {
            session: *entry.session,
            created: entry.created,
            packets: entry.packets,
            worker: WorkerId(0),
        };
        if let Some(copy) = self.copies.get(&entry.id) {
            live.created = copy.created;
            live.worker = copy.worker;
            live.packets = std::array::from_fn(|end| live.packets[end].wrapping_add(copy.packets[end]));
        }
        let info = self.names.session(policy, &live, self.now);
        verdict.rule.get_or_insert_with(|| info.rule.to_string());
        verdict.session = Some(info);
    }

    fn answer(&self, answer: &VecPacket, to: PortId) -> String {
        let meta = parse_as(self.policy(), &answer.frame, to);
        format!("{} by {}", describe(&meta, &answer.frame), self.names.port(to))
    }

    /// Lets time pass: sessions that idle out end on the way, as they do on a worker.
    fn advance(&mut self, to: Nanos) {
        while self.now < to {
            self.now = to.min(self.now.plus(LONGEST_STEP));
            // What it sends to ends that idled out is no answer to a packet.
            self.engine.upkeep(self.now, u32::MAX, &mut Sink::default());
            if self.engine.table().is_empty() {
                self.now = to;
            }
        }
    }
}

/// Parses a frame as the engine does under this policy.
fn parse_as(policy: &Policy, frame: &[u8], ingress: PortId) -> PacketMeta {
    let options = ParseOptions {
        verify_l4: policy.verify_checksums,
        look_into_vlan: policy.transparent.vlan == VlanMode::Inspect,
    };
    let mut meta = parse(frame, RxChecksum::default(), options);
    meta.ingress = ingress;
    meta
}

/// The key by which the engine will look for the packet's session, if it is of a kind that has one or carries one that has.
fn flow_key(policy: &Policy, meta: &PacketMeta, frame: &[u8]) -> Option<(FlowKey, Direction)> {
    let embedded = parse_embedded(meta, frame).map(|embedded| embedded.meta);
    let meta = embedded.as_ref().unwrap_or(meta);
    let has_session = matches!(
        meta.kind,
        PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp
    );
    let port = policy.ports.get(meta.ingress.index()).filter(|_| has_session)?;
    Some(FlowKey::of(meta, policy.transparent.domain(port.pair, meta.vlan)))
}

/// More about a drop than its word.
fn detail(reason: DropReason, meta: &PacketMeta) -> String {
    let malformed = Malformed::from_detail(meta.detail)
        .filter(|_| reason == DropReason::Malformed && meta.kind == PacketKind::Malformed);
    match malformed {
        Some(what) => format!("{}: {}", what.name(), what.help()),
        None => reason.help().to_owned(),
    }
}

#[derive(Clone, Copy)]
enum Outcome {
    Forwarded(PortId),
    Dropped(DropReason),
}

/// Takes the verdict of one packet, and what is made in answer to it.
#[derive(Default)]
struct Sink {
    outcome: Option<(Outcome, Why)>,
    answers: Vec<(VecPacket, PortId)>,
}

impl Outputs<VecPacket> for Sink {
    fn forward(&mut self, _packet: VecPacket, to: PortId, note: Note) {
        self.outcome = Some((Outcome::Forwarded(to), note.why));
    }

    fn drop(&mut self, _packet: VecPacket, reason: DropReason, note: Note) {
        self.outcome = Some((Outcome::Dropped(reason), note.why));
    }

    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }

    fn originate(&mut self, packet: VecPacket, to: PortId) {
        self.answers.push((packet, to));
    }
}
