//! IPv4 (RFC 791).

use super::fragment::is_tiny;
use super::{
    ChecksumStatus, Datagram, Frame, Malformed, PacketKind, PacketMeta, Sum, chunk, icmp, l4, mapped,
    protocol,
};

/// A header without options, in bytes.
const HEADER: usize = 20;

/// Options in their place: END, NO-OPERATION, or type and length (RFC 791, section 3.1).
fn options(mut options: &[u8]) -> Result<(), Malformed> {
    loop {
        match *options {
            [] | [0, ..] => return Ok(()),
            [1, ..] => options = &options[1..],
            // Loose and strict source route. Hosts and routers refuse them by default (RFC 7126, sections 4.3 and
            // 4.4), and the rules would judge the wrong destination.
            [131 | 137, ..] => return Err(Malformed::SourceRoute),
            [_, length, ..] if length >= 2 => {
                options = options.get(usize::from(length)..).ok_or(Malformed::Ipv4Options)?;
            }
            _ => return Err(Malformed::Ipv4Options),
        }
    }
}

/// Any IPv4 packet.
pub(super) fn ipv4(frame: &Frame<'_>, meta: &mut PacketMeta) -> Result<PacketKind, Malformed> {
    let ip = frame
        .packet
        .first_chunk::<HEADER>()
        .ok_or(Malformed::Ipv4Truncated)?;
    let header_len = usize::from(ip[0] & 0x0f) * 4;
    if ip[0] >> 4 != 4 || header_len < HEADER {
        return Err(Malformed::Ipv4Header);
    }
    let header = frame.packet.get(..header_len).ok_or(Malformed::Ipv4Truncated)?;
    meta.flags |= PacketMeta::IPV4;
    meta.source = mapped([ip[12], ip[13], ip[14], ip[15]]);
    meta.destination = mapped([ip[16], ip[17], ip[18], ip[19]]);
    meta.protocol = ip[9];
    // Before the lengths: they cannot be believed if it is wrong (RFC 1812, section 5.2.2).
    let header_good = match frame.checksum.ip() {
        ChecksumStatus::Good => true,
        ChecksumStatus::Bad => false,
        ChecksumStatus::Unknown => Sum::ZERO.bytes(header).is_valid(),
    };
    if !header_good {
        return Ok(PacketKind::BadChecksum);
    }
    let total_len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let payload = frame
        .packet
        .get(header_len..total_len)
        .ok_or(Malformed::Ipv4TotalLength)?;
    options(&header[HEADER..])?;
    meta.l4_offset = u16::from(meta.l3_offset) + header_len as u16;
    meta.l4_len = payload.len() as u16;

    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    if fragment & 0x3fff != 0 {
        let offset = usize::from(fragment & 0x1fff) * 8;
        let more = fragment & 0x2000 != 0;
        if offset + header_len + payload.len() > 0xffff
            || payload.is_empty()
            || (more && payload.len() % 8 != 0)
        {
            return Err(Malformed::Ipv4Fragment);
        }
        if offset == 0 {
            if is_tiny(ip[9], payload) {
                return Err(Malformed::TinyFragment);
            }
            meta.flags |= PacketMeta::FIRST_FRAGMENT;
        } else if offset == 8 && ip[9] == protocol::TCP {
            // Its flags would be in the second fragment.
            return Err(Malformed::TinyFragment);
        }
        return Ok(PacketKind::Fragment);
    }

    let datagram = Datagram {
        payload,
        address_sum: Sum::ZERO.bytes(&ip[12..20]),
        hop_limit: ip[8],
        device: frame.checksum.l4(),
        verify: frame.verify_l4,
        router_alert: false,
        fragment_header: false,
    };
    match ip[9] {
        protocol::TCP => l4::tcp(&datagram, meta),
        protocol::UDP => l4::udp(&datagram, meta),
        protocol::ICMP => icmp::icmp(&datagram, meta),
        _ => Ok(PacketKind::OtherIp),
    }
}

/// Does an ICMP error's body hold the header of the packet that it is about and the first 8 bytes behind it, or all
/// there was (RFC 792)?
pub(super) fn is_embedded(packet: &[u8]) -> bool {
    let Some(ip) = chunk::<HEADER>(packet, 0) else {
        return false;
    };
    let header_len = usize::from(ip[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    ip[0] >> 4 == 4
        && header_len >= HEADER
        && total_len >= header_len
        && packet.len() >= total_len.min(header_len + 8)
}
