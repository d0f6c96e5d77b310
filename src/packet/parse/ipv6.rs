//! IPv6 and its extension headers (RFC 8200).

use super::fragment::is_tiny;
use super::{
    ChecksumStatus, Datagram, Frame, Malformed, PacketKind, PacketMeta, Sum, chunk, icmp, l4, protocol,
};

/// The fixed header, in bytes.
const HEADER: usize = 40;
/// Extension headers that are looked through. Real packets have one or two; each costs time that the sender chooses
/// (RFC 8504, section 5.3, lets a node set such limits).
const MAX_EXTENSIONS: usize = 8;

/// Next-header values of extension headers that hide an L4 header. ESP and "no next header" end the walk like any
/// other protocol.
mod next {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
}

/// What the walk over the extension headers saw.
struct Walk {
    protocol: u8,
    /// Where the walk stands in the packet, in bytes from the IPv6 header.
    offset: usize,
    /// Extension headers seen.
    headers: usize,
    /// What it means that the packet ends inside of a header.
    cut: Malformed,
    router_alert: bool,
    fragment_header: bool,
    /// An unfinished packet: stopped behind this fragment header.
    fragment: Option<Fragment>,
}

/// A fragment header's fields.
#[derive(Clone, Copy)]
struct Fragment {
    offset: usize,
    more: bool,
}

/// Any IPv6 packet.
pub(super) fn ipv6(frame: &Frame<'_>, meta: &mut PacketMeta) -> Result<PacketKind, Malformed> {
    let ip = frame
        .packet
        .first_chunk::<HEADER>()
        .ok_or(Malformed::Ipv6Header)?;
    if ip[0] >> 4 != 6 {
        return Err(Malformed::Ipv6Header);
    }
    meta.flags |= PacketMeta::IPV6;
    meta.source.copy_from_slice(&ip[8..24]);
    meta.destination.copy_from_slice(&ip[24..40]);
    meta.protocol = ip[6];
    let payload_len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    // A jumbogram says 0 here and its length in a hop-by-hop option, which then has no room (RFC 2675, section 2).
    if payload_len == 0 && ip[6] == next::HOP_BY_HOP {
        return Err(Malformed::Ipv6PayloadLength);
    }
    let packet = frame
        .packet
        .get(..HEADER + payload_len)
        .ok_or(Malformed::Ipv6PayloadLength)?;
    // IPv4 sessions and rules have their addresses in this form: it must not come from the wire.
    if is_mapped(&meta.source) || is_mapped(&meta.destination) {
        return Err(Malformed::Ipv6MappedAddress);
    }

    let walk = walk(packet, ip[6])?;
    let payload = &packet[walk.offset..];
    meta.protocol = walk.protocol;
    meta.l4_offset = u16::from(meta.l3_offset) + walk.offset as u16;
    meta.l4_len = payload.len() as u16;
    if let Some(fragment) = walk.fragment {
        let unfinished = fragment.more && payload.len() % 8 != 0;
        // The reassembled packet's payload length must fit 16 bits; the headers before the fragment header count too.
        if payload.is_empty()
            || unfinished
            || walk.offset - HEADER - 8 + fragment.offset + payload.len() > 0xffff
        {
            return Err(Malformed::Ipv6Fragment);
        }
        if fragment.offset == 0 {
            let chain = walk.behind_fragment_header(packet)?;
            meta.protocol = chain.protocol;
            if is_tiny(chain.protocol, &packet[chain.offset..]) {
                return Err(Malformed::TinyFragment);
            }
            meta.flags |= PacketMeta::FIRST_FRAGMENT;
        } else if fragment.offset == 8 && walk.protocol == protocol::TCP {
            // Its flags would be in the second fragment.
            return Err(Malformed::TinyFragment);
        }
        return Ok(PacketKind::Fragment);
    }

    let datagram = Datagram {
        payload,
        address_sum: Sum::ZERO.bytes(&ip[8..40]),
        hop_limit: ip[7],
        // Devices differ in how far they look behind extension headers.
        device: if walk.offset == HEADER {
            frame.checksum.l4()
        } else {
            ChecksumStatus::Unknown
        },
        verify: frame.verify_l4,
        router_alert: walk.router_alert,
        fragment_header: walk.fragment_header,
    };
    match walk.protocol {
        protocol::TCP => l4::tcp(&datagram, meta),
        protocol::UDP => l4::udp(&datagram, meta),
        protocol::ICMPV6 => icmp::icmpv6(&datagram, meta),
        _ => Ok(PacketKind::OtherIp),
    }
}

/// Walks the extension headers of `packet`, which ends where its payload length says, up to the L4 header, or up to where a
/// fragment's bytes begin.
fn walk(packet: &[u8], first: u8) -> Result<Walk, Malformed> {
    let walk = Walk {
        protocol: first,
        offset: HEADER,
        headers: 0,
        cut: Malformed::Ipv6Extension,
        router_alert: false,
        fragment_header: false,
        fragment: None,
    };
    walk.on(packet)
}

impl Walk {
    fn on(mut self, packet: &[u8]) -> Result<Self, Malformed> {
        loop {
            let kind = self.protocol;
            match kind {
                next::HOP_BY_HOP if self.headers != 0 => return Err(Malformed::Ipv6Extension),
                next::HOP_BY_HOP
                | next::ROUTING
                | next::FRAGMENT
                | next::AUTHENTICATION
                | next::DESTINATION_OPTIONS => {}
                _ => return Ok(self),
            }
            if self.headers == MAX_EXTENSIONS {
                return Err(Malformed::Ipv6Extension);
            }
            self.headers += 1;
            let start = chunk::<8>(packet, self.offset).ok_or(self.cut)?;
            let length = match kind {
                next::FRAGMENT => 8,
                // In words of 4 bytes, two of which do not count (RFC 4302, section 2.2).
                next::AUTHENTICATION => (usize::from(start[1]) + 2) * 4,
                _ => (usize::from(start[1]) + 1) * 8,
            };
            let header = packet.get(self.offset..self.offset + length).ok_or(self.cut)?;
            self.protocol = start[0];
            self.offset += length;
            match kind {
                next::HOP_BY_HOP => self.router_alert = options(&header[2..])?,
                next::DESTINATION_OPTIONS => {
                    options(&header[2..])?;
                }
                // Segments left: the destination is not the last one, so neither the rules nor the checksum can be asked
                // about it (RFC 8200, section 8.1; RFC 5095 forbids the general kind of it).
                next::ROUTING if start[3] != 0 => return Err(Malformed::SourceRoute),
                next::FRAGMENT => {
                    if self.fragment_header {
                        return Err(Malformed::Ipv6Extension);
                    }
                    self.fragment_header = true;
                    let field = u16::from_be_bytes([start[2], start[3]]);
                    // Offset 0 and nothing to follow: a whole packet with a useless header (RFC 6946).
                    if field & 0xfff9 != 0 {
                        self.fragment = Some(Fragment {
                            offset: usize::from(field & 0xfff8),
                            more: field & 1 != 0,
                        });
                        return Ok(self);
                    }
                }
                _ => {}
            }
        }
    }

    /// On through a first fragment, which must have all of the chain (RFC 7112).
    fn behind_fragment_header(&self, packet: &[u8]) -> Result<Self, Malformed> {
        let walk = Self {
            cut: Malformed::TinyFragment,
            fragment: None,
            ..*self
        };
        walk.on(packet)
    }
}

/// The L4 protocol of a first fragment and what it has of the L4 packet; `part` are its bytes behind the fragment header, which
/// says that `next` comes first. The parser has walked over it before.
pub(super) fn behind_fragment_header(part: &[u8], next: u8) -> Option<(u8, &[u8])> {
    let walk = Walk {
        protocol: next,
        offset: 0,
        headers: 1,
        cut: Malformed::TinyFragment,
        router_alert: false,
        fragment_header: true,
        fragment: None,
    };
    let walk = walk.on(part).ok()?;
    Some((walk.protocol, part.get(walk.offset..)?))
}

/// Options of a hop-by-hop or destination options header (RFC 8200, section 4.2). Is a router alert among them?
fn options(mut options: &[u8]) -> Result<bool, Malformed> {
    let mut router_alert = false;
    loop {
        match *options {
            [] => return Ok(router_alert),
            // Pad1, the only one without a length.
            [0, ..] => options = &options[1..],
            // Jumbo payload (RFC 2675).
            [0xc2, ..] => return Err(Malformed::Ipv6PayloadLength),
            [kind, length, ..] => {
                router_alert |= kind == 5 && length == 2;
                options = options
                    .get(2 + usize::from(length)..)
                    .ok_or(Malformed::Ipv6Extension)?;
            }
            [_] => return Err(Malformed::Ipv6Extension),
        }
    }
}

/// `::ffff:0:0/96`?
fn is_mapped(address: &[u8; 16]) -> bool {
    address[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
}

/// Protocol and L4 header of a packet that may be cut anywhere behind its L4 header's first 8 bytes. `None`: there is none, or
/// only a later fragment's.
pub(super) fn embedded(packet: &[u8]) -> Option<(u8, &[u8])> {
    let ip = chunk::<HEADER>(packet, 0)?;
    let walk = walk(packet, ip[6]).ok()?;
    let walk = match &walk.fragment {
        None => walk,
        Some(fragment) if fragment.offset == 0 => walk.behind_fragment_header(packet).ok()?,
        Some(_) => return None,
    };
    let l4 = packet.get(walk.offset..)?;
    Some((walk.protocol, l4))
}

/// Does an ICMPv6 error's body hold the header of the packet that it is about and the first 8 bytes behind it, or all
/// there was (RFC 4443, section 2.4(c))?
pub(super) fn is_embedded(packet: &[u8]) -> bool {
    let Some(ip) = chunk::<HEADER>(packet, 0) else {
        return false;
    };
    let payload_len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    ip[0] >> 4 == 6 && packet.len() - HEADER >= payload_len.min(8)
}
