//! Packets that haechi makes in answer to refused ones: TCP RST, ICMP and ICMPv6 destination unreachable.

use super::PacketMeta;

/// Bytes that the longest answer takes: an ICMPv6 error of 1280 bytes (RFC 4443, section 2.4(c)) behind an Ethernet
/// header with two VLAN tags.
pub const MAX_ANSWER: usize = 14 + 8 + 1280;

/// May a refused packet be answered at all? Never in answer to a bad checksum, a RST, an ICMP error, a later
/// fragment, or anything sent to or from a group or no address (RFC 1122, section 3.2.2; RFC 4443, section 2.4(e)).
#[must_use]
pub fn may_answer(meta: &PacketMeta, frame: &[u8]) -> bool {
    let _ = (meta, frame);
    false
}

/// Writes the answer to a refused packet into `out` (of at least [`MAX_ANSWER`] bytes): a RST for TCP, an ICMP or
/// ICMPv6 unreachable for everything else. Returns its length; `None`: the packet must not be answered
/// ([`may_answer`]) or `out` is too small.
#[must_use]
pub fn refusal(meta: &PacketMeta, frame: &[u8], out: &mut [u8]) -> Option<usize> {
    let _ = (meta, frame, out);
    None
}
