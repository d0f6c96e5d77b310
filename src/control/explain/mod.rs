//! Explain: what would happen to packets, from the same engine that a node runs, with a clock that the packets set.
//!
//! [`Simulator`] is a scratch engine. Without a node it starts empty under a configuration's policy; for a running node
//! it starts with copies of the live sessions that the packets touch ([`live`]), and nothing in the node changes.

pub mod capture;
pub mod live;
mod words;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::NodeError;
use super::node::{ErrorKind, Fate, Verdict, Word};
use super::view::{LiveSession, Names};
use crate::base::slab::HeapMemory;
use crate::base::{Nanos, PortId, WorkerId, ZoneId};
use crate::engine::{Batch, DropReason, Engine, Note, Outputs, Place, Why};
use crate::flow::table::SessionId;
use crate::flow::{Direction, FlowKey, HashSeed, TcpSender};
use crate::packet::parse::{Malformed, ParseOptions, parse, parse_embedded, parse_first_fragment};
use crate::packet::view::link_header;
use crate::packet::{PacketKind, PacketMeta, RxChecksum, VecPacket};
use crate::policy::{Policy, Spoof, VlanMode};

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
    /// Packets in order, from the first one on that is not decided or not fetched.
    rows: VecDeque<Row>,
    /// Held fragments by the engine's number: which packet each is.
    held: HashMap<u64, u64>,
    /// What the copies of live sessions were like when they were taken; the table counts from there.
    copies: HashMap<SessionId, LiveSession>,
}

impl Simulator {
    /// An engine under `policy` with room for `sessions`, whose first packet comes at `start`. With room for fewer than a
    /// node has, nothing that depends on how full the table is happens to them.
    ///
    /// # Errors
    /// When it cannot have so much memory.
    pub fn new(
        policy: Arc<Policy>,
        names: Arc<Names>,
        sessions: u32,
        start: Nanos,
    ) -> Result<Self, NodeError> {
        let smaller = sessions < policy.max_sessions;
        let mut engine = Engine::new(sessions.max(1), policy, &HeapMemory, HashSeed::random())
            .map_err(|e| NodeError::new(ErrorKind::Internal, format!("cannot explain: {e}")))?;
        if smaller {
            engine.ignore_pressure();
        }
        Ok(Self {
            engine,
            names,
            start,
            now: start,
            packets: 0,
            rows: VecDeque::new(),
            held: HashMap::new(),
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
            let Some(ix) = self.engine.adopt(live.session, live.translation, idle_since) else {
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
        let session = table.get(ix);
        // The client of a proxied connection knows other numbers of its server than the tracker.
        let from_client = session.is_proxied() && session.is_opener(direction);
        let next = |end: Direction| {
            let sender = &session.tcp[end.index()];
            let translated = from_client && end != direction;
            let delta = if translated {
                table.translation(ix).sequence
            } else {
                0
            };
            sender
                .has(TcpSender::SYN)
                .then_some(sender.end.wrapping_sub(delta))
        };
        [next(direction), next(direction.reverse())]
    }

    /// Gives the engine a frame that comes in by `ingress` at `at_ns` after the first packet (time never goes back: an
    /// earlier one counts as now). [`Simulator::decided`] says what became of it.
    pub fn feed(&mut self, frame: Vec<u8>, ingress: PortId, at_ns: u64) {
        self.advance(self.start.plus(Nanos(at_ns)));
        self.packets += 1;
        let (length, ip_len) = (frame.len(), frame.len().saturating_sub(link_header(&frame)));
        let meta = self.parse(&frame, ingress);
        let verdict = Verdict {
            number: self.packets,
            at_ns: self.now.since(self.start).0,
            packet: describe(&meta, &frame),
            length,
            ingress: self.names.port(ingress).to_string(),
            from: self.names.zone_of(ingress).to_string(),
            verdict: Fate::Held,
            egress: None,
            to: None,
            reason: None,
            detail: Some(String::from("it waits for the other fragments of its datagram")),
            by: Word::Borrowed("none"),
            rule: None,
            session: None,
            answers: Vec::new(),
        };
        let decided = false;
        let spoof = self.spoof(&meta);
        self.rows.push_back(Row {
            verdict,
            ip_len,
            spoof,
            decided,
        });
        let mut batch = Batch::new();
        let mut sink = Sink::default();
        let malformed = self.engine.counters().malformed;
        // An empty batch takes a packet.
        if batch.try_push(VecPacket::new(frame), ingress).is_ok() {
            self.engine.process(self.now, &mut batch, &mut sink);
        }
        if let Some(number) = sink.held {
            self.held.insert(number, self.packets);
        }
        let answers: Vec<_> = sink
            .answers
            .iter()
            .map(|(answer, to)| self.answer(answer, *to))
            .collect();
        if let Some(row) = self.rows.back_mut() {
            row.verdict.answers = answers;
        }
        let counted = self.engine.counters().malformed.iter().zip(malformed);
        let malformed = Malformed::ALL
            .iter()
            .zip(counted)
            .find(|(_, (now, then))| *now > then);
        self.decide(sink, malformed.map(|(malformed, _)| *malformed));
    }

    /// The next packet that something became of, in the order in which they were fed: one behind a held fragment has to wait.
    pub fn decided(&mut self) -> Option<Verdict> {
        if !self.rows.front()?.decided {
            return None;
        }
        self.rows.pop_front().map(|row| row.verdict)
    }

    /// There are no more packets: all that are left, fragments that wait in vain among them.
    pub fn finish(&mut self) -> impl Iterator<Item = Verdict> {
        self.rows.drain(..).map(|row| row.verdict)
    }

    /// Writes down what the engine decided about this packet and about fragments that it held. `malformed`: what was wrong with
    /// malformed ones.
    fn decide(&mut self, sink: Sink, malformed: Option<Malformed>) {
        for (place, outcome, why) in sink.outcomes {
            let number = match place {
                Place::Batch(_) => Some(self.packets),
                Place::Held(number) => self.held.remove(&number),
            };
            let first = self.packets + 1 - self.rows.len() as u64;
            let Some(place) = number.and_then(|number| usize::try_from(number.checked_sub(first)?).ok())
            else {
                continue;
            };
            let Some(mut row) = self.rows.get_mut(place).map(std::mem::take) else {
                continue;
            };
            let fate = match outcome {
                // What the worker decides when it sends; other reasons of its own depend on links and queues.
                Outcome::Forwarded(to) if row.ip_len > self.names.mtu(to) => {
                    Outcome::Dropped(DropReason::FrameTooLong)
                }
                fate => fate,
            };
            let verdict = &mut row.verdict;
            verdict.detail = None;
            verdict.by = Word::Borrowed("layer2");
            match fate {
                Outcome::Forwarded(to) => {
                    verdict.verdict = Fate::Forward;
                    verdict.egress = Some(self.names.port(to).to_string());
                    verdict.to = Some(self.names.zone_of(to).to_string());
                }
                Outcome::Dropped(reason) => {
                    verdict.verdict = Fate::Drop;
                    verdict.reason = Some(reason.name().to_owned());
                    let spoof = row.spoof.take().filter(|_| reason == DropReason::SpoofedSource);
                    verdict.detail = Some(spoof.unwrap_or_else(|| detail(reason, malformed)));
                }
            }
            self.say_why(verdict, why, fate);
            row.decided = true;
            if let Some(place) = self.rows.get_mut(place) {
                *place = row;
            }
        }
    }

    /// Whose source address it is that `antispoof` refuses.
    fn spoof(&self, meta: &PacketMeta) -> Option<String> {
        let policy = self.policy();
        let from = policy.ports.get(meta.ingress.index())?.zone;
        let name = |zone: ZoneId| policy.zones.get(zone.index()).map_or("?", String::as_str);
        let source = super::view::address(meta.source);
        Some(match policy.antispoof.judge(from, &meta.source)? {
            Spoof::BelongsTo(zone) => {
                format!("{source} belongs behind zone {}, not {}", name(zone), name(from))
            }
            Spoof::NotInZone => format!("{source} is in none of the networks of zone {}", name(from)),
        })
    }

    fn say_why(&self, verdict: &mut Verdict, why: Why, fate: Outcome) {
        let table = self.engine.table();
        let policy = self.policy();
        let rule_name = |place: u32| policy.rules.get(place as usize).map(|rule| rule.name.clone());
        let session = match why {
            // `explain` has one engine, to which everything belongs.
            Why::Layer2 | Why::Elsewhere => return,
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
            translation: entry.translation,
            created: entry.created,
            packets: entry.packets,
            worker: WorkerId(0),
            scale: self.engine.timeout_scale(),
        };
        if let Some(copy) = self.copies.get(&entry.id) {
            live.created = copy.created;
            live.worker = copy.worker;
            live.scale = copy.scale;
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

    /// Lets time pass: sessions that idle out end on the way, and fragments that wait in vain, as they do on a worker.
    fn advance(&mut self, to: Nanos) {
        while self.now < to {
            self.now = to.min(self.now.plus(LONGEST_STEP));
            // What it sends to ends that idled out is no answer to a packet.
            let mut sink = Sink::default();
            self.engine.upkeep(self.now, u32::MAX, &mut sink);
            self.decide(sink, None);
            if self.engine.table().is_empty() && self.engine.held() == 0 {
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

/// The key by which the engine will look for the packet's session, if it is of a kind that has one, begins such a packet in
/// fragments, or carries one.
fn flow_key(policy: &Policy, meta: &PacketMeta, frame: &[u8]) -> Option<(FlowKey, Direction)> {
    let other = match meta.kind {
        PacketKind::Fragment => parse_first_fragment(meta, frame),
        _ => parse_embedded(meta, frame).map(|embedded| embedded.meta),
    };
    let meta = other.as_ref().unwrap_or(meta);
    let has_session = matches!(
        meta.kind,
        PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp
    );
    let port = policy.ports.get(meta.ingress.index()).filter(|_| has_session)?;
    Some(FlowKey::of(meta, policy.transparent.domain(port.pair, meta.vlan)))
}

/// More about a drop than its word.
fn detail(reason: DropReason, malformed: Option<Malformed>) -> String {
    match malformed.filter(|_| reason == DropReason::Malformed) {
        Some(what) => format!("{}: {}", what.name(), what.help()),
        None => reason.help().to_owned(),
    }
}

/// A packet that was fed.
#[derive(Default)]
struct Row {
    verdict: Verdict,
    /// Bytes of its IP packet.
    ip_len: usize,
    /// Whose source address it has, if `antispoof` refuses it.
    spoof: Option<String>,
    decided: bool,
}

#[derive(Clone, Copy)]
enum Outcome {
    Forwarded(PortId),
    Dropped(DropReason),
}

/// Takes the verdicts of one step, and what is made in answer.
#[derive(Default)]
struct Sink {
    outcomes: Vec<(Place, Outcome, Why)>,
    /// The number of the fragment that is held.
    held: Option<u64>,
    answers: Vec<(VecPacket, PortId)>,
}

impl Outputs<VecPacket> for Sink {
    fn forward(&mut self, _packet: VecPacket, to: PortId, note: Note) {
        self.outcomes.push((note.place, Outcome::Forwarded(to), note.why));
    }

    fn drop(&mut self, _packet: VecPacket, reason: DropReason, note: Note) {
        self.outcomes
            .push((note.place, Outcome::Dropped(reason), note.why));
    }

    fn hold(&mut self, number: u64, _place: usize) {
        self.held = Some(number);
    }

    fn answer(&mut self, packet: VecPacket, to: PortId, reason: DropReason, note: Note) {
        self.drop(VecPacket::default(), reason, note);
        self.answers.push((packet, to));
    }

    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }

    fn originate(&mut self, packet: VecPacket, to: PortId) {
        self.answers.push((packet, to));
    }
}
