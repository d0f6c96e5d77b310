//! Views of headers that the parser has checked: made once, then accessors that cannot fail.

use super::parse::ethertype;
use super::{PacketKind, PacketMeta};

/// The fixed part of a TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a>(&'a [u8; 20]);

impl<'a> Tcp<'a> {
    /// The segment that `meta` was parsed from `frame` for; `None` when it is not TCP.
    #[inline]
    #[must_use]
    pub fn of(meta: &PacketMeta, frame: &'a [u8]) -> Option<Self> {
        if meta.kind != PacketKind::Tcp {
            return None;
        }
        frame.get(usize::from(meta.l4_offset)..)?.first_chunk().map(Self)
    }

    /// Sequence number of the first byte, or of the SYN.
    #[inline]
    #[must_use]
    pub const fn sequence(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// The next sequence number that the sender expects; means nothing without the ACK flag.
    #[inline]
    #[must_use]
    pub const fn acknowledgment(self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// The window field as it stands, unscaled.
    #[inline]
    #[must_use]
    pub const fn window(self) -> u16 {
        u16::from_be_bytes([self.0[14], self.0[15]])
    }
}

/// Bits of the TCP flags byte ([`PacketMeta::tcp_flags`]).
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number means something.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer means something.
    pub const URG: u8 = 0x20;
    /// ECN echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// How much of the sequence space a segment takes: its data, SYN and FIN (SEG.LEN of RFC 9293, section 3.10.7).
#[inline]
#[must_use]
pub const fn segment_len(meta: &PacketMeta) -> u32 {
    let flags = meta.tcp_flags();
    let data = meta.l4_len.saturating_sub(meta.detail as u16) as u32;
    data + (flags & tcp_flag::SYN != 0) as u32 + (flags & tcp_flag::FIN != 0) as u32
}

/// Bytes of a frame in front of what an MTU counts: the Ethernet header and up to two VLAN tags.
#[must_use]
pub fn link_header(frame: &[u8]) -> usize {
    let is_tag = |at: usize| {
        let ethertype = frame.get(at..at + 2);
        ethertype.is_some_and(|bytes| ethertype::is_tag(u16::from_be_bytes([bytes[0], bytes[1]])))
    };
    match (is_tag(12), is_tag(16)) {
        (false, _) => 14,
        (true, false) => 18,
        (true, true) => 22,
    }
}
