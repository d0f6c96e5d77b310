//! ICMP (RFC 792), ICMPv6 (RFC 4443), neighbour discovery (RFC 4861) and MLD (RFC 2710, RFC 3810).

use super::{ChecksumStatus, Datagram, Malformed, PacketKind, PacketMeta, Sum, chunk, ipv4, ipv6, protocol};

/// A header, in bytes: type, code, checksum and the four bytes that every type in use has.
const HEADER: usize = 8;

/// Type and code into the metadata; an echo's identifier as both ports.
fn header<'a>(datagram: &Datagram<'a>, meta: &mut PacketMeta) -> Result<&'a [u8; HEADER], Malformed> {
    let icmp = datagram
        .payload
        .first_chunk::<HEADER>()
        .ok_or(Malformed::IcmpTruncated)?;
    meta.tcp_flags_or_icmp_type = icmp[0];
    meta.detail = icmp[1];
    Ok(icmp)
}

/// An echo's identifier stands for both ports (RFC 5508, section 3.1, does the same).
fn echo(icmp: &[u8; HEADER], meta: &mut PacketMeta) -> PacketKind {
    let identifier = u16::from_be_bytes([icmp[4], icmp[5]]);
    meta.source_port = identifier;
    meta.destination_port = identifier;
    PacketKind::Echo
}

/// ICMP for IPv4.
pub(super) fn icmp(datagram: &Datagram<'_>, meta: &mut PacketMeta) -> Result<PacketKind, Malformed> {
    let icmp = header(datagram, meta)?;
    // Summed here whatever the device said: many a driver says "good" of what its device cannot check.
    if datagram.verify && !Sum::ZERO.bytes(datagram.payload).is_valid() {
        return Ok(PacketKind::BadChecksum);
    }
    match icmp[0] {
        // Echo reply and request. Another code than 0 is no error (RFC 792 gives it no meaning), but no echo either.
        0 | 8 if icmp[1] == 0 => Ok(echo(icmp, meta)),
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        3 | 4 | 5 | 11 | 12 => {
            if ipv4::is_embedded(&datagram.payload[HEADER..]) {
                Ok(PacketKind::IcmpError)
            } else {
                Err(Malformed::IcmpErrorPacket)
            }
        }
        _ => Ok(PacketKind::Icmp),
    }
}

/// ICMPv6, neighbour discovery and MLD.
pub(super) fn icmpv6(datagram: &Datagram<'_>, meta: &mut PacketMeta) -> Result<PacketKind, Malformed> {
    let icmp = header(datagram, meta)?;
    let summed = Datagram {
        device: ChecksumStatus::Unknown,
        ..*datagram
    };
    if !summed.checksum_holds(protocol::ICMPV6, datagram.payload) {
        return Ok(PacketKind::BadChecksum);
    }
    match icmp[0] {
        // The high bit tells errors from information (RFC 4443, section 2.1).
        0..=127 => {
            if ipv6::is_embedded(&datagram.payload[HEADER..]) {
                Ok(PacketKind::IcmpError)
            } else {
                Err(Malformed::IcmpErrorPacket)
            }
        }
        128 | 129 if icmp[1] == 0 => Ok(echo(icmp, meta)),
        133..=137 => match is_valid_discovery(datagram, meta) {
            true => Ok(PacketKind::NeighbourDiscovery),
            false => Err(Malformed::NeighbourDiscovery),
        },
        130 | 131 | 132 | 143 => match is_valid_mld(datagram, meta) {
            true => Ok(PacketKind::NeighbourDiscovery),
            false => Err(Malformed::Mld),
        },
        _ => Ok(PacketKind::Icmp),
    }
}

/// `fe80::/10`.
fn is_link_local(address: &[u8]) -> bool {
    matches!(address, [0xfe, second, ..] if second & 0xc0 == 0x80)
}

/// `ff00::/8`.
fn is_multicast(address: &[u8]) -> bool {
    matches!(address, [0xff, ..])
}

/// `ff02::1:ff00:0/104`, where a solicitation for an address goes (RFC 4291, section 2.7.1).
fn is_solicited_node(address: &[u8; 16]) -> bool {
    address[..13] == [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]
}

/// The validity rules of RFC 4861, sections 6.1.1, 6.1.2, 7.1.1, 7.1.2 and 8.1; and no fragment header (RFC 6980).
fn is_valid_discovery(datagram: &Datagram<'_>, meta: &PacketMeta) -> bool {
    const ROUTER_SOLICITATION: u8 = 133;
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const NEIGHBOUR_SOLICITATION: u8 = 135;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    let (kind, code, message) = (meta.icmp_type(), meta.detail, datagram.payload);
    // The hop limit proves that no router has forwarded it.
    if datagram.hop_limit != 255 || code != 0 || datagram.fragment_header {
        return false;
    }
    let fixed = match kind {
        ROUTER_SOLICITATION => 8,
        ROUTER_ADVERTISEMENT => 16,
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => 24,
        _ => 40,
    };
    let Some(options) = message.get(fixed..) else {
        return false;
    };
    let Some(has_source_link_address) = discovery_options(options) else {
        return false;
    };
    let from_nobody = meta.source == [0; 16];
    match kind {
        ROUTER_SOLICITATION => !(from_nobody && has_source_link_address),
        ROUTER_ADVERTISEMENT => is_link_local(&meta.source),
        NEIGHBOUR_SOLICITATION => {
            !is_multicast(&message[8..24])
                && (!from_nobody || (is_solicited_node(&meta.destination) && !has_source_link_address))
        }
        NEIGHBOUR_ADVERTISEMENT => {
            let solicited_by_group = message[4] & 0x40 != 0 && is_multicast(&meta.destination);
            !is_multicast(&message[8..24]) && !solicited_by_group
        }
        // A redirect.
        _ => {
            let (target, destination) = (&message[8..24], &message[24..40]);
            is_link_local(&meta.source)
                && !is_multicast(destination)
                && (is_link_local(target) || target == destination)
        }
    }
}

/// Options of a neighbour discovery message, in units of 8 bytes and none of length 0. `None`: malformed; else
/// whether the source link-layer address is among them.
fn discovery_options(mut options: &[u8]) -> Option<bool> {
    let mut source_link_address = false;
    while !options.is_empty() {
        let [kind, length] = *chunk::<2>(options, 0)?;
        source_link_address |= kind == 1;
        options = match length {
            0 => return None,
            _ => options.get(usize::from(length) * 8..)?,
        };
    }
    Some(source_link_address)
}

/// From a link-local address (a report also from `::`, RFC 3590), hop limit 1, with a router alert (RFC 2710, section 3;
/// RFC 3810, section 5), and of a length that there is.
fn is_valid_mld(datagram: &Datagram<'_>, meta: &PacketMeta) -> bool {
    const QUERY: u8 = 130;
    const REPORT_V2: u8 = 143;
    let len = datagram.payload.len();
    let (length_good, from_nobody_good) = match meta.icmp_type() {
        // MLDv1's or MLDv2's (RFC 3810, section 8.1).
        QUERY => (len == 24 || len >= 28, false),
        REPORT_V2 => (true, true),
        _ => (len >= 24, true),
    };
    let source_good = is_link_local(&meta.source) || (from_nobody_good && meta.source == [0; 16]);
    datagram.hop_limit == 1 && datagram.router_alert && source_good && length_good
}
