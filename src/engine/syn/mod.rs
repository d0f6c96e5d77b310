//! SYN protection (`syn_protection`): haechi answers a SYN by a cookie, keeps nothing, and opens the connection to the server
//! once the client has shown that it received the answer. The two halves have sequence numbers of their own, and from then
//! on every packet is carried between them ([`translate`]).
//!
//! | packet | becomes | counted as |
//! | --- | --- | --- |
//! | client's SYN | SYN+ACK with a cookie and a window of 0, back | dropped `syn_proxied`, and one made |
//! | client's first ACK, its cookie good | the client's SYN, on; here the session begins | forwarded |
//! | server's SYN+ACK | an ACK that opens the client's window, on; and an ACK back | forwarded, and one made |
//! | server's SYN+ACK again | an ACK, back | dropped `syn_proxied`, and one made |
//! | server's RST to the SYN | a RST that the client accepts, on | forwarded |
//! | server's ACK of an old connection | a RST, back | dropped `syn_proxied`, and one made |
//! | client's packets before the server's SYN+ACK | the client's SYN again, at most one in 8 seconds | forwarded, or dropped `syn_proxied` |
//!
//! The window of 0 keeps the client from sending data that would have to be held here. As with any SYN cookie, a client that
//! waits for the server to speak first, and whose ACK is lost, hangs until it gives up.

mod answer;
mod cookie;
mod handshake;
mod learn;
mod retry;
mod translate;

use self::cookie::{Cookies, Ends, Facts};
pub(super) use self::handshake::Proxy;
use self::learn::{Learnt, Offered, Server};
use self::retry::Retries;
pub use self::retry::Retry;
pub(super) use self::translate::Rewrite;
use super::process::{Act, FlowPacket};
use super::session::segment;
use crate::base::{Memory, Nanos, SessionIx};
use crate::flow::segment::flag;
use crate::flow::track::{Event, opens_tcp};
use crate::flow::translation::rescale;
use crate::flow::{FlowKey, HashSeed, Options, Segment, TableError, TcpSender, Translation};
use crate::packet::build::may_answer;
use crate::packet::{PacketKind, PacketMeta};
use crate::policy::{Action, Rule, SynOptions, SynProtection};

/// What SYN protection knows beside its sessions: of fixed size.
pub(super) struct Syn {
    cookies: Cookies,
    learnt: Learnt,
    retries: Retries,
    /// [`SynProtection::Auto`] answers by cookies now.
    engaged: bool,
    /// Before this, a cookie that was sent may come back.
    awaited_until: Nanos,
    /// The server of the last packet, and its hash: floods have few.
    last: (Server, u64),
}

impl Syn {
    pub(super) fn new(memory: &impl Memory, seed: HashSeed) -> Result<Self, TableError> {
        Ok(Self {
            cookies: Cookies::new(seed),
            learnt: Learnt::new(memory)?,
            retries: Retries::new(memory)?,
            engaged: false,
            awaited_until: Nanos(0),
            // No packet goes to that one.
            last: (Server::default(), 0),
        })
    }

    /// Cookies are made and judged by the key of this seed.
    pub(super) fn share(&mut self, seed: HashSeed) {
        self.cookies = Cookies::new(seed);
    }

    /// Until then a cookie may come back.
    pub(super) const fn awaited_until(&self) -> Nanos {
        self.awaited_until
    }

    /// Another worker's cookies may come back here.
    pub(super) fn await_until(&mut self, until: Nanos) {
        self.awaited_until = self.awaited_until.max(until);
    }

    /// Does [`SynProtection::Auto`] answer by cookies?
    pub(super) const fn is_engaged(&self) -> bool {
        self.engaged
    }

    /// Engages or disengages, by how many of `capacity` sessions are half open.
    pub(super) fn steer(&mut self, half_open: u32, capacity: u32, shares: crate::policy::SynCookies) {
        let bound = if self.engaged { shares.stop } else { shares.start };
        self.engaged = half_open >= bound.of(capacity).max(1);
    }
}

/// What protection says about a packet without a session.
#[derive(Clone, Copy)]
pub(super) enum Guard {
    /// Nothing.
    Aside,
    /// A SYN that haechi answers.
    Answer,
    /// An ACK with a good cookie.
    Accept(Accepted),
    /// An ACK with none, while cookies are awaited.
    Refuse,
}

/// A client that has received its cookie.
#[derive(Clone, Copy)]
pub(super) struct Accepted {
    isn: u32,
    cookie: u32,
    facts: Facts,
    told_scale: u8,
    /// The client's window in bytes, as far as a SYN can say.
    window: u16,
    timestamps: Option<(u32, u32)>,
}

impl Accepted {
    /// The SYN that the client sent, as far as it is known: what the server will get.
    pub(super) fn syn(&self) -> Segment {
        Segment {
            flags: flag::SYN,
            seq: self.isn,
            window: self.window,
            options: Options {
                scale: self.facts.scale,
                ..Options::default()
            },
            ..Segment::default()
        }
    }

    pub(super) fn translation(&self) -> Translation {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        Translation {
            sequence: 0,
            timestamp: self.timestamps.map_or(0, |(_, echoed)| echoed),
            cookie: self.cookie,
            flags: flag(self.facts.sack, Translation::SACK)
                | flag(self.timestamps.is_some(), Translation::TIMESTAMPS)
                | flag(self.facts.scale.is_some(), Translation::SCALE),
            mss: self.facts.mss,
            told_scale: self.told_scale,
            client_scale: self.facts.scale.unwrap_or(0),
        }
    }
}

/// Does this rule say that SYNs may be answered here?
#[inline]
pub(super) fn protects(rule: &Rule) -> bool {
    rule.syn_protection != SynProtection::Off && rule.action == Action::Allow
}

impl Act<'_> {
    /// Looks at a packet without a session before its rule does.
    #[inline]
    pub(super) fn guard(&mut self, flow: &FlowPacket<'_>, rule: Option<&Rule>) -> Guard {
        match rule.filter(|rule| protects(rule)) {
            Some(rule) if flow.meta.kind == PacketKind::Tcp => self.guard_tcp(flow, rule),
            _ => Guard::Aside,
        }
    }

    #[inline(never)]
    fn guard_tcp(&mut self, flow: &FlowPacket<'_>, rule: &Rule) -> Guard {
        let meta = flow.meta;
        let flags = meta.tcp_flags();
        if opens_tcp(flags) {
            return if self.answers_syn(meta, flow.frame, rule) {
                Guard::Answer
            } else {
                Guard::Aside
            };
        }
        // A client that closes at once may do so before its ACK was seen.
        if self.now >= self.syn.awaited_until || !matches!(Event::of(flags), Some(Event::Ack | Event::Fin)) {
            return Guard::Aside;
        }
        match self.accept(
            meta,
            flow.key.domain,
            &segment(meta, flow.frame),
            &rule.syn_options,
        ) {
            Some(accepted) => Guard::Accept(accepted),
            None => Guard::Refuse,
        }
    }

    /// Is this a SYN that haechi answers, by the rule that allows it?
    #[inline(always)]
    pub(super) fn answers_syn(&mut self, meta: &PacketMeta, frame: &[u8], rule: &Rule) -> bool {
        // A frame to a group of stations cannot be answered; only a neighbour can send it.
        opens_tcp(meta.tcp_flags()) && self.answers(rule) && may_answer(meta, frame)
    }

    /// Are SYNs that this rule allows answered here?
    #[inline]
    fn answers(&mut self, rule: &Rule) -> bool {
        match rule.syn_protection {
            SynProtection::Off => false,
            SynProtection::Always => true,
            SynProtection::Auto => {
                let (half_open, capacity) = (self.table.half_open(), self.quota);
                self.syn.steer(half_open, capacity, self.policy.syn_cookies);
                self.syn.engaged
            }
        }
    }

    /// Is this the client's answer to a cookie?
    fn accept(
        &mut self,
        meta: &PacketMeta,
        domain: u32,
        segment: &Segment,
        defaults: &SynOptions,
    ) -> Option<Accepted> {
        let (server, hash) = self.server_of(meta, domain);
        let told_scales = self.syn.learnt.scales(&server, hash, defaults);
        // The first number after the SYN; or, probing the closed window, the one before that.
        let isns = [segment.seq.wrapping_sub(1), segment.seq];
        let isns = if segment.data_len == 0 {
            &isns[..]
        } else {
            &isns[..1]
        };
        let cookie = segment.ack.wrapping_sub(1);
        let different = if told_scales[0] == told_scales[1] { 1 } else { 2 };
        let (isn, facts, told_scale) = self.syn.cookies.check(
            self.now,
            &ends(meta, domain),
            cookie,
            isns,
            &told_scales[..different],
        )?;
        Some(Accepted {
            isn,
            cookie,
            facts,
            told_scale,
            window: rescale(segment.window, facts.scale.unwrap_or(0), 0),
            timestamps: segment.options.timestamps,
        })
    }

    /// Where a client's packet goes, and the hash by which it is looked up.
    #[inline]
    fn server_of(&mut self, meta: &PacketMeta, domain: u32) -> (Server, u64) {
        let server = Server {
            address: meta.destination,
            domain,
            port: meta.destination_port,
        };
        if server != self.syn.last.0 {
            self.syn.last = (server, self.hash_of(&server));
        }
        self.syn.last
    }

    fn hash_of(&self, server: &Server) -> u64 {
        self.table.hash(&FlowKey {
            low: server.address,
            // Two IPv4 addresses make a shorter hash than one and none.
            high: server.address,
            low_port: server.port,
            domain: server.domain,
            ..FlowKey::default()
        })
    }

    /// A SYN+ACK of a session's replier that passes: its options are noted for later clients, if the session's rule may need
    /// them.
    #[cold]
    pub(super) fn learn(&mut self, flow: &FlowPacket<'_>, ix: SessionIx) {
        let session = self.table.get(ix);
        let protected = self
            .policy
            .rule(session.rule)
            .is_some_and(|rule| rule.syn_protection != SynProtection::Off);
        if !protected {
            return;
        }
        let segment = segment(flow.meta, flow.frame);
        if session.is_opener(flow.direction) || Event::of(segment.flags) != Some(Event::SynAck) {
            return;
        }
        let client = &session.tcp[session.opener.index()];
        let offered = Offered {
            scale: client.scale != TcpSender::NO_SCALE,
            ..Offered::default()
        };
        self.learn_of(flow, &segment.options, offered);
    }

    fn learn_of(&mut self, flow: &FlowPacket<'_>, options: &Options, offered: Offered) {
        let server = Server {
            address: flow.meta.source,
            domain: flow.key.domain,
            port: flow.meta.source_port,
        };
        let hash = self.hash_of(&server);
        self.syn.learnt.learn(self.tick, &server, hash, options, offered);
    }
}

/// The ends of a client's packet.
const fn ends(meta: &PacketMeta, domain: u32) -> Ends<'_> {
    Ends {
        client: (&meta.source, meta.source_port),
        server: (&meta.destination, meta.destination_port),
        domain,
    }
}
