//! The packet that an ICMP or ICMPv6 error carries (RFC 792; RFC 1812, section 4.3.2.3; RFC 4443, section 2.4): its
//! addresses and ports say which flow the error is about.

use super::{PacketKind, PacketMeta, chunk, ipv6, l4, mapped, protocol};

/// What is left of the packet that caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// As if it had come by itself, by the port and in the VLANs of the error: kind, addresses, ports, protocol, ICMP type
    /// and code; where the inner L4 header starts in the error's frame. Lengths are not set: the packet may be cut anywhere behind its first 8 bytes.
    pub meta: PacketMeta,
    /// The sequence number of TCP or of an echo; otherwise 0.
    pub sequence: u32,
}

/// The packet inside of an error, whose metadata are `meta`. `None`: there is none that a session could know: a later
/// fragment, an error about an error, a header that is cut or makes no sense.
#[must_use]
pub fn parse_embedded(meta: &PacketMeta, frame: &[u8]) -> Option<Embedded> {
    if meta.kind != PacketKind::IcmpError {
        return None;
    }
    let start = usize::from(meta.l4_offset);
    let packet = frame.get(start + 8..start + usize::from(meta.l4_len))?;
    let mut inner = PacketMeta {
        vlan: meta.vlan,
        ingress: meta.ingress,
        ..PacketMeta::default()
    };
    let l4 = if meta.has(PacketMeta::IPV4) {
        let ip = chunk::<20>(packet, 0)?;
        // A later fragment has no ports.
        if u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff != 0 {
            return None;
        }
        inner.flags = PacketMeta::IPV4;
        inner.source = mapped([ip[12], ip[13], ip[14], ip[15]]);
        inner.destination = mapped([ip[16], ip[17], ip[18], ip[19]]);
        inner.protocol = ip[9];
        packet.get(usize::from(ip[0] & 0x0f) * 4..)?
    } else {
        let (ip, l4) = ipv6::embedded(packet)?;
        inner.flags = PacketMeta::IPV6;
        inner.source.copy_from_slice(packet.get(8..24)?);
        inner.destination.copy_from_slice(packet.get(24..40)?);
        inner.protocol = ip;
        l4
    };
    // It goes on to the end of the error.
    inner.l4_offset = meta.l4_offset + meta.l4_len - l4.len() as u16;
    let is_v4 = meta.has(PacketMeta::IPV4);
    let mut sequence = 0;
    inner.kind = match (inner.protocol, is_v4) {
        (protocol::TCP, _) => {
            let tcp = chunk::<8>(l4, 0)?;
            l4::ports(&mut inner, tcp);
            sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            PacketKind::Tcp
        }
        (protocol::UDP, _) => {
            l4::ports(&mut inner, chunk::<8>(l4, 0)?);
            PacketKind::Udp
        }
        (protocol::ICMP, true) | (protocol::ICMPV6, false) => {
            let icmp = chunk::<8>(l4, 0)?;
            inner.tcp_flags_or_icmp_type = icmp[0];
            inner.detail = icmp[1];
            match (is_v4, icmp[0], icmp[1]) {
                (true, 0 | 8, 0) | (false, 128 | 129, 0) => {
                    inner.source_port = u16::from_be_bytes([icmp[4], icmp[5]]);
                    inner.destination_port = inner.source_port;
                    sequence = u32::from(u16::from_be_bytes([icmp[6], icmp[7]]));
                    PacketKind::Echo
                }
                // No error is about an error (RFC 1122, section 3.2.2; RFC 4443, section 2.4(e.1)).
                (true, 3 | 4 | 5 | 11 | 12, _) | (false, 0..=127, _) => return None,
                _ => PacketKind::Icmp,
            }
        }
        _ => PacketKind::OtherIp,
    };
    Some(Embedded {
        meta: inner,
        sequence,
    })
}

/// May an error of this type pass to the end that it is for? Unreachable, time exceeded, parameter problem, packet too big
/// (RFC 4890, section 4.3.1). Not source quench, which nobody may send (RFC 6633), nor redirects, which are for a link's own
/// routers, nor types of ICMPv6 that nobody has given a meaning.
#[must_use]
pub const fn may_relate(meta: &PacketMeta) -> bool {
    if meta.has(PacketMeta::IPV4) {
        matches!(meta.icmp_type(), 3 | 11 | 12)
    } else {
        matches!(meta.icmp_type(), 1..=4)
    }
}
