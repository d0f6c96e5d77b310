//! A packet of a known session.

use super::limits::move_session;
use super::process::{Act, FlowPacket, Verdict, port_policy};
use super::syn::Proxy;
use super::upkeep::Books;
use super::{DropReason, EndReason, Hops, IMPLICIT_DROP, Offered, Why};
use crate::base::{Generation, SessionIx};
use crate::flow::{Candidate, FlowKey, Options, Segment, SessionState, Tracked, echo, track};
use crate::packet::parse::{may_relate, parse_embedded, protocol};
use crate::packet::view::Tcp;
use crate::packet::{PacketKind, PacketMeta};
use crate::policy::{Action, Rule, SessionScope};

/// The TCP segment as the tracker needs it. The parser has checked that header and options are there.
pub(super) fn segment(meta: &PacketMeta, frame: &[u8]) -> Segment {
    let Some(tcp) = Tcp::of(meta, frame) else {
        return Segment::default();
    };
    let start = usize::from(meta.l4_offset);
    let options = frame.get(start + 20..start + usize::from(meta.detail));
    Segment {
        flags: meta.tcp_flags(),
        seq: tcp.sequence(),
        ack: tcp.acknowledgment(),
        window: tcp.window(),
        data_len: u32::from(meta.l4_len).saturating_sub(u32::from(meta.detail)),
        options: options.map(Options::parse).unwrap_or_default(),
    }
}

/// An echo's sequence number, the last two of the eight bytes that the parser has checked to be there.
pub(super) fn echo_sequence(meta: &PacketMeta, frame: &[u8]) -> u16 {
    let at = usize::from(meta.l4_offset) + 6;
    let bytes = frame.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// Bytes of the IP packet: what sessions and rules count.
#[inline]
pub(super) fn ip_len(meta: &PacketMeta) -> u32 {
    u32::from(meta.l4_offset) - u32::from(meta.l3_offset) + u32::from(meta.l4_len)
}

impl Act<'_> {
    /// A packet of the session at `ix`.
    pub(super) fn session(&mut self, flow: &FlowPacket<'_>, ix: SessionIx) -> Verdict {
        let meta = flow.meta;
        let session = self.table.get(ix);
        if session.is_away() && flow.hops == Hops::NONE {
            if let Some(owner) = self.owner_of_away(ix) {
                return Verdict::Elsewhere(owner);
            }
        }
        let session = self.table.get(ix);
        let (expected, _) = session.ports_of(flow.direction);
        if expected != meta.ingress && !self.same_side(expected, meta) {
            return Verdict::Drop(DropReason::WrongPort, Why::Session(ix));
        }
        if session.generation != self.policy.generation {
            if session.generation == Generation(0) {
                if let Some(verdict) = self.of_peer(ix, flow.hops) {
                    return verdict;
                }
                self.adopt(ix);
            }
            if let Err(verdict) = self.classify_again(flow, ix) {
                return verdict;
            }
        }
        // The opener's source was judged when it opened the session; the replier's is when it answers for the first time.
        let session = self.table.get(ix);
        if !session.is_opener(flow.direction) && session.bytes()[1] == 0 && self.is_foreign(meta) {
            return Verdict::Drop(DropReason::SpoofedSource, Why::Session(ix));
        }
        let session = self.table.get_mut(ix);
        if session.is_proxied() {
            return self.proxied(flow, ix);
        }
        if meta.kind == PacketKind::Echo {
            let sequence = echo_sequence(meta, flow.frame);
            if session.is_opener(flow.direction) {
                echo::request(session, sequence);
            } else if !echo::was_requested(session, sequence) {
                return Verdict::Drop(DropReason::EchoUnrequested, Why::Session(ix));
            }
        }
        let tracked = if meta.kind == PacketKind::Tcp {
            let segment = segment(meta, flow.frame);
            if session.learns_until != 0 && self.learns(flow, ix, &segment) {
                self.count(ix, flow);
                return Verdict::Forward(Why::Session(ix));
            }
            track::track_tcp(self.table.get_mut(ix), flow.direction, &segment)
        } else {
            track::track_other(session, flow.direction)
        };
        self.tracked(flow, ix, tracked)
    }

    /// What the tracker's answer means for the packet.
    #[inline]
    pub(super) fn tracked(&mut self, flow: &FlowPacket<'_>, ix: SessionIx, tracked: Tracked) -> Verdict {
        match tracked {
            Tracked::Stay => {}
            Tracked::Move(state) => {
                if state == SessionState::SynReceived {
                    self.learn(flow, ix);
                }
                let session = self.table.get(ix);
                let timeouts = self.policy.state_timeouts(session.rule);
                let timeout = self.scaled(timeouts.ticks(state));
                self.table.set_state(ix, state, timeout);
            }
            Tracked::Shorten => {
                let session = self.table.get(ix);
                let state = session.state();
                let timeout = session.timeout(self.policy.state_timeouts(session.rule));
                let timeout = self.scaled(timeout);
                self.table.set_state(ix, state, timeout);
            }
            Tracked::Reopen => return self.reopen(flow, ix),
            Tracked::OutOfWindow => return Verdict::Drop(DropReason::TcpOutOfWindow, Why::Session(ix)),
            Tracked::BadFlags => return Verdict::Drop(DropReason::TcpBadFlags, Why::Session(ix)),
        }
        self.count(ix, flow);
        Verdict::Forward(Why::Session(ix))
    }

    /// An ICMP or ICMPv6 error: it passes to the end that sent the packet which it is about, if that packet was one of a live
    /// session's, and has come in where that end's answers do. It keeps no session alive.
    pub(super) fn related(&mut self, meta: &PacketMeta, frame: &[u8], hops: Hops) -> Verdict {
        const UNRELATED: Verdict = Verdict::Drop(DropReason::IcmpErrorUnrelated, Why::Layer2);
        let embedded = if may_relate(meta) {
            parse_embedded(meta, frame)
        } else {
            None
        };
        let Some(embedded) = embedded.filter(|embedded| embedded.meta.source == meta.destination) else {
            return UNRELATED;
        };
        let port = port_policy(self.policy, meta.ingress);
        if self.is_foreign(meta) {
            return Verdict::Drop(DropReason::SpoofedSource, Why::Rule(None));
        }
        let domain = self.policy.transparent.domain(port.pair, meta.vlan);
        let (key, direction) = FlowKey::of(&embedded.meta, domain);
        let hash = self.table.hash(&key);
        let Some(ix) = self.table.find(&key, hash) else {
            let unknown = || {
                self.may_offer(hops)
                    .then_some(Verdict::Offer(Offered::Unknown, Why::Layer2))
            };
            let redirect = self.redirects.find(&key).map(Verdict::Redirect);
            return redirect.or_else(unknown).unwrap_or(UNRELATED);
        };
        let session = self.table.get(ix);
        let (expected, _) = session.ports_of(direction.reverse());
        if expected != meta.ingress && !self.same_side(expected, meta) {
            return Verdict::Drop(DropReason::WrongPort, Why::Session(ix));
        }
        if session.generation == Generation(0) {
            if let Some(verdict) = self.of_peer(ix, hops) {
                return verdict;
            }
            self.adopt(ix);
        }
        let session = self.table.get(ix);
        // The client knows other numbers of the server than the tracker.
        let translated = session.is_proxied() && !session.is_opener(direction);
        let sequence = if translated {
            let delta = self.table.translation(ix).sequence;
            embedded.sequence.wrapping_add(delta)
        } else {
            embedded.sequence
        };
        let was_sent = match embedded.meta.kind {
            PacketKind::Tcp => track::has_sent(session, direction, sequence),
            PacketKind::Echo => echo::was_requested(session, embedded.sequence as u16),
            _ => true,
        };
        if !was_sent {
            return UNRELATED;
        }
        if session.generation != self.policy.generation {
            let flow = FlowPacket {
                meta,
                frame,
                key: &key,
                hash,
                direction: direction.reverse(),
                candidate: Candidate::NONE,
                question: 0,
                hops,
            };
            if let Err(verdict) = self.classify_again(&flow, ix) {
                return verdict;
            }
            let session = self.table.get_mut(ix);
            if session.learns_until != 0 {
                // Its numbers are learnt from its own packets: the next of them comes by there.
                session.generation = Generation(0);
            }
        }
        let rule = self.table.get(ix).rule;
        self.run.add(self.rules, self.now, rule, ip_len(meta));
        if translated {
            // Behind the two ports.
            let at = embedded.meta.l4_offset + 4;
            return Verdict::Proxy(Proxy::Quoted(ix, at), Why::Related(ix));
        }
        Verdict::Forward(Why::Related(ix))
    }

    /// Counts a packet that passes, for its session and its session's rule.
    #[inline(always)]
    pub(super) fn count(&mut self, ix: SessionIx, flow: &FlowPacket<'_>) {
        let bytes = ip_len(flow.meta);
        let session = self.table.get(ix);
        let (rule, resets) = (session.rule, session.resets());
        self.table.touch(ix, flow.direction, self.tick, bytes);
        if resets {
            let l3_offset = usize::from(flow.meta.l3_offset);
            self.table.note_link(ix, flow.direction, flow.frame, l3_offset);
        }
        self.run.add(self.rules, self.now, rule, bytes);
    }

    /// With `session_scope = "node"` a session may use several pairs: a port is then of the right side when its zone is.
    #[cold]
    fn same_side(&self, expected: crate::base::PortId, meta: &PacketMeta) -> bool {
        self.policy.transparent.session_scope == SessionScope::Node
            && port_policy(self.policy, expected).zone == port_policy(self.policy, meta.ingress).zone
    }

    /// The policy changed since the session's last packet: it goes on under the rule that allows it now, or ends.
    #[cold]
    fn classify_again(&mut self, flow: &FlowPacket<'_>, ix: SessionIx) -> Result<(), Verdict> {
        let answer = self.ask(&self.policy.question(self.table.get(ix)));
        let rule = answer.and_then(|place| self.policy.rules.get(place as usize));
        let Some(rule) = rule.filter(|r| r.action == Action::Allow) else {
            self.end(ix, EndReason::Policy);
            match rule {
                Some(rule) => self.refused(flow, rule),
                None => self
                    .run
                    .add(self.rules, self.now, IMPLICIT_DROP, ip_len(flow.meta)),
            }
            let why = Why::Rule(answer);
            return Err(match rule.map(|r| r.action) {
                Some(Action::Reject) => Verdict::Reject(DropReason::Policy, why),
                _ => Verdict::Drop(DropReason::Policy, why),
            });
        };
        let old = self.table.get(ix).rule;
        if let Err(reason) = self.still_admitted(ix, rule) {
            self.end(ix, EndReason::Policy);
            self.run.add(self.rules, self.now, rule.id, ip_len(flow.meta));
            return Err(Verdict::Drop(reason, Why::Rule(answer)));
        }
        let session = self.table.get_mut(ix);
        session.generation = self.policy.generation;
        session.set_strict(rule.tcp_strict);
        session.set_log_end(rule.log.end());
        if session.is_proxied() && session.learns_until != 0 {
            // Its numbers are translated: they are not learnt, and not held against it either.
            session.set_strict(false);
        }
        let resets = rule.reset_on_timeout && session.key.protocol == protocol::TCP;
        move_session(self.rules, self.sources, session, rule, self.now);
        self.table.set_resets(ix, resets);
        if old != rule.id {
            let session = self.table.get(ix);
            let (state, timeout) = (session.state(), session.timeout(&rule.state_timeouts));
            let timeout = self.scaled(timeout);
            self.table.set_state(ix, state, timeout);
        }
        Ok(())
    }

    /// A session that the policy allows under `rule`: do the ends that have sent something still belong where it came from, and
    /// has the rule room for it, if it is another one than before?
    fn still_admitted(&mut self, ix: SessionIx, rule: &Rule) -> Result<(), DropReason> {
        let session = *self.table.get(ix);
        let belongs = |port, source: &[u8; 16]| {
            let zone = port_policy(self.policy, port).zone;
            self.policy.antispoof.judge(zone, source).is_none()
        };
        let replied = session.bytes()[1] > 0;
        if !belongs(session.ingress, &session.source())
            || (replied && !belongs(session.egress, &session.destination()))
        {
            return Err(DropReason::SpoofedSource);
        }
        if session.rule == rule.id {
            return Ok(());
        }
        self.may_move(&session, rule)
    }

    /// A SYN on a session in `time_wait` or `closed`, or a good cookie on one that is opening: allowed, the old session ends
    /// and a new one takes its place.
    #[cold]
    pub(super) fn reopen(&mut self, flow: &FlowPacket<'_>, ix: SessionIx) -> Verdict {
        let answer = self.ask(&super::first::question(flow.meta, self.policy));
        let allowed = answer
            .and_then(|place| self.policy.rules.get(place as usize))
            .is_some_and(|rule| rule.action == Action::Allow);
        let was_away = self.table.get(ix).is_away();
        let mut flow = *flow;
        if allowed {
            self.end(ix, EndReason::Reused);
            // What the other node offered opens none but in the place of one.
            flow.hops = flow.hops.as_own();
        }
        let flow = &flow;
        let verdict = self.first(flow, answer);
        if allowed && was_away {
            self.stays_away(flow);
        }
        verdict
    }

    /// Ends a session; what an earlier stage found may be this one.
    pub(super) fn end(&mut self, ix: SessionIx, reason: EndReason) {
        let mut books = Books {
            now: self.now,
            policy: self.policy,
            counters: self.counters,
            rules: self.rules,
            records: self.records,
            resets: None,
            sources: self.sources,
            crew: self.crew.as_deref_mut(),
        };
        books.end(self.table, ix, reason);
        self.table_changed = true;
    }
}
