//! The first packet of a flow: no session is known, the rules decide.

use super::limits::count_new;
use super::martian::is_martian;
use super::process::{Act, FlowPacket, Verdict, port_policy};
use super::session::{echo_sequence, ip_len, segment};
use super::syn::{Accepted, Guard, Proxy};
use super::{Alert, DropReason, IMPLICIT_DROP, Offered, Record, Why, record};
use crate::base::SessionIx;
use crate::flow::track::Event;
use crate::flow::{Session, SessionState, echo, track};
use crate::packet::{PacketKind, PacketMeta};
use crate::policy::{Action, ClassifyKey, Policy, Rule, RuleLog, RuleMatch, SynProtection};

/// What the rules are asked about a packet without a session.
#[inline]
pub(super) fn question(meta: &PacketMeta, policy: &Policy) -> ClassifyKey {
    let port = port_policy(policy, meta.ingress);
    let ports = matches!(meta.kind, PacketKind::Tcp | PacketKind::Udp);
    let icmp = matches!(meta.kind, PacketKind::Echo | PacketKind::Icmp);
    ClassifyKey {
        source: meta.source,
        destination: meta.destination,
        source_port: if ports { meta.source_port } else { 0 },
        destination_port: if ports { meta.destination_port } else { 0 },
        from: port.zone,
        to: port_policy(policy, port.peer).zone,
        protocol: meta.protocol,
        icmp_type: if icmp { meta.icmp_type() } else { 0 },
        icmp_code: if icmp { meta.detail } else { 0 },
    }
}

/// How a packet without a session may make one.
#[derive(Clone, Copy)]
enum Opening {
    /// It is the first one of its conversation.
    First(SessionState),
    /// It is in the middle of a TCP connection, and its rule says `pickup`.
    PickUp,
    /// It has brought a SYN cookie back.
    Cookie(Accepted),
}

impl Opening {
    /// What becomes of a packet that the rules allow and for which there is no room. A client that has brought a cookie back
    /// believes that it is connected, so it is told.
    const fn refused(self, reason: DropReason, why: Why) -> Verdict {
        match self {
            Self::Cookie(_) => Verdict::Reject(reason, why),
            Self::First(_) | Self::PickUp => Verdict::Drop(reason, why),
        }
    }
}

fn opening(meta: &PacketMeta, rule: Option<&Rule>) -> Option<Opening> {
    if let Some(state) = track::opening(meta) {
        return Some(Opening::First(state));
    }
    let in_mid_stream = meta.kind == PacketKind::Tcp && Event::of(meta.tcp_flags()) == Some(Event::Ack);
    let picks_up = rule.is_some_and(|rule| {
        // Where every connection has to begin with a cookie none is picked up.
        rule.pickup && rule.action == Action::Allow && rule.syn_protection != SynProtection::Always
    });
    (in_mid_stream && picks_up).then_some(Opening::PickUp)
}

impl Act<'_> {
    /// Can the source of a packet that opens a flow not be there?
    #[inline]
    pub(super) fn is_spoofed(&self, meta: &PacketMeta) -> bool {
        is_martian(meta) || self.is_foreign(meta)
    }

    /// Does a packet's source belong behind another zone, or not behind this one (`antispoof`)?
    #[inline]
    pub(super) fn is_foreign(&self, meta: &PacketMeta) -> bool {
        let zone = port_policy(self.policy, meta.ingress).zone;
        self.policy.antispoof.judge(zone, &meta.source).is_some()
    }

    /// Judges a packet without a session by the rule that matched it.
    ///
    /// Places of later stages: expectations and the HA peer's sessions before the policy's refusal, NAT between the rule and the
    /// limits.
    pub(super) fn first(&mut self, flow: &FlowPacket<'_>, answer: RuleMatch) -> Verdict {
        let meta = flow.meta;
        if self.is_spoofed(meta) {
            return Verdict::Drop(DropReason::SpoofedSource, Why::Rule(None));
        }
        let rule = answer.and_then(|place| Some((place, self.policy.rules.get(place as usize)?)));
        let guard = if flow.hops.is_from_peer() {
            Guard::Aside
        } else {
            self.guard(flow, rule.map(|(_, rule)| rule))
        };
        match (guard, rule) {
            (Guard::Answer, Some((place, rule))) => {
                self.run.add(self.rules, self.now, rule.id, ip_len(meta));
                Verdict::Proxy(Proxy::Cookie(place), Why::Rule(answer))
            }
            _ => self.unanswered(flow, answer, &guard),
        }
    }

    /// A packet without a session that is not a SYN which haechi answers itself: those come by the million, and this is much.
    #[inline(never)]
    fn unanswered(&mut self, flow: &FlowPacket<'_>, answer: RuleMatch, guard: &Guard) -> Verdict {
        let meta = flow.meta;
        let rule = answer.and_then(|place| Some((place, self.policy.rules.get(place as usize)?)));
        let opening = match guard {
            Guard::Accept(accepted) => Some(Opening::Cookie(*accepted)),
            // Nothing is picked up where cookies are asked for.
            Guard::Refuse => opening(meta, None),
            _ => opening(meta, rule.map(|(_, rule)| rule)),
        };
        let Some(opening) = opening else {
            return match (self.opens_nothing(flow, answer), guard) {
                (Verdict::Drop(DropReason::NoSession, _), Guard::Refuse) => {
                    Verdict::Drop(DropReason::SynCookieInvalid, Why::Rule(answer))
                }
                (verdict, _) => verdict,
            };
        };
        let refuses = rule.is_none_or(|(_, rule)| rule.action != Action::Allow);
        if refuses && self.may_offer(flow.hops) {
            return Verdict::Offer(Offered::Unknown, Why::Rule(answer));
        }
        let Some((place, rule)) = rule else {
            self.run.add(self.rules, self.now, IMPLICIT_DROP, ip_len(meta));
            return Verdict::Drop(DropReason::Policy, Why::Rule(None));
        };
        match rule.action {
            Action::Allow => {}
            Action::Drop => {
                self.refused(flow, rule);
                return Verdict::Drop(DropReason::Policy, Why::Rule(answer));
            }
            Action::Reject => {
                self.refused(flow, rule);
                return Verdict::Reject(DropReason::Policy, Why::Rule(answer));
            }
        }
        if flow.hops.is_from_peer() {
            return Verdict::Drop(DropReason::NoSession, Why::Rule(answer));
        }
        let state = match opening {
            Opening::First(state) => state,
            Opening::PickUp => SessionState::SynReceived,
            Opening::Cookie(_) => SessionState::SynSent,
        };
        let mut session = Session::new(*flow.key, flow.direction, state);
        session.generation = self.policy.generation;
        session.rule = rule.id;
        session.ingress = meta.ingress;
        session.egress = port_policy(self.policy, meta.ingress).peer;
        session.set_strict(rule.tcp_strict);
        session.set_log_end(rule.log.end());
        if matches!(meta.kind, PacketKind::Echo | PacketKind::Icmp) {
            session.icmp_type = meta.icmp_type();
            session.icmp_code = meta.detail;
        }
        if meta.kind == PacketKind::Echo {
            echo::request(&mut session, echo_sequence(meta, flow.frame));
        }
        if meta.kind == PacketKind::Tcp {
            if rule.reset_on_timeout {
                session.flags |= Session::RESETS;
            }
            let segment = segment(meta, flow.frame);
            match opening {
                Opening::PickUp => track::pick_up_tcp(&mut session, &segment),
                Opening::Cookie(accepted) => {
                    session.flags |= Session::PROXIED;
                    // A SYN without data always opens.
                    let _ = track::open_tcp(&mut session, &accepted.syn());
                }
                Opening::First(_) if track::open_tcp(&mut session, &segment) => {}
                Opening::First(_) => return Verdict::Drop(DropReason::TcpOutOfWindow, Why::Rule(answer)),
            }
        }
        if let Err(reason) = self.within_limits(rule, &meta.source) {
            self.run.add(self.rules, self.now, rule.id, ip_len(meta));
            return opening.refused(reason, Why::Rule(answer));
        }
        if !self.make_room(meta.ingress) {
            return opening.refused(DropReason::TableFull, Why::Rule(answer));
        }
        let timeout = self.scaled(rule.state_timeouts.ticks(state));
        // There is room.
        let Ok(ix) = self.table.insert(session, flow.hash, self.now, timeout) else {
            return opening.refused(DropReason::TableFull, Why::Rule(answer));
        };
        self.table_changed = true;
        count_new(self.sources, self.table.get_mut(ix), rule, self.now);
        self.counters.sessions_created += 1;
        if let Some(counters) = self.rules.get_mut(rule.id.index()) {
            counters.sessions += 1;
        }
        self.count(ix, flow);
        if let Opening::Cookie(accepted) = opening {
            self.counters.syn_cookies_accepted += 1;
            *self.table.translation_mut(ix) = accepted.translation();
            // Should the server never answer, the client will hear of it.
            let l3_offset = usize::from(meta.l3_offset);
            self.table.note_link(ix, flow.direction, flow.frame, l3_offset);
        }
        if rule.log.start() {
            self.log_start(ix);
        }
        if matches!(opening, Opening::Cookie(_)) {
            return Verdict::Proxy(Proxy::Syn(ix), Why::NewSession(ix, place));
        }
        if rule.defer && self.table.tells() {
            return Verdict::Defer(ix, place);
        }
        Verdict::Forward(Why::NewSession(ix, place))
    }

    #[cold]
    fn log_start(&mut self, ix: SessionIx) {
        if let Some(entry) = self.table.entry(ix).filter(|_| self.records.is_on()) {
            let record = Record::start(self.now, self.policy.generation, &entry);
            self.records.push(record, self.counters);
        }
    }

    /// May a packet open a session, by the rule that matched it?
    pub(super) fn opens(&self, meta: &PacketMeta, answer: RuleMatch) -> bool {
        let rule = answer.and_then(|place| self.policy.rules.get(place as usize));
        rule.is_some_and(|rule| rule.action == Action::Allow) && opening(meta, rule).is_some()
    }

    /// Counts a packet that a drop or reject rule drops, for the rule.
    pub(super) fn refused(&mut self, flow: &FlowPacket<'_>, rule: &Rule) {
        self.run.add(self.rules, self.now, rule.id, ip_len(flow.meta));
        if rule.log == RuleLog::Alert {
            self.alert(flow, rule);
        }
    }

    #[cold]
    fn alert(&mut self, flow: &FlowPacket<'_>, rule: &Rule) {
        let meta = flow.meta;
        let record = Record {
            at: self.now,
            generation: self.policy.generation,
            rule: rule.id,
            key: *flow.key,
            opener: flow.direction,
            ingress: meta.ingress,
            egress: port_policy(self.policy, meta.ingress).peer,
            event: record::Event::Alert(Alert {
                reason: DropReason::Policy,
                action: rule.action,
                bytes: ip_len(meta),
                suppressed: 0,
            }),
        };
        self.records.alert(record, self.policy.alert_rate);
    }

    /// A packet that belongs to no session and cannot open one.
    fn opens_nothing(&mut self, flow: &FlowPacket<'_>, answer: RuleMatch) -> Verdict {
        let meta = flow.meta;
        if meta.kind == PacketKind::Tcp {
            if Event::of(meta.tcp_flags()).is_none() {
                return Verdict::Drop(DropReason::TcpBadFlags, Why::Rule(None));
            }
            if self.may_offer(flow.hops) {
                return Verdict::Offer(Offered::Unknown, Why::Rule(None));
            }
            // A connection whose session an apply has ended: this end shall hear of it at once, too.
            let rule = answer.and_then(|place| self.policy.rules.get(place as usize));
            if let Some(rule) = rule.filter(|rule| rule.action == Action::Reject) {
                self.refused(flow, rule);
                return Verdict::Reject(DropReason::Policy, Why::Rule(answer));
            }
        }
        if self.may_offer(flow.hops) {
            return Verdict::Offer(Offered::Unknown, Why::Rule(None));
        }
        Verdict::Drop(DropReason::NoSession, Why::Rule(None))
    }
}
