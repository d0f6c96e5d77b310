//! TCP (RFC 9293) and UDP (RFC 768).

use super::{Datagram, Malformed, PacketKind, PacketMeta, be16, protocol};

/// Ports, the same for both.
pub(super) fn ports<const N: usize>(meta: &mut PacketMeta, l4: &[u8; N]) {
    meta.source_port = be16::<0, N>(l4);
    meta.destination_port = be16::<2, N>(l4);
}

/// Options in their place: END, NO-OPERATION, or kind and length (RFC 9293, section 3.1).
#[inline]
pub(super) fn tcp_options(mut options: &[u8]) -> Result<(), Malformed> {
    // What every segment of a connection with timestamps has (RFC 7323, appendix A).
    if options.len() == 12 && options[..4] == [1, 1, 8, 10] {
        return Ok(());
    }
    loop {
        match *options {
            [] | [0, ..] => return Ok(()),
            [1, ..] => options = &options[1..],
            [_, length, ..] if length >= 2 => {
                options = options.get(usize::from(length)..).ok_or(Malformed::TcpOptions)?;
            }
            _ => return Err(Malformed::TcpOptions),
        }
    }
}

/// A TCP segment.
pub(super) fn tcp(datagram: &Datagram<'_>, meta: &mut PacketMeta) -> Result<PacketKind, Malformed> {
    let tcp = datagram
        .payload
        .first_chunk::<20>()
        .ok_or(Malformed::TcpTruncated)?;
    ports(meta, tcp);
    let header_len = usize::from(tcp[12] >> 4) * 4;
    // `get` refuses an end before the start, too.
    let options = datagram
        .payload
        .get(20..header_len)
        .ok_or(Malformed::TcpDataOffset)?;
    meta.tcp_flags_or_icmp_type = tcp[13];
    meta.detail = header_len as u8;
    if !datagram.checksum_holds(protocol::TCP, datagram.payload) {
        return Ok(PacketKind::BadChecksum);
    }
    tcp_options(options)?;
    Ok(PacketKind::Tcp)
}

/// A UDP datagram.
pub(super) fn udp(datagram: &Datagram<'_>, meta: &mut PacketMeta) -> Result<PacketKind, Malformed> {
    let udp = datagram
        .payload
        .first_chunk::<8>()
        .ok_or(Malformed::UdpTruncated)?;
    ports(meta, udp);
    let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    // Shorter than the IP payload is allowed: UDP options stand behind the datagram (RFC 9868).
    let summed = datagram.payload.get(..length).ok_or(Malformed::UdpLength)?;
    if length < 8 {
        return Err(Malformed::UdpLength);
    }
    let good = if [udp[6], udp[7]] == [0, 0] {
        // No checksum: allowed over IPv4, whatever a device may say of it, and not over IPv6 (RFC 8200, section 8.1).
        meta.has(PacketMeta::IPV4) || !datagram.verify
    } else {
        datagram.checksum_holds(protocol::UDP, summed)
    };
    Ok(if good {
        PacketKind::Udp
    } else {
        PacketKind::BadChecksum
    })
}
