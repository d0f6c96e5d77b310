//! The handshake of a proxied connection, and what becomes of every packet of it.

use super::cookie::Facts;
use super::learn::Offered;
use super::translate::{Rewrite, quoted_sequence};
use crate::base::{SessionIx, Tick};
use crate::engine::process::{Act, FlowPacket, Verdict, port_policy};
use crate::engine::session::segment;
use crate::engine::{DropReason, Note, Outputs, Why};
use crate::flow::segment::flag;
use crate::flow::track::{self, Event};
use crate::flow::translation::rescale;
use crate::flow::{Direction, Segment, SessionState, Tracked, Translation};
use crate::packet::build::{Bare, MAX_ANSWER, Way, bare};
use crate::packet::{PacketBuf, PacketMeta};

/// What a packet becomes (see the table of this module's parent).
#[derive(Clone, Copy)]
pub(in crate::engine) enum Proxy {
    /// A SYN that the rule at this place allows: a SYN+ACK with a cookie, back.
    Cookie(u32),
    /// A packet of the client: its SYN, on.
    Syn(SessionIx),
    /// The server's SYN+ACK: an ACK each way.
    Open(SessionIx),
    /// The server's SYN+ACK again: an ACK, back.
    Acknowledge(SessionIx),
    /// The server's RST before its SYN: a RST that the client accepts.
    Refused(SessionIx),
    /// The server's ACK of an old connection: the RST that it asks for, back.
    Reset,
    /// Itself, in the other side's numbers; who sent it.
    Carry(SessionIx, Direction),
    /// An ICMP error about a packet of the server: the same with the server's sequence number, which stands at this place of
    /// the frame.
    Quoted(SessionIx, u16),
}

/// A SYN is sent again at a packet of the client's when so many ticks have passed (8 seconds) since the last one: when
/// [`super::retry`] is through, so that the server never hears an older time stamp after a newer one.
const AGAIN: i32 = (8_000_000_000 / Tick::NANOS) as i32;

impl Act<'_> {
    /// A packet of the proxied session at `ix`.
    #[inline(never)]
    pub(in crate::engine) fn proxied(&mut self, flow: &FlowPacket<'_>, ix: SessionIx) -> Verdict {
        let mut segment = segment(flow.meta, flow.frame);
        let (session, translation) = (self.table.get(ix), *self.table.translation(ix));
        let from_client = session.is_opener(flow.direction);
        let state = session.state();
        if state == SessionState::SynSent {
            return if from_client {
                self.client_waits(flow, ix, &segment)
            } else {
                self.server_answers(flow, ix, &segment)
            };
        }
        let again = Event::of(segment.flags) == Some(Event::SynAck)
            && segment.seq == translation.cookie.wrapping_add(translation.sequence);
        if again && !from_client && !matches!(state, SessionState::TimeWait | SessionState::Closed) {
            return Verdict::Proxy(Proxy::Acknowledge(ix), Why::Session(ix));
        }
        Rewrite::new(session, translation, from_client).segment(&mut segment);
        let tracked = track::track_tcp(self.table.get_mut(ix), flow.direction, &segment);
        if tracked == Tracked::Reopen {
            return self.reopen(flow, ix);
        }
        match self.tracked(flow, ix, tracked) {
            Verdict::Forward(why) => Verdict::Proxy(Proxy::Carry(ix, flow.direction), why),
            verdict => verdict,
        }
    }

    /// A packet of the client before the server has answered.
    fn client_waits(&mut self, flow: &FlowPacket<'_>, ix: SessionIx, segment: &Segment) -> Verdict {
        let why = Why::Session(ix);
        match Event::of(segment.flags) {
            // It gives up; its sequence number is the one that the server knows.
            Some(Event::Rst) => {
                let tracked = track::track_tcp(self.table.get_mut(ix), flow.direction, segment);
                self.tracked(flow, ix, tracked)
            }
            // It has begun anew. Whether that is true its answer will tell; this session goes on meanwhile.
            Some(Event::Syn) => {
                let rule = self.table.get(ix).rule;
                match self.policy.rule_places.get(rule.index()) {
                    Some(place) => Verdict::Proxy(Proxy::Cookie(*place), why),
                    None => Verdict::Drop(DropReason::Policy, why),
                }
            }
            Some(Event::Ack | Event::Fin) => {
                if segment.ack == self.table.translation(ix).cookie.wrapping_add(1) {
                    return self.syn_again(flow, ix);
                }
                self.client_begins_anew(flow, ix, segment)
            }
            _ => Verdict::Drop(DropReason::TcpBadFlags, why),
        }
    }

    /// The client waits for the server: its SYN may be lost.
    fn syn_again(&mut self, flow: &FlowPacket<'_>, ix: SessionIx) -> Verdict {
        let why = Why::Session(ix);
        if self.tick.distance(self.table.get(ix).last_seen()) < AGAIN {
            return Verdict::Drop(DropReason::SynProxied, why);
        }
        self.count(ix, flow);
        Verdict::Proxy(Proxy::Syn(ix), why)
    }

    /// An ACK that is none of this session's: with a cookie of its own, it takes the session's place.
    fn client_begins_anew(&mut self, flow: &FlowPacket<'_>, ix: SessionIx, segment: &Segment) -> Verdict {
        let refused = Verdict::Drop(DropReason::TcpOutOfWindow, Why::Session(ix));
        let Some(rule) = self.policy.rule(self.table.get(ix).rule) else {
            return refused;
        };
        if self
            .accept(flow.meta, flow.key.domain, segment, &rule.syn_options)
            .is_none()
        {
            return refused;
        }
        self.reopen(flow, ix)
    }

    /// A packet of the server in answer to the SYN that it got.
    fn server_answers(&mut self, flow: &FlowPacket<'_>, ix: SessionIx, segment: &Segment) -> Verdict {
        let why = Why::Session(ix);
        match Event::of(segment.flags) {
            Some(Event::SynAck) => self.server_accepts(flow, ix, segment),
            Some(Event::Rst) => {
                let tracked = track::track_tcp(self.table.get_mut(ix), flow.direction, segment);
                match self.tracked(flow, ix, tracked) {
                    Verdict::Forward(why) => Verdict::Proxy(Proxy::Refused(ix), why),
                    verdict => verdict,
                }
            }
            // It still holds an old connection: reset, it will take the next SYN (RFC 9293, section 3.5.1, figure 9).
            Some(Event::Ack) => Verdict::Proxy(Proxy::Reset, why),
            _ => Verdict::Drop(DropReason::TcpBadFlags, why),
        }
    }

    /// The server's SYN+ACK: from here on both halves are one connection.
    fn server_accepts(&mut self, flow: &FlowPacket<'_>, ix: SessionIx, segment: &Segment) -> Verdict {
        let tracked = track::track_tcp(self.table.get_mut(ix), flow.direction, segment);
        let verdict = self.tracked(flow, ix, tracked);
        let Verdict::Forward(why) = verdict else {
            return verdict;
        };
        let translation = self.table.translation_mut(ix);
        translation.sequence = segment.seq.wrapping_sub(translation.cookie);
        if translation.has(Translation::TIMESTAMPS) {
            match segment.options.timestamps {
                Some((own, _)) => translation.timestamp = own.wrapping_sub(translation.timestamp),
                None => translation.flags |= Translation::STRIP_TIMESTAMPS,
            }
        }
        if translation.has(Translation::SACK) && !segment.options.sack_permitted {
            translation.flags |= Translation::STRIP_SACK;
        }
        let translation = *translation;
        let offered = Offered {
            scale: translation.has(Translation::SCALE),
            sack: translation.has(Translation::SACK),
            timestamps: translation.has(Translation::TIMESTAMPS),
        };
        self.learn_of(flow, &segment.options, offered);
        // The third step, which haechi sends in the client's place.
        let session = self.table.get_mut(ix);
        let client = session.opener;
        let scales = offered.scale && segment.options.scale.is_some();
        let ack = Segment {
            flags: flag::ACK,
            seq: segment.ack,
            ack: segment.seq.wrapping_add(1),
            window: rescale(
                session.tcp[client.index()].max_win,
                0,
                if scales { translation.client_scale } else { 0 },
            ),
            ..Segment::default()
        };
        if let Tracked::Move(state) = track::track_tcp(session, client, &ack) {
            let rule = self.table.get(ix).rule;
            let timeout = self.scaled(self.policy.state_timeouts(rule).ticks(state));
            self.table.set_state(ix, state, timeout);
        }
        Verdict::Proxy(Proxy::Open(ix), why)
    }

    /// What the packets of one end of a proxied session need.
    pub(in crate::engine) fn rewrite(&self, ix: SessionIx, sender: Direction) -> Rewrite {
        let session = self.table.get(ix);
        Rewrite::new(session, *self.table.translation(ix), session.is_opener(sender))
    }

    /// Makes of a packet what it becomes, and sends that.
    #[inline]
    pub(in crate::engine) fn proxy<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        proxy: Proxy,
        note: Note,
        of: (&PacketMeta, u32),
        packet: B,
        scratch: &mut [u8; MAX_ANSWER],
        out: &mut O,
    ) {
        match proxy {
            // By far the most while it counts.
            Proxy::Cookie(place) => self.answer_syn(place, note, of, packet, scratch, out),
            _ => self.convert(proxy, note, of.0, packet, scratch, out),
        }
    }

    /// [`Act::proxy`] of a packet of a session.
    #[inline(never)]
    fn convert<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        proxy: Proxy,
        note: Note,
        meta: &PacketMeta,
        mut packet: B,
        scratch: &mut [u8; MAX_ANSWER],
        out: &mut O,
    ) {
        let peer = port_policy(self.policy, meta.ingress).peer;
        let (way, made) = match proxy {
            Proxy::Carry(ix, sender) => {
                self.rewrite(ix, sender).frame(packet.bytes_mut(), meta);
                self.counters.forwarded += 1;
                return out.forward(packet, peer, note);
            }
            Proxy::Quoted(ix, at) => {
                let delta = self.table.translation(ix).sequence;
                quoted_sequence(packet.bytes_mut(), meta, usize::from(at), delta);
                self.counters.forwarded += 1;
                return out.forward(packet, peer, note);
            }
            // Not of a session: see `proxy`.
            Proxy::Cookie(_) => return self.withhold(packet, note, out),
            Proxy::Syn(ix) => (Way::On, self.syn_of(ix, meta, packet.bytes())),
            Proxy::Open(ix) => {
                self.acknowledge(ix, meta, &packet, scratch, out);
                (Way::On, self.opens_window(ix, meta, packet.bytes()))
            }
            Proxy::Acknowledge(ix) => (Way::Back, self.third_step(ix, meta, packet.bytes())),
            Proxy::Refused(ix) => (Way::On, self.refusal(ix, meta, packet.bytes())),
            Proxy::Reset => (Way::Back, reset(meta, packet.bytes())),
        };
        let written = bare(meta, packet.bytes(), way, &made, scratch);
        let filled = written.filter(|len| packet.try_fill(&scratch[..*len]).is_ok());
        match (filled, way) {
            (Some(len), Way::On) => {
                if let (Proxy::Syn(ix), Why::NewSession(..)) = (proxy, note.why) {
                    self.try_again_later(ix, &scratch[..len], peer);
                }
                self.counters.forwarded += 1;
                out.forward(packet, peer, note);
            }
            (filled, _) => {
                if filled.is_none() {
                    return self.withhold(packet, note, out);
                }
                self.counters.drops[DropReason::SynProxied.index()] += 1;
                self.counters.originated += 1;
                out.answer(packet, meta.ingress, DropReason::SynProxied, note);
            }
        }
    }

    /// The client's SYN, made of what its cookie said and a later packet of its.
    fn syn_of(&self, ix: SessionIx, meta: &PacketMeta, frame: &[u8]) -> Bare {
        let (session, translation) = (self.table.get(ix), self.table.translation(ix));
        let client = &session.tcp[session.opener.index()];
        let stamp = segment(meta, frame).options.timestamps;
        Bare {
            flags: flag::SYN,
            // Before an acknowledgement it is the number after the SYN.
            seq: client.acked.wrapping_sub(1),
            ack: 0,
            window: client.max_win,
            mss: Some(Facts::mss(translation.mss)),
            scale: translation
                .has(Translation::SCALE)
                .then_some(translation.client_scale),
            sack_permitted: translation.has(Translation::SACK),
            timestamps: translation
                .has(Translation::TIMESTAMPS)
                .then(|| (stamp.map_or(0, |(own, _)| own), 0)),
        }
    }

    /// Sends the third step of the server's handshake, if there is a buffer for it. Without it the server sends its SYN+ACK
    /// again, or the client's next packet tells it.
    fn acknowledge<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        ix: SessionIx,
        meta: &PacketMeta,
        packet: &B,
        scratch: &mut [u8; MAX_ANSWER],
        out: &mut O,
    ) {
        let ack = self.third_step(ix, meta, packet.bytes());
        let Some(len) = bare(meta, packet.bytes(), Way::Back, &ack, scratch) else {
            return;
        };
        let Some(mut buffer) = out.buffer() else {
            return;
        };
        if buffer.try_fill(&scratch[..len]).is_ok() {
            self.counters.originated += 1;
            out.originate(buffer, meta.ingress);
        }
    }

    /// The ACK of a server's SYN+ACK.
    fn third_step(&self, ix: SessionIx, meta: &PacketMeta, frame: &[u8]) -> Bare {
        let syn_ack = segment(meta, frame);
        let (session, translation) = (self.table.get(ix), self.table.translation(ix));
        // The tracker takes a closed window for one unit. The client's next packet says what it is.
        let window = match session.tcp[session.opener.index()].max_win {
            0 | 1 => 0,
            window => window,
        };
        Bare {
            flags: flag::ACK,
            seq: syn_ack.ack,
            ack: syn_ack.seq.wrapping_add(1),
            window,
            timestamps: syn_ack
                .options
                .timestamps
                .filter(|_| translation.has(Translation::TIMESTAMPS))
                .map(|(own, echoed)| (echoed, own)),
            ..Bare::default()
        }
    }

    /// The server's SYN+ACK as its client sees it: an ACK with an open window.
    fn opens_window(&self, ix: SessionIx, meta: &PacketMeta, frame: &[u8]) -> Bare {
        let syn_ack = segment(meta, frame);
        let translation = self.table.translation(ix);
        Bare {
            flags: flag::ACK,
            seq: translation.cookie.wrapping_add(1),
            ack: syn_ack.ack,
            window: rescale(syn_ack.window, 0, translation.told_scale),
            timestamps: syn_ack
                .options
                .timestamps
                .filter(|_| translation.has(Translation::TIMESTAMPS))
                .map(|(own, echoed)| (own.wrapping_sub(translation.timestamp), echoed)),
            ..Bare::default()
        }
    }

    /// The server's refusal: the client takes the connection for established, and accepts a RST with the next number only (RFC
    /// 5961, section 3.2).
    fn refusal(&self, ix: SessionIx, meta: &PacketMeta, frame: &[u8]) -> Bare {
        Bare {
            flags: flag::RST | flag::ACK,
            seq: self.table.translation(ix).cookie.wrapping_add(1),
            ack: segment(meta, frame).ack,
            ..Bare::default()
        }
    }
}

/// The RST that an ACK asks for which makes no sense to its receiver (RFC 9293, section 3.10.7.3, first).
fn reset(meta: &PacketMeta, frame: &[u8]) -> Bare {
    Bare {
        flags: flag::RST,
        seq: segment(meta, frame).ack,
        ..Bare::default()
    }
}
