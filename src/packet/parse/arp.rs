//! ARP for IPv4 on Ethernet (RFC 826).

use super::Malformed;
use crate::packet::PacketKind;

/// Checks an ARP packet whose Ethernet header said that it came from `source`.
pub(super) fn arp(packet: &[u8], source: [u8; 6]) -> Result<PacketKind, Malformed> {
    let arp = packet.first_chunk::<28>().ok_or(Malformed::ArpTruncated)?;
    // Ethernet, IPv4, address lengths of both; request or reply.
    if arp[..6] != [0, 1, 0x08, 0x00, 6, 4] || arp[6] != 0 || !matches!(arp[7], 1 | 2) {
        return Err(Malformed::ArpFormat);
    }
    // A sender that names another station's address poisons the caches of all that hear it.
    if arp[8..14] != source || source[0] & 1 != 0 {
        return Err(Malformed::ArpSender);
    }
    Ok(PacketKind::Arp)
}
