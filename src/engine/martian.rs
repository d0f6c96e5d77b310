//! Addresses that no packet on a link between networks can honestly have.

use crate::packet::PacketMeta;

/// Is the source one that nobody has, or the destination one that is nowhere on a link? Asked about the first packet of a
/// flow: none of these makes a session. (RFC 1812, section 5.3.7; RFC 6890; RFC 4291, sections 2.5.2, 2.5.3 and 2.7.)
#[inline]
pub(super) fn is_martian(meta: &PacketMeta) -> bool {
    // A packet to its own sender: the LAND attack.
    if meta.source == meta.destination {
        return true;
    }
    if meta.has(PacketMeta::IPV4) {
        let [s, d] = [&meta.source, &meta.destination].map(|a| u128::from_be_bytes(*a) as u32);
        let (s_first, d_first) = (s >> 24, d >> 24);
        if s == 0 {
            // "This host", before it has an address: to all hosts of its link only (DHCP, RFC 2131; IGMP, RFC 3376).
            return !(d == u32::MAX || d_first & 0xf0 == 224);
        }
        matches!(s_first, 0 | 127) || s == u32::MAX || s_first & 0xf0 == 224 || matches!(d_first, 0 | 127)
    } else {
        const LOOPBACK: [u8; 16] = 1_u128.to_be_bytes();
        let is_host = |address: &[u8; 16]| *address != [0; 16] && *address != LOOPBACK;
        // Neighbour discovery and MLD, which an unspecified source may send, never come here.
        !is_host(&meta.source) || meta.source[0] == 0xff || !is_host(&meta.destination)
    }
}
