//! The flow key: one value for both directions of a flow, and the direction that a packet goes in.

use super::track::{icmp_query, is_icmp_reply};
use crate::base::simd::LANES;
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

    /// The key of packet `i` of eight in a domain, and the direction that the packet goes in.
    #[inline(always)]
    #[must_use]
    pub fn of_lane(lanes: &KeyLanes, i: usize, domain: u32) -> (Self, Direction) {
        // The address's bytes are in the order of the wire already.
        let mapped = |address: u32| ((u128::from(address) << 96) | MAPPED).to_ne_bytes();
        let ports = lanes.ports[i];
        let key = Self {
            low: mapped(lanes.low[i]),
            high: mapped(lanes.high[i]),
            low_port: ports as u16,
            high_port: (ports >> 16) as u16,
            domain,
            protocol: lanes.protocol[i] as u8,
            class: KeyClass::Ports,
            reserved: 0,
        };
        (key, Direction::swapped(lanes.swapped[i] != 0))
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

/// What differs between the keys of eight packets of the straight path.
#[derive(Clone, Copy, Debug)]
pub struct KeyLanes {
    low: [u32; LANES],
    high: [u32; LANES],
    /// The low end's in the low half.
    ports: [u32; LANES],
    protocol: [u32; LANES],
    /// Not 0: the source is the high end.
    swapped: [u32; LANES],
}

impl KeyLanes {
    /// Puts the ends of eight packets in order, as [`FlowKey::of`] does for one.
    #[inline(always)]
    #[must_use]
    pub fn of(packets: &Lanes) -> Self {
        let (source, destination) = (packets.source, packets.destination);
        let (from, to) = (packets.source_port, packets.destination_port);
        let swap = source.cmp_gt(destination) | (source.cmp_eq(destination) & from.cmp_gt(to));
        Self {
            low: swap.blend(destination, source).to_array(),
            high: swap.blend(source, destination).to_array(),
            ports: swap.blend(to | (from << 16), from | (to << 16)).to_array(),
            protocol: packets.protocol.to_array(),
            swapped: swap.to_array(),
        }
    }
}
