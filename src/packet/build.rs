//! Packets that haechi makes: in answer to refused ones TCP RST, ICMP and ICMPv6 destination unreachable; for sessions that
//! idled out TCP RST; and the segments of a handshake that it proxies (SYN cookies).
//!
//! A node that forwards at layer 2 has no address of its own, so the answer comes from the refused destination: the
//! refused packet's MAC addresses, IP addresses and ports swapped, its VLAN tags as they came, out of the port that it came
//! in by. The caller brings the buffer; nothing is allocated.

use super::checksum::Sum;
use super::parse::protocol;
use super::view::{Tcp, segment_len, tcp_flag};
use super::{LinkHeader, PacketKind, PacketMeta};

/// Bytes that the longest answer takes: an ICMPv6 error of 1280 bytes (RFC 4443, section 2.4(c)) behind an Ethernet
/// header with two VLAN tags.
pub const MAX_ANSWER: usize = 14 + 8 + MAX_ICMPV6_ERROR;
/// The minimum IPv6 MTU, which no ICMPv6 error may exceed (RFC 4443, section 2.4(c)).
const MAX_ICMPV6_ERROR: usize = 1280;
/// What an ICMP error should not exceed (RFC 1812, section 4.3.2.3).
const MAX_ICMP_ERROR: usize = 576;
/// The shortest frame, without FCS (IEEE 802.3): shorter answers are padded, because not every device does it.
const MIN_FRAME: usize = 60;
/// TTL and hop limit of what haechi makes (IANA, IP parameters: the recommended default).
const TTL: u8 = 64;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;

/// Reverse ARP (RFC 903): a frame that no host answers, by which virtual machines, too, say where they have moved to.
const RARP: u16 = 0x8035;

/// Writes a frame in the name of `station`, to everybody on its VLAN: every switch that it crosses learns where the station is. Returns
/// its length; `None`: `out` is too short.
#[must_use]
pub fn announcement(station: &LinkHeader, out: &mut [u8]) -> Option<usize> {
    let at = station.to_all().write_of(RARP, out)?;
    let mut body = [0; 28];
    // Ethernet and IPv4, whose addresses have 6 and 4 bytes; "what is my address?" (operation 3).
    body[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 3]);
    body[8..14].copy_from_slice(&station.source());
    body[18..24].copy_from_slice(&station.source());
    let length = (at + body.len()).max(MIN_FRAME);
    let frame = out.get_mut(at..length)?;
    frame.fill(0);
    frame[..body.len()].copy_from_slice(&body);
    Some(length)
}

/// Where a packet that is made of another one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To its source, as if its destination had answered.
    Back,
    /// To its destination, as if its source had sent it.
    On,
}

/// A TCP segment without data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bare {
    /// The flags byte.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The window field as it is to stand.
    pub window: u16,
    /// Option: maximum segment size in bytes.
    pub mss: Option<u16>,
    /// Option: window scale.
    pub scale: Option<u8>,
    /// Option: selective acknowledgements are permitted.
    pub sack_permitted: bool,
    /// Option: time stamp, and the one that is echoed.
    pub timestamps: Option<(u32, u32)>,
}

impl Bare {
    /// The longest header: all options (4 + 4 + 12 bytes).
    const MAX: usize = TCP_HEADER + 20;

    /// The options, in the order that Linux has them, each in whole words: 32-bit words, the first byte in the lowest bits, and
    /// how many bytes of them count; the rest is 0.
    #[inline(always)]
    pub(super) fn options(&self) -> ([u32; 5], usize) {
        let (mut words, mut count) = ([0; 5], 0);
        let mut put = |word: u32| {
            if let Some(room) = words.get_mut(count) {
                *room = word;
                count += 1;
            }
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(u32::from_le_bytes([2, 4, high, low]));
        }
        match (self.sack_permitted, self.timestamps) {
            (true, Some(_)) => put(u32::from_le_bytes([4, 2, 8, 10])),
            (true, None) => put(u32::from_le_bytes([1, 1, 4, 2])),
            (false, Some(_)) => put(u32::from_le_bytes([1, 1, 8, 10])),
            (false, None) => {}
        }
        if let Some((own, echoed)) = self.timestamps {
            put(own.to_be());
            put(echoed.to_be());
        }
        if let Some(scale) = self.scale {
            put(u32::from_le_bytes([1, 3, 3, scale]));
        }
        (words, 4 * count)
    }

    /// The header with a checksum of 0, and its length.
    fn header(&self, source_port: u16, destination_port: u16) -> ([u8; Self::MAX], usize) {
        let mut tcp = [0; Self::MAX];
        tcp[0..2].copy_from_slice(&source_port.to_be_bytes());
        tcp[2..4].copy_from_slice(&destination_port.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        let (options, length) = self.options();
        for (room, word) in tcp[TCP_HEADER..].chunks_exact_mut(4).zip(options) {
            room.copy_from_slice(&word.to_le_bytes());
        }
        let end = TCP_HEADER + length;
        tcp[12] = (end as u8 / 4) << 4;
        (tcp, end)
    }
}

/// Writes a segment between the two ends of a TCP packet into `out` (of at least [`MAX_ANSWER`] bytes), with that packet's
/// VLAN tags. Returns its length; `None`: `out` is too small.
#[must_use]
pub fn bare(meta: &PacketMeta, frame: &[u8], way: Way, segment: &Bare, out: &mut [u8]) -> Option<usize> {
    let (source_port, destination_port) = match way {
        Way::Back => (meta.destination_port, meta.source_port),
        Way::On => (meta.source_port, meta.destination_port),
    };
    let (mut tcp, length) = segment.header(source_port, destination_port);
    let tcp = tcp.get_mut(..length)?;
    let checksum = pseudo_sum(&meta.source, &meta.destination, protocol::TCP, length)
        .bytes(tcp)
        .checksum();
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    let at = headers(meta, frame, out, way, protocol::TCP, 0, length)?;
    let end = at + length;
    out.get_mut(at..end)?.copy_from_slice(tcp);
    pad(out, end)
}

/// Type and code of an ICMP or ICMPv6 "destination unreachable".
///
/// UDP gets "port unreachable", as the default `reject` of nftables, OVS and pf: it is what an end without a listener
/// sends, so that every client knows it (Linux makes it ECONNREFUSED for a connected socket, Windows WSAECONNRESET) and goes
/// on to the next server at once. Everything else gets "communication administratively prohibited" (RFC 1812, section
/// 5.2.7.1; RFC 4443, section 3.1), which `ping` prints as "Packet filtered": there is no port to be unreachable.
const fn unreachable(meta: &PacketMeta) -> (u8, u8) {
    match (meta.has(PacketMeta::IPV4), meta.protocol) {
        (true, protocol::UDP) => (3, 3),
        (true, _) => (3, 13),
        (false, protocol::UDP) => (1, 4),
        (false, _) => (1, 1),
    }
}

/// May a refused packet be answered at all? Never in answer to a bad checksum, a RST, an ICMP error, a later
/// fragment, or anything sent to or from a group or no single host (RFC 1122, section 3.2.2; RFC 4443, section 2.4(e)).
#[inline]
#[must_use]
pub fn may_answer(meta: &PacketMeta, frame: &[u8]) -> bool {
    let answerable_kind = match meta.kind {
        PacketKind::Tcp => meta.tcp_flags() & tcp_flag::RST == 0,
        PacketKind::Udp | PacketKind::Echo | PacketKind::OtherIp => true,
        // Timestamp, information and mask requests and their replies; of ICMP types that nobody knows, some may be
        // errors (RFC 1122, section 3.2.2.1, and Linux's icmp_send stop there too).
        PacketKind::Icmp if meta.has(PacketMeta::IPV4) => matches!(meta.icmp_type(), 0 | 8 | 13..=18),
        PacketKind::Icmp => meta.icmp_type() >= 128,
        PacketKind::Fragment => meta.has(PacketMeta::FIRST_FRAGMENT) && !is_icmp(meta.protocol),
        PacketKind::Malformed
        | PacketKind::BadChecksum
        | PacketKind::Arp
        | PacketKind::NonIp
        | PacketKind::NeighbourDiscovery
        | PacketKind::IcmpError => false,
    };
    // Bytes 6 to 11: the source; an answer to a group address would be a broadcast.
    answerable_kind
        && !meta.has(PacketMeta::GROUP)
        && frame.get(6).is_some_and(|first| first & 1 == 0)
        && is_one_host(&meta.source)
        && is_one_host(&meta.destination)
}

/// A first fragment may hide that it is an ICMP error.
const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, protocol::ICMP | protocol::ICMPV6)
}

/// Neither multicast, broadcast, unspecified, loopback nor reserved.
#[inline]
const fn is_one_host(address: &[u8; 16]) -> bool {
    let bits = u128::from_be_bytes(*address);
    if bits >> 32 == 0xffff {
        // "This network" (0/8), loopback (127/8), multicast and reserved, with the broadcast address (224/3).
        let first = (bits >> 24) as u8;
        first != 0 && first != 127 && first < 224
    } else {
        // Unspecified (::), loopback (::1), multicast (ff00::/8).
        bits > 1 && bits >> 120 != 0xff
    }
}

/// Writes the answer to a refused packet into `out` (of at least [`MAX_ANSWER`] bytes): a RST for TCP, an ICMP or
/// ICMPv6 unreachable for everything else. Returns its length; `None`: the packet must not be answered
/// ([`may_answer`]) or `out` is too small.
#[must_use]
pub fn refusal(meta: &PacketMeta, frame: &[u8], out: &mut [u8]) -> Option<usize> {
    if !may_answer(meta, frame) {
        return None;
    }
    match Tcp::of(meta, frame) {
        Some(tcp) => reset(meta, tcp, frame, out),
        None => icmp_unreachable(meta, frame, out),
    }
}

/// The RST of RFC 9293, section 3.10.7.1, as if the connection did not exist: the client gives up at once.
fn reset(meta: &PacketMeta, tcp: Tcp<'_>, frame: &[u8], out: &mut [u8]) -> Option<usize> {
    let (sequence, acknowledgment, flags) = if meta.tcp_flags() & tcp_flag::ACK != 0 {
        (tcp.acknowledgment(), 0, tcp_flag::RST)
    } else {
        let end = tcp.sequence().wrapping_add(segment_len(meta));
        (0, end, tcp_flag::RST | tcp_flag::ACK)
    };
    let segment = reset_segment(
        (meta.destination_port, meta.source_port),
        (sequence, acknowledgment, flags),
        pseudo_sum(&meta.source, &meta.destination, protocol::TCP, TCP_HEADER),
    );
    let at = headers(meta, frame, out, Way::Back, protocol::TCP, 0, TCP_HEADER)?;
    let end = at + TCP_HEADER;
    out.get_mut(at..end)?.copy_from_slice(&segment);
    pad(out, end)
}

/// A TCP header without options or data: source and destination port; sequence, acknowledgement and flags.
fn reset_segment(ports: (u16, u16), numbers: (u32, u32, u8), pseudo: Sum) -> [u8; TCP_HEADER] {
    let mut segment = [0; TCP_HEADER];
    segment[0..2].copy_from_slice(&ports.0.to_be_bytes());
    segment[2..4].copy_from_slice(&ports.1.to_be_bytes());
    segment[4..8].copy_from_slice(&numbers.0.to_be_bytes());
    segment[8..12].copy_from_slice(&numbers.1.to_be_bytes());
    segment[12] = (TCP_HEADER as u8 / 4) << 4;
    segment[13] = numbers.2;
    let checksum = pseudo.bytes(&segment).checksum();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// A RST that haechi sends in the place of one end of a connection, without a packet to answer.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    /// The link header of a packet that went the same way.
    pub link: LinkHeader,
    /// Are both addresses IPv4-mapped ones?
    pub is_ipv4: bool,
    /// Address and port of the end that seems to send it.
    pub source: ([u8; 16], u16),
    /// Address and port of the end that gets it.
    pub destination: ([u8; 16], u16),
    /// What its receiver expects next.
    pub sequence: u32,
    /// What its receiver sent last, if that is known: then it has an ACK, too.
    pub acknowledgment: Option<u32>,
}

impl Reset {
    /// Bytes of the longest frame.
    pub const MAX_FRAME: usize = LinkHeader::MAX + IPV6_HEADER + TCP_HEADER;
}

/// Writes a RST into `out` (of at least [`Reset::MAX_FRAME`] bytes). Returns its length; `None`: `out` is too small.
#[must_use]
pub fn timeout_reset(reset: &Reset, out: &mut [u8]) -> Option<usize> {
    let ((source, source_port), (destination, destination_port)) = (reset.source, reset.destination);
    let (acknowledgment, flags) = match reset.acknowledgment {
        Some(acknowledgment) => (acknowledgment, tcp_flag::RST | tcp_flag::ACK),
        None => (0, tcp_flag::RST),
    };
    let segment = reset_segment(
        (source_port, destination_port),
        (reset.sequence, acknowledgment, flags),
        pseudo_sum(&source, &destination, protocol::TCP, TCP_HEADER),
    );
    let l3 = reset.link.write(reset.is_ipv4, out)?;
    let l4 = ip_header(
        out.get_mut(l3..)?,
        reset.is_ipv4,
        [&source, &destination],
        (protocol::TCP, 0, TCP_HEADER),
        TTL,
    )?;
    let (at, end) = (l3 + l4, l3 + l4 + TCP_HEADER);
    out.get_mut(at..end)?.copy_from_slice(&segment);
    pad(out, end)
}

/// Destination unreachable (RFC 792; RFC 4443, section 3.1) with as much of the refused packet as fits.
fn icmp_unreachable(meta: &PacketMeta, frame: &[u8], out: &mut [u8]) -> Option<usize> {
    // Internetwork control, as RFC 1812, section 4.3.2.5, wants of ICMPv4 errors.
    let (room, protocol, tos) = if meta.has(PacketMeta::IPV4) {
        (MAX_ICMP_ERROR - IPV4_HEADER - ICMP_HEADER, protocol::ICMP, 0xc0)
    } else {
        (MAX_ICMPV6_ERROR - IPV6_HEADER - ICMP_HEADER, protocol::ICMPV6, 0)
    };
    let packet_end = usize::from(meta.l4_offset) + usize::from(meta.l4_len);
    let refused = frame.get(usize::from(meta.l3_offset)..packet_end)?;
    let quoted = &refused[..refused.len().min(room)];
    let length = ICMP_HEADER + quoted.len();
    let at = headers(meta, frame, out, Way::Back, protocol, tos, length)?;
    let end = at + length;
    let message = out.get_mut(at..end)?;
    let (header, body) = message.split_at_mut_checked(ICMP_HEADER)?;
    let (kind, code) = unreachable(meta);
    header.copy_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    body.copy_from_slice(quoted);
    let sum = if meta.has(PacketMeta::IPV4) {
        Sum::ZERO
    } else {
        pseudo_sum(&meta.source, &meta.destination, protocol, message.len())
    };
    let checksum = sum.bytes(message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    pad(out, end)
}

/// The pseudo-header's sum for an L4 packet of `length` bytes between two hosts, whichever sends it. That IPv4 addresses have a
/// prefix here changes nothing: it is one word of all ones for each of the two, which is 0 in ones-complement.
fn pseudo_sum(source: &[u8; 16], destination: &[u8; 16], protocol: u8, length: usize) -> Sum {
    Sum::ZERO
        .bytes(source)
        .bytes(destination)
        .pseudo(protocol, length as u32)
}

/// Writes Ethernet header, tags and IP header; returns where the L4 packet, of `length` bytes, starts.
fn headers(
    meta: &PacketMeta,
    frame: &[u8],
    out: &mut [u8],
    way: Way,
    protocol: u8,
    tos: u8,
    length: usize,
) -> Option<usize> {
    let l3 = usize::from(meta.l3_offset);
    // Tags and EtherType as they came.
    out.get_mut(0..l3)?.copy_from_slice(frame.get(0..l3)?);
    let ends = match way {
        Way::On => [&meta.source, &meta.destination],
        Way::Back => {
            out.get_mut(0..6)?.copy_from_slice(frame.get(6..12)?);
            out.get_mut(6..12)?.copy_from_slice(frame.get(0..6)?);
            [&meta.destination, &meta.source]
        }
    };
    let is_ipv4 = meta.has(PacketMeta::IPV4);
    let l4 = (protocol, tos, length);
    let l4 = ip_header(out.get_mut(l3..)?, is_ipv4, ends, l4, hops(meta, frame, way))?;
    Some(l3 + l4)
}

/// Writes an IP header from one end to another at the front of `out`; returns its length. `l4`: protocol, type of service and
/// bytes of what follows.
fn ip_header(
    out: &mut [u8],
    is_ipv4: bool,
    [source, destination]: [&[u8; 16]; 2],
    l4: (u8, u8, usize),
    hops: u8,
) -> Option<usize> {
    let (protocol, tos, length) = l4;
    if is_ipv4 {
        let ip = out.first_chunk_mut::<IPV4_HEADER>()?;
        *ip = [0; IPV4_HEADER];
        ip[0] = 0x45;
        ip[1] = tos;
        ip[2..4].copy_from_slice(&((IPV4_HEADER + length) as u16).to_be_bytes());
        // Don't fragment: then the identification need not be unique (RFC 6864, section 4.1).
        ip[6] = 0x40;
        ip[8] = hops;
        ip[9] = protocol;
        ip[12..16].copy_from_slice(&source[12..]);
        ip[16..20].copy_from_slice(&destination[12..]);
        let checksum = Sum::ZERO.bytes(ip).checksum();
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        Some(IPV4_HEADER)
    } else {
        let ip = out.first_chunk_mut::<IPV6_HEADER>()?;
        *ip = [0; IPV6_HEADER];
        ip[0] = 0x60;
        ip[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        ip[6] = protocol;
        ip[7] = hops;
        ip[8..24].copy_from_slice(source);
        ip[24..40].copy_from_slice(destination);
        Some(IPV6_HEADER)
    }
}

/// TTL or hop limit: what goes on in a packet's place has that packet's.
fn hops(meta: &PacketMeta, frame: &[u8], way: Way) -> u8 {
    let at = if meta.has(PacketMeta::IPV4) { 8 } else { 7 };
    let received = frame.get(usize::from(meta.l3_offset) + at);
    match (way, received) {
        (Way::On, Some(hops)) => *hops,
        _ => TTL,
    }
}

/// Zeroes up to the shortest frame's length behind an answer that ends at `end`; the frame's length.
fn pad(out: &mut [u8], end: usize) -> Option<usize> {
    if end < MIN_FRAME {
        out.get_mut(end..MIN_FRAME)?.fill(0);
    }
    Some(end.max(MIN_FRAME))
}
