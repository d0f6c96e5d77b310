//! Fragments (RFC 791, section 3.2; RFC 8200, section 4.5): which part of which datagram one is, and what a datagram is whose
//! fragments are all there.

use super::{
    ChecksumStatus, Datagram, Malformed, PacketKind, PacketMeta, Sum, chunk, icmp, ipv6, l4, protocol,
};

/// The fragment header of IPv6, in bytes.
const FRAGMENT_HEADER: usize = 8;

/// A fragment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentField {
    /// The identification: 16 bits in IPv4.
    pub id: u32,
    /// Where its bytes begin in the datagram; a multiple of 8.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
}

/// The place of a fragment with these metadata; `None`: it is none.
#[must_use]
pub fn fragment_field(meta: &PacketMeta, frame: &[u8]) -> Option<FragmentField> {
    if meta.kind != PacketKind::Fragment {
        return None;
    }
    if meta.has(PacketMeta::IPV4) {
        let ip = chunk::<20>(frame, usize::from(meta.l3_offset))?;
        let field = u16::from_be_bytes([ip[6], ip[7]]);
        return Some(FragmentField {
            id: u32::from(u16::from_be_bytes([ip[4], ip[5]])),
            offset: (field & 0x1fff) << 3,
            more: field & 0x2000 != 0,
        });
    }
    let at = usize::from(meta.l4_offset).checked_sub(FRAGMENT_HEADER)?;
    let header = chunk::<FRAGMENT_HEADER>(frame, at)?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    Some(FragmentField {
        id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        offset: field & 0xfff8,
        more: field & 1 != 0,
    })
}

/// Has a first fragment less than the whole L4 header? `payload` is what it has of it. A later fragment would decide then what
/// filters believe to have seen (RFC 1858, section 3; RFC 7112).
pub(super) fn is_tiny(protocol: u8, payload: &[u8]) -> bool {
    match protocol {
        protocol::TCP => {
            let header = payload.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
            payload.len() < header.max(20)
        }
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => payload.len() < 8,
        _ => false,
    }
}

/// What a first fragment says of its datagram, as if all of it was there: kind, ports, protocol. The lengths are the fragment's.
/// `None`: it is no first fragment, or one with a malformed header.
#[must_use]
pub fn parse_first_fragment(meta: &PacketMeta, frame: &[u8]) -> Option<PacketMeta> {
    let mut whole = *meta;
    let (_, payload) = behind(meta, frame)?;
    whole.kind = l4_header(&mut whole, payload).ok()?;
    Some(whole)
}

/// What a datagram is whose fragments are all there. `first` are the metadata of its first fragment, `frame` is that fragment's
/// frame; `total` is how many bytes all `pieces` have, which are given with where they begin. With `verify` the checksum is
/// summed over all of them.
///
/// The length is the datagram's (`l4_len` may lie outside of the frame), but an ICMP error's is the first fragment's: what it is
/// about stands there, if anywhere.
#[must_use]
pub fn parse_reassembled<'a>(
    first: &PacketMeta,
    frame: &[u8],
    total: u16,
    pieces: impl Iterator<Item = (u16, &'a [u8])>,
    verify: bool,
) -> PacketMeta {
    let mut meta = *first;
    match reassembled(&mut meta, frame, total, pieces, verify) {
        Ok(kind) => meta.kind = kind,
        Err(malformed) => {
            meta.kind = PacketKind::Malformed;
            meta.detail = malformed as u8;
        }
    }
    meta
}

/// A first fragment's L4 protocol, and what it has of the L4 packet. (In IPv6 more extension headers may stand between.)
fn behind<'a>(meta: &PacketMeta, frame: &'a [u8]) -> Option<(u8, &'a [u8])> {
    if meta.kind != PacketKind::Fragment || !meta.has(PacketMeta::FIRST_FRAGMENT) {
        return None;
    }
    let start = usize::from(meta.l4_offset);
    let part = frame.get(start..start + usize::from(meta.l4_len))?;
    if meta.has(PacketMeta::IPV4) {
        return Some((meta.protocol, part));
    }
    let next = *frame.get(start.checked_sub(FRAGMENT_HEADER)?)?;
    ipv6::behind_fragment_header(part, next)
}

/// The L4 header into the metadata, of a packet of which only the beginning is here.
fn l4_header(meta: &mut PacketMeta, payload: &[u8]) -> Result<PacketKind, Malformed> {
    meta.flags &= !PacketMeta::FIRST_FRAGMENT;
    let datagram = Datagram {
        payload,
        address_sum: Sum::ZERO,
        hop_limit: 0,
        device: ChecksumStatus::Unknown,
        verify: false,
        router_alert: false,
        // Neighbour discovery in fragments is discarded (RFC 6980); MLD, without its router alert, is as well.
        fragment_header: true,
    };
    match (meta.protocol, meta.has(PacketMeta::IPV4)) {
        (protocol::TCP, _) => l4::tcp(&datagram, meta),
        (protocol::UDP, _) => {
            l4::ports(meta, payload.first_chunk::<8>().ok_or(Malformed::UdpTruncated)?);
            Ok(PacketKind::Udp)
        }
        (protocol::ICMP, true) => icmp::icmp(&datagram, meta),
        (protocol::ICMPV6, false) => icmp::icmpv6(&datagram, meta),
        _ => Ok(PacketKind::OtherIp),
    }
}

fn reassembled<'a>(
    meta: &mut PacketMeta,
    frame: &[u8],
    total: u16,
    pieces: impl Iterator<Item = (u16, &'a [u8])>,
    verify: bool,
) -> Result<PacketKind, Malformed> {
    let is_v4 = meta.has(PacketMeta::IPV4);
    let (l3, start) = (usize::from(meta.l3_offset), usize::from(meta.l4_offset));
    // Each fragment was asked with its own header; what counts is the first one's.
    let (headers, too_long) = match is_v4 {
        true => (start - l3, Malformed::Ipv4Fragment),
        false => (
            (start - l3).saturating_sub(40 + FRAGMENT_HEADER),
            Malformed::Ipv6Fragment,
        ),
    };
    if headers + usize::from(total) > 0xffff {
        return Err(too_long);
    }
    let (l4_protocol, payload) = behind(meta, frame).ok_or(Malformed::TinyFragment)?;
    // The L4 header starts behind `chain` bytes of extension headers.
    let chain = meta.l4_len - payload.len() as u16;
    meta.protocol = l4_protocol;
    meta.l4_offset += chain;
    meta.l4_len = total.saturating_sub(chain);
    let length = meta.l4_len;
    let kind = l4_header(meta, payload)?;
    let addresses = match is_v4 {
        true => frame.get(l3 + 12..l3 + 20),
        false => frame.get(l3 + 8..l3 + 40),
    };
    let pseudo = |length: u16| {
        Sum::ZERO
            .bytes(addresses.unwrap_or_default())
            .pseudo(l4_protocol, u32::from(length))
    };
    let (sum, length) = match (l4_protocol, is_v4) {
        (protocol::TCP, _) | (protocol::ICMPV6, false) => (pseudo(length), length),
        (protocol::ICMP, true) => (Sum::ZERO, length),
        (protocol::UDP, _) => {
            let udp = payload.first_chunk::<8>().ok_or(Malformed::UdpTruncated)?;
            let udp_len = u16::from_be_bytes([udp[4], udp[5]]);
            // Shorter than the datagram is allowed: UDP options stand behind it (RFC 9868).
            if udp_len < 8 || udp_len > length {
                return Err(Malformed::UdpLength);
            }
            if [udp[6], udp[7]] == [0, 0] {
                // As in whole packets: allowed over IPv4, and not over IPv6 (RFC 8200, section 8.1).
                return Ok(if is_v4 || !verify {
                    kind
                } else {
                    PacketKind::BadChecksum
                });
            }
            (pseudo(udp_len), udp_len)
        }
        _ => return Ok(kind),
    };
    if verify && !with_pieces(sum, pieces, chain, chain + length).is_valid() {
        return Ok(PacketKind::BadChecksum);
    }
    if kind == PacketKind::IcmpError {
        meta.l4_len = payload.len() as u16;
    }
    Ok(kind)
}

/// With the bytes of a datagram between two places, the first of which is an even one. Fragments begin at multiples of 8.
fn with_pieces<'a>(sum: Sum, pieces: impl Iterator<Item = (u16, &'a [u8])>, from: u16, to: u16) -> Sum {
    pieces.fold(sum, |sum, (offset, bytes)| {
        let place = |at: u16| usize::from(at.saturating_sub(offset)).min(bytes.len());
        sum.bytes(bytes.get(place(from)..place(to)).unwrap_or_default())
    })
}
