//! The SYN+ACK with a cookie: all that a flood of SYNs costs. No session, no timer, no record; one block of AES, and the
//! answer in the buffer that the SYN came in.

use super::cookie::{Cookies, Facts};
use super::ends;
use super::learn::Told;
use crate::base::Nanos;
use crate::engine::process::Act;
use crate::engine::{DropReason, Note, Outputs};
use crate::flow::Options;
use crate::flow::segment::flag;
use crate::packet::build::{Bare, MAX_ANSWER, Way, bare};
use crate::packet::in_place::bare_in_place;
use crate::packet::view::Tcp;
use crate::packet::{PacketBuf, PacketMeta};
use crate::policy::SynOptions;

/// Of a rule that is gone.
const NONE: SynOptions = SynOptions {
    mss: 536,
    window_scale: 0,
    sack: false,
    timestamps: false,
};

impl Act<'_> {
    /// Answers a SYN that the rule at this place allows.
    #[inline(never)]
    pub(in crate::engine) fn answer_syn<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        place: u32,
        note: Note,
        of: (&PacketMeta, u32),
        packet: B,
        scratch: &mut [u8; MAX_ANSWER],
        out: &mut O,
    ) {
        let start = usize::from(of.0.l4_offset);
        match packet.bytes().get(start + 20..start + usize::from(of.0.detail)) {
            Some(options @ [_, ..]) => {
                let offered = Options::parse(options);
                self.answer_offer(place, note, of, packet, &offered, scratch, out);
            }
            // What most floods are made of: the compiler leaves out of a copy of the rest what options need.
            _ => self.answer_offer(place, note, of, packet, &Options::default(), scratch, out),
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "one function in two copies")]
    fn answer_offer<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        place: u32,
        note: Note,
        (meta, domain): (&PacketMeta, u32),
        mut packet: B,
        offered: &Options,
        scratch: &mut [u8; MAX_ANSWER],
        out: &mut O,
    ) {
        let made = self.cookie(place, meta, domain, offered, packet.bytes());
        if !bare_in_place(meta, &made, &mut packet) && !elsewhere(meta, &made, &mut packet, scratch) {
            return self.withhold(packet, note, out);
        }
        self.counters.drops[DropReason::SynProxied.index()] += 1;
        self.counters.originated += 1;
        self.counters.syn_cookies_sent += 1;
        out.answer(packet, meta.ingress, DropReason::SynProxied, note);
    }

    /// A packet that goes no further, and that nothing can be made of.
    #[cold]
    pub(super) fn withhold<B, O: Outputs<B>>(&mut self, packet: B, note: Note, out: &mut O) {
        self.counters.drops[DropReason::SynProxied.index()] += 1;
        out.drop(packet, DropReason::SynProxied, note);
    }

    /// The SYN+ACK. Its window is closed: the client sends data when the server is there.
    #[inline(always)]
    fn cookie(
        &mut self,
        place: u32,
        meta: &PacketMeta,
        domain: u32,
        offered: &Options,
        frame: &[u8],
    ) -> Bare {
        let isn = Tcp::of(meta, frame).map_or(0, |tcp| tcp.sequence());
        let rule = self.policy.rules.get(place as usize);
        let defaults = rule.map_or(&NONE, |rule| &rule.syn_options);
        let (cookie, told) = self.answer_to(meta, domain, isn, offered, defaults);
        let timestamps = offered.timestamps.filter(|_| told.timestamps);
        Bare {
            flags: flag::SYN | flag::ACK,
            seq: cookie,
            ack: isn.wrapping_add(1),
            window: 0,
            mss: Some(told.mss),
            scale: told.scale,
            sack_permitted: told.sack,
            timestamps: timestamps.map(|(own, _)| (self.syn.cookies.stamp(self.now), own)),
        }
    }

    /// What this client's SYN is answered with: the cookie, and what the client is told of the server.
    #[inline(always)]
    fn answer_to(
        &mut self,
        meta: &PacketMeta,
        domain: u32,
        isn: u32,
        offered: &Options,
        defaults: &SynOptions,
    ) -> (u32, Told) {
        let ipv4 = meta.has(PacketMeta::IPV4);
        let defaults = SynOptions {
            // An IPv6 header is 20 bytes longer.
            mss: if ipv4 {
                defaults.mss
            } else {
                defaults.mss.saturating_sub(20)
            },
            ..*defaults
        };
        let (server, hash) = self.server_of(meta, domain);
        let mut told = self.syn.learnt.told(self.tick, &server, hash, &defaults);
        // Only what both have is in use.
        told.sack &= offered.sack_permitted;
        told.timestamps &= offered.timestamps.is_some();
        let scale = offered.scale.filter(|_| told.scale.is_some());
        told.scale = told.scale.filter(|_| scale.is_some());
        // Of a client that names none (RFC 9293, section 3.7.1).
        let mss = offered.mss.unwrap_or(if ipv4 { 536 } else { 1220 });
        let facts = Facts::new(mss, scale, told.sack);
        let told_scale = told.scale.unwrap_or(0);
        let cookie = self
            .syn
            .cookies
            .make(self.now, &ends(meta, domain), isn, facts, told_scale);
        self.syn.awaited_until = self.now.plus(Nanos(2 * Cookies::EPOCH.0));
        (cookie, told)
    }
}

/// The answer to a packet of another kind: over IPv6, in a VLAN. False: there is none.
#[inline(never)]
fn elsewhere<B: PacketBuf>(
    meta: &PacketMeta,
    made: &Bare,
    packet: &mut B,
    scratch: &mut [u8; MAX_ANSWER],
) -> bool {
    bare(meta, packet.bytes(), Way::Back, made, scratch)
        .is_some_and(|len| packet.try_fill(&scratch[..len]).is_ok())
}
