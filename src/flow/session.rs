//! One session: 128 bytes, two cache lines. The first is read to recognise a packet and says what seldom changes; the
//! second is all that a packet writes, so that a packet dirties one line.

use super::{Direction, FlowKey, SessionState, StateTimeouts, TcpSender};
use crate::base::{Generation, PortId, RuleId, Tick};

/// One session, both directions.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(128))]
pub struct Session {
    // Line 0: read to recognise a packet and to judge it.
    /// The flow; tells the session's domain (pair and VLANs) too.
    pub key: FlowKey,
    /// The rule that allowed it, by its stable id.
    pub rule: RuleId,
    /// The same rule as an index into `Policy::rules` of the policy `generation`.
    pub rule_index: u32,
    /// The policy that it was last classified under.
    pub generation: Generation,
    /// The port that the opener's packets come in by. It stays the same while the session is in a table.
    pub ingress: PortId,
    /// The port that the replier's packets come in by (the opener's leave by it).
    pub egress: PortId,
    /// The direction of the opener's packets; the replier's go the other way.
    pub opener: Direction,
    /// [`Session::LIBERAL`], [`Session::RESETS`], [`Session::LOG_END`], [`Session::COUNTED`], [`Session::WAITS`],
    /// [`Session::PROXIED`], [`Session::OUTLIVED`], [`Session::AWAY`].
    pub flags: u8,
    /// ICMP and ICMPv6: the type of the packet that opened it.
    pub icmp_type: u8,
    /// ICMP and ICMPv6: the code of the packet that opened it.
    pub icmp_code: u8,
    // Line 1: what a packet writes.
    /// Bytes of IP packets by [`Direction`].
    pub(super) bytes: [u64; 2],
    /// TCP: what is known of each sender, by [`Direction`].
    pub tcp: [TcpSender; 2],
    /// Packets by [`Direction`].
    pub(super) packets: [PacketCount; 2],
    /// When its last packet came.
    pub(super) last_seen: Tick,
    /// In ticks, modulo 2^16: until then its numbers may be re-learnt from its packets, with a generation of 0
    /// ([`super::table::Journal`]); 0: they are not.
    pub learns_until: u16,
    /// Written by the table alone, which counts sessions by state.
    pub(super) state: SessionState,
    pub(super) reserved_hot: u8,
}

const _: () = assert!(size_of::<Session>() == 128 && align_of::<Session>() == 128);
const _: () = assert!(size_of::<TcpSender>() == 16);
// The second cache line begins with `bytes`: prefetching `key` and `bytes` fetches the whole session.
const _: () = assert!(std::mem::offset_of!(Session, bytes) == 64);

impl Session {
    /// In `flags`: no segment is refused for its sequence numbers (`tcp_strict = false`).
    pub const LIBERAL: u8 = 1;
    /// In `flags`: both ends are reset when it idles out (`reset_on_timeout`), so the table keeps the link headers of its last
    /// packets ([`super::SessionTable::note_link`]).
    pub const RESETS: u8 = 2;
    /// In `flags`: its end is written to the log.
    pub const LOG_END: u8 = 4;
    /// In `flags`: it counts among its source's sessions, for a limit of its rule.
    pub const COUNTED: u8 = 8;
    /// In `flags`: it idled out and waits for its ends to be reset.
    pub const WAITS: u8 = 16;

    /// In `flags`: haechi answered its client by a SYN cookie, and every packet of it is rewritten
    /// ([`super::SessionTable::translation`]). The tracker has the server's numbers.
    pub const PROXIED: u8 = 32;

    /// In `flags`: an end went on after a RST that might have ended the connection. Who sends such RSTs guesses: they shorten
    /// nothing any more.
    pub const OUTLIVED: u8 = 64;

    /// In `flags`: the owner function names another worker for its flow, which hands its packets over by a redirect entry
    /// (`engine/redirect.rs`). What a receive queue of this worker brings goes there, too, and comes back: by one way, in order.
    pub const AWAY: u8 = 128;

    /// A session that `opener` opens in `state` (see [`super::track::opening`]); nothing counted yet, rule and
    /// ports to be filled in.
    #[must_use]
    pub fn new(key: FlowKey, opener: Direction, state: SessionState) -> Self {
        Self {
            key,
            opener,
            state,
            ..Self::default()
        }
    }

    /// Are segments refused for their sequence and acknowledgement numbers?
    #[inline]
    pub const fn set_strict(&mut self, strict: bool) {
        self.set_flag(Self::LIBERAL, !strict);
    }

    /// Is its end written to the log?
    #[inline]
    pub const fn set_log_end(&mut self, log: bool) {
        self.set_flag(Self::LOG_END, log);
    }

    #[inline]
    const fn set_flag(&mut self, flag: u8, set: bool) {
        self.flags = if set {
            self.flags | flag
        } else {
            self.flags & !flag
        };
    }

    /// Are both ends reset when it idles out?
    #[inline]
    #[must_use]
    pub const fn resets(&self) -> bool {
        self.flags & Self::RESETS != 0
    }

    /// Has an end sent a RST that may have ended it?
    #[inline]
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        (self.tcp[0].flags | self.tcp[1].flags) & TcpSender::RESET != 0
    }

    /// How long it may idle, in ticks: as its state says, or, when one end has sent a RST that may have ended it, no longer
    /// than a closed one.
    #[inline]
    #[must_use]
    pub fn timeout(&self, timeouts: &StateTimeouts) -> u32 {
        let ticks = timeouts.ticks(self.state);
        if self.is_reset() {
            ticks.min(timeouts.ticks(SessionState::Closed))
        } else {
            ticks
        }
    }

    /// Is every packet of it rewritten?
    #[inline]
    #[must_use]
    pub const fn is_proxied(&self) -> bool {
        self.flags & Self::PROXIED != 0
    }

    /// Is it on another worker than the owner function says?
    #[inline]
    #[must_use]
    pub const fn is_away(&self) -> bool {
        self.flags & Self::AWAY != 0
    }

    /// Where it stands; [`super::SessionTable::set_state`] moves it.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> SessionState {
        self.state
    }

    /// When its last packet came.
    #[inline]
    #[must_use]
    pub const fn last_seen(&self) -> Tick {
        self.last_seen
    }

    /// The address that opened it; IPv4 as `::ffff:a.b.c.d`.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> [u8; 16] {
        match self.opener {
            Direction::LowToHigh => self.key.low,
            Direction::HighToLow => self.key.high,
        }
    }

    /// The address that it was opened to, as [`Session::source`].
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> [u8; 16] {
        match self.opener {
            Direction::LowToHigh => self.key.high,
            Direction::HighToLow => self.key.low,
        }
    }

    /// Is a packet of this direction the opener's?
    #[inline]
    #[must_use]
    pub const fn is_opener(&self, sender: Direction) -> bool {
        self.opener as u8 == sender as u8
    }

    /// The ports that packets of this direction must come in by and leave by.
    #[inline(always)]
    #[must_use]
    pub const fn ports_of(&self, sender: Direction) -> (PortId, PortId) {
        if self.is_opener(sender) {
            (self.ingress, self.egress)
        } else {
            (self.egress, self.ingress)
        }
    }

    /// Bytes of IP packets, `[opener's, replier's]`.
    #[must_use]
    pub const fn bytes(&self) -> [u64; 2] {
        let o = self.opener.index();
        [self.bytes[o], self.bytes[1 - o]]
    }

    /// Of so many packets of a direction the table has a look at one.
    pub const LOOK_EVERY: u32 = 1 << PacketCount::LOW_BITS;

    /// Counts one packet of `bytes` bytes at `now`. True: it is one in [`Session::LOOK_EVERY`], and the table has a look
    /// ([`super::SessionTable::look`]; [`super::SessionTable::touch`] does both).
    #[inline(always)]
    #[must_use]
    pub const fn touch(&mut self, sender: Direction, now: Tick, bytes: u32) -> bool {
        let s = sender.index();
        self.last_seen = now;
        self.bytes[s] = self.bytes[s].wrapping_add(bytes as u64);
        self.packets[s].add_one()
    }
}

/// A count of packets, modulo 2^32; the table's cold part keeps the carry.
///
/// Its low bits stand on top: so that the one packet in [`Session::LOOK_EVERY`] that the table has a look at is told by the carry of
/// the addition itself, and every other packet pays for an addition and a branch alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct PacketCount(u32);

impl PacketCount {
    const LOW_BITS: u32 = 12;
    const ONE: u32 = 1 << (u32::BITS - Self::LOW_BITS);
    pub(super) const fn new(packets: u32) -> Self {
        Self(packets.rotate_right(Self::LOW_BITS))
    }

    pub(super) const fn get(self) -> u32 {
        self.0.rotate_left(Self::LOW_BITS)
    }

    /// True: [`PacketCount::carry`] is to be called before anything else is done with it.
    #[inline(always)]
    #[must_use]
    const fn add_one(&mut self) -> bool {
        let (count, carries) = self.0.overflowing_add(Self::ONE);
        self.0 = count;
        carries
    }

    /// Goes on where [`PacketCount::add_one`] left. True: the count is 0 again, after 2^32 packets.
    pub(super) const fn carry(&mut self) -> bool {
        self.0 = (self.0 + 1) % Self::ONE;
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_beyond_the_low_bits() {
        for from in [0, 4094, 8190, u32::MAX - 2, (1 << 20) - 1] {
            let mut count = PacketCount::new(from);
            for n in 1..5000_u32 {
                let looks = count.add_one();
                let over = looks && count.carry();
                let want = from.wrapping_add(n);
                assert_eq!(count.get(), want);
                assert_eq!(looks, want % Session::LOOK_EVERY == 0);
                assert_eq!(over, want == 0);
            }
        }
    }
}
