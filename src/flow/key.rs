//! The flow key: one value for both directions of a flow, and the direction that a packet goes in.

use crate::packet::{PacketKind, PacketMeta};

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
    /// Both ports hold the echo identifier.
    Echo = 2,
}

/// A flow, the same value for both directions: of the two (address, port) ends the smaller is `low`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
    /// Always 0: gives the key a size without hidden bytes.
    pub reserved: u16,
}

const _: () = assert!(size_of::<FlowKey>() == 44);

impl FlowKey {
    /// The key of a parsed packet in a domain, and the direction that the packet goes in.
    #[inline]
    #[must_use]
    pub fn of(meta: &PacketMeta, domain: u32) -> (Self, Direction) {
        let class = match meta.kind {
            PacketKind::Tcp | PacketKind::Udp => KeyClass::Ports,
            PacketKind::Echo => KeyClass::Echo,
            _ => KeyClass::Addresses,
        };
        let source = u128::from_be_bytes(meta.source);
        let destination = u128::from_be_bytes(meta.destination);
        let forward = (source, meta.source_port) <= (destination, meta.destination_port);
        let (low, high, low_port, high_port, direction) = if forward {
            (
                meta.source,
                meta.destination,
                meta.source_port,
                meta.destination_port,
                Direction::LowToHigh,
            )
        } else {
            (
                meta.destination,
                meta.source,
                meta.destination_port,
                meta.source_port,
                Direction::HighToLow,
            )
        };
        (
            Self {
                low,
                high,
                low_port,
                high_port,
                domain,
                protocol: meta.protocol,
                class,
                reserved: 0,
            },
            direction,
        )
    }
}
