//! The flow key: one value for both directions of a flow, and the direction that a packet goes in.

use wide::u32x8;

use super::track::{icmp_query, is_icmp_reply};
use crate::base::simd::{self, LANES};
use crate::packet::{Lanes, PacketKind, PacketMeta};

/// Which of a flow's two ends sent a packet, in the key's own order (not "original" and "reply": the session says
/// which of the two opened it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the key's low end to its high end.
    #[default]
    LowToHigh = 0,
    /// From the key's high end to its low end.
    HighToLow = 1,
}

impl Direction {
    /// As an index into a session's `[_; 2]` arrays of per-sender state.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Of a packet whose source is the key's high end, or the low one.
    #[inline(always)]
    const fn swapped(swap: bool) -> Self {
        if swap { Self::HighToLow } else { Self::LowToHigh }
    }

    /// The other one.
    #[inline]
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::LowToHigh => Self::HighToLow,
            Self::HighToLow => Self::LowToHigh,
        }
    }
}

/// What the port fields of a key mean: keeps an echo with identifier 0 apart from other ICMP between the same hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KeyClass {
    /// By the address pair alone; the ports are 0.
    #[default]
    Addresses = 0,
    /// TCP and UDP ports.
    Ports = 1,
    /// Both ports hold the identifier of echoes that the low end requests.
    EchoFromLow = 2,
    /// The same, but the high end requests: two hosts that ping each other with one identifier (Windows always uses
    /// 1) have two sessions, and a reply belongs only to the session of its request.
    EchoFromHigh = 3,
    /// Other ICMP: both ports hold type and code of what the low end asks or tells ([`super::track::icmp_query`]). So the
    /// rule that lets one type through lets no other through, and nothing but the answer back.
    IcmpFromLow = 4,
    /// The same, but the high end asks.
    IcmpFromHigh = 5,
}

impl KeyClass {
    /// Is it one of echoes?
    #[inline]
    #[must_use]
    pub const fn is_echo(self) -> bool {
        matches!(self, Self::EchoFromLow | Self::EchoFromHigh)
    }
}

/// An IPv4-mapped address without the address (RFC 4291, section 2.5.5.2), as [`FlowKey::words`] has it.
const MAPPED: u128 = 0xffff << 80;
const _: () = assert!(
    cfg!(target_endian = "little"),
    "keys are compared and swapped in the order of memory"
);

/// A flow, the same value for both directions: of the two (address, port) ends the smaller is `low`.
#[derive(Clone, Copy, Debug, Default, Eq)]
#[repr(C)]
pub struct FlowKey {
    /// The low end's address; IPv4 as `::ffff:a.b.c.d`.
    pub low: [u8; 16],
    /// The high end's address.
    pub high: [u8; 16],
    /// The low end's port.
    pub low_port: u16,
    /// The high end's port.
    pub high_port: u16,
    /// The domain of invariant 11: pair in the high 8 bits, VLAN identifiers in the low 24 (see `session_scope`).
    pub domain: u32,
    /// IP protocol.
    pub protocol: u8,
    /// What the ports mean.
    pub class: KeyClass,
    /// 0 in every packet's key; gives the key a size without hidden bytes.
    pub reserved: u16,
}

const _: () = assert!(size_of::<FlowKey>() == 44);

impl PartialEq for FlowKey {
    /// Without a branch for each field: in a lookup the answer is nearly always "equal", known by one test at the end.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let [a, b, c] = self.words();
        let [x, y, z] = other.words();
        (a ^ x) | (b ^ y) | (c ^ z) == 0
    }
}

impl std::hash::Hash for FlowKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.words().hash(state);
    }
}

impl FlowKey {
    /// From now on no packet's key equals this one.
    pub(super) const fn forget(&mut self) {
        self.reserved = 1;
    }

    /// The key as three words: equal keys have equal words, and no other key has them.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u128; 3] {
        // In the order of memory on a little-endian machine: two loads, no shifts.
        let ports = self.low_port as u64 | ((self.high_port as u64) << 16) | ((self.domain as u64) << 32);
        let rest = self.protocol as u64 | ((self.class as u64) << 8) | ((self.reserved as u64) << 16);
        [
            u128::from_ne_bytes(self.low),
            u128::from_ne_bytes(self.high),
            ports as u128 | ((rest as u128) << 64),
        ]
    }

    /// Are both addresses IPv4 ones?
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        let [low, high, _] = self.words();
        ((low ^ MAPPED) | (high ^ MAPPED)) << 32 == 0
    }

    /// All that can differ between the keys of two IPv4 packets, mixed into one word: the addresses and ports as they are, and domain
    /// and protocol so that few keys share it, and none that differ in one of these two alone. For hashing; nobody tells keys by it.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4_word(&self) -> u128 {
        let [low, high, rest] = self.words();
        let kind = (rest >> 64) as u32;
        let last = self.domain ^ kind.wrapping_mul(SPREAD);
        (low >> 96) | ((high >> 96) << 32) | ((rest & 0xffff_ffff) << 64) | ((last as u128) << 96)
    }

    /// The key of a parsed packet in a domain, and the direction that the packet goes in.
    #[inline(always)]
    #[must_use]
    pub fn of(meta: &PacketMeta, domain: u32) -> (Self, Direction) {
        // Which of two ends is the low one is nobody's business: as integers of the machine's own, compared and swapped
        // without a branch, because replies and originals come mixed.
        let source = u128::from_ne_bytes(meta.source);
        let destination = u128::from_ne_bytes(meta.destination);
        let swap =
            (source > destination) | ((source == destination) & (meta.source_port > meta.destination_port));
        let difference = (source ^ destination) & u128::from(swap).wrapping_neg();
        let (source_port, destination_port) = match meta.kind {
            PacketKind::Icmp => (icmp_query(meta), icmp_query(meta)),
            _ => (meta.source_port, meta.destination_port),
        };
        let ports =
            (u32::from(source_port) | (u32::from(destination_port) << 16)).rotate_left(u32::from(swap) << 4);
        let class = match meta.kind {
            PacketKind::Tcp | PacketKind::Udp => KeyClass::Ports,
            PacketKind::Echo if swap == is_icmp_reply(meta) => KeyClass::EchoFromLow,
            PacketKind::Echo => KeyClass::EchoFromHigh,
            PacketKind::Icmp if swap == is_icmp_reply(meta) => KeyClass::IcmpFromLow,
            PacketKind::Icmp => KeyClass::IcmpFromHigh,
            _ => KeyClass::Addresses,
        };
        let key = Self {
            low: (source ^ difference).to_ne_bytes(),
            high: (destination ^ difference).to_ne_bytes(),
            low_port: ports as u16,
            high_port: (ports >> 16) as u16,
            domain,
            protocol: meta.protocol,
            class,
            reserved: 0,
        };
        (key, Direction::swapped(swap))
    }
}

/// The key of one packet of the straight path, spread over words: what is computed for eight packets side by side comes out of
/// [`KeyRow::of`] one packet after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct KeyRow([u128; 2]);

impl KeyRow {
    /// Puts the ends of eight packets in order, as [`FlowKey::of`] does for one. `domains` are the packets' domains; of `tags`, below
    /// 2^16, each comes back with its row.
    #[inline(always)]
    #[must_use]
    pub fn of(packets: &Lanes, domains: u32x8, tags: u32x8) -> [Self; LANES] {
        let (source, destination) = (packets.source, packets.destination);
        let turned: u32x8 = (packets.ports << 16) | (packets.ports >> 16);
        // Only between one address and itself the ports decide: the source's is the high half of `turned`.
        let swap = source.cmp_gt(destination) | (source.cmp_eq(destination) & turned.cmp_gt(packets.ports));
        let low = swap.blend(destination, source);
        let high = swap.blend(source, destination);
        let ports = swap.blend(turned, packets.ports);
        let last = mixed(
            domains,
            packets.protocol | u32x8::splat((KeyClass::Ports as u32) << 8),
        );
        let tags = tags | (swap << 31);
        let columns = [
            low,
            high,
            ports,
            last,
            domains,
            packets.protocol,
            packets.ip_len,
            tags,
        ];
        simd::rows(&columns.map(u32x8::to_array)).map(Self)
    }

    /// The key.
    #[inline(always)]
    #[must_use]
    pub const fn key(&self) -> FlowKey {
        let [ends, rest] = self.0;
        FlowKey {
            low: mapped(ends as u32),
            high: mapped((ends >> 32) as u32),
            low_port: (ends >> 64) as u16,
            high_port: (ends >> 80) as u16,
            domain: rest as u32,
            protocol: (rest >> 32) as u8,
            class: KeyClass::Ports,
            reserved: 0,
        }
    }

    /// [`FlowKey::ipv4_word`] of [`KeyRow::key`].
    #[inline(always)]
    #[must_use]
    pub const fn ipv4_word(&self) -> u128 {
        self.0[0]
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    #[must_use]
    pub const fn ip_len(&self) -> u16 {
        (self.0[1] >> 64) as u16
    }

    /// What the packet was given to [`KeyRow::of`] with.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u16 {
        (self.0[1] >> 96) as u16
    }

    /// The direction that the packet goes in.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        Direction::swapped(self.0[1] >> 127 != 0)
    }
}

/// An IPv4 address, whose bytes are in the order of the wire, in its IPv6 form.
#[inline(always)]
const fn mapped(address: u32) -> [u8; 16] {
    (((address as u128) << 96) | MAPPED).to_ne_bytes()
}

/// What spreads protocols and classes over the bits of a domain in [`FlowKey::ipv4_word`]: odd, so that no two of one domain become one.
const SPREAD: u32 = 0x9e37_79b1;

#[inline(always)]
fn mixed(domains: u32x8, kinds: u32x8) -> u32x8 {
    domains ^ (kinds * u32x8::splat(SPREAD))
}
