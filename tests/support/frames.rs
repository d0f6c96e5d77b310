//! Frames built byte by byte, on purpose without the crate's own checksums and makers: what the parser is tested with must
//! not come from what is tested. Every length and every checksum can be wrong.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

/// Ethernet addresses of the two ends of every frame here.
pub const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
pub const DESTINATION_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
/// IPv4 ends.
pub const A4: [u8; 4] = [10, 0, 0, 5];
pub const B4: [u8; 4] = [192, 0, 2, 7];
/// IPv6 ends.
pub const A6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x05];
pub const B6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x07];
/// A link-local address.
pub const LINK: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// RFC 1071, word by word.
pub fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An Ethernet frame.
pub fn ethernet(ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = DESTINATION_MAC.to_vec();
    frame.extend(SOURCE_MAC);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame
}

/// The frame with one more outermost VLAN tag.
pub fn tagged(tpid: u16, tci: u16, frame: &[u8]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend(tpid.to_be_bytes());
    out.extend(tci.to_be_bytes());
    out.extend(&frame[12..]);
    out
}

/// The frame filled up with `fill` to `len` bytes.
pub fn padded(mut frame: Vec<u8>, len: usize, fill: u8) -> Vec<u8> {
    frame.resize(frame.len().max(len), fill);
    frame
}

/// Bytes of a frame replaced.
pub fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// An IPv4 packet, to be varied.
#[derive(Clone)]
pub struct Ip4 {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub protocol: u8,
    pub ttl: u8,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
}

impl Ip4 {
    pub fn new(protocol: u8) -> Self {
        Self {
            source: A4,
            destination: B4,
            protocol,
            ttl: 64,
            fragment: 0x4000,
            options: vec![],
        }
    }

    /// The packet around a payload.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let mut ip = vec![0x40 | (header_len / 4) as u8, 0];
        ip.extend(((header_len + payload.len()) as u16).to_be_bytes());
        ip.extend([0x12, 0x34]);
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol, 0, 0]);
        ip.extend(self.source);
        ip.extend(self.destination);
        ip.extend(&self.options);
        let mut packet = fix_ipv4_header(ip);
        packet.extend(payload);
        packet
    }

    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(0x0800, &self.packet(payload))
    }

    /// The pseudo-header's words as bytes.
    pub fn pseudo(&self, length: usize) -> Vec<u8> {
        let mut pseudo = [self.source, self.destination].concat();
        pseudo.extend([0, self.protocol]);
        pseudo.extend((length as u16).to_be_bytes());
        pseudo
    }
}

/// The header checksum put right; `ip` starts with an IPv4 header.
pub fn fix_ipv4_header(mut ip: Vec<u8>) -> Vec<u8> {
    let header_len = (usize::from(ip[0] & 0x0f) * 4).min(ip.len());
    ip[10..12].fill(0);
    let checksum = !ones_sum(&ip[..header_len]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip
}

/// An untagged IPv4 frame whose header checksum is put right after a change.
pub fn fixed(frame: Vec<u8>) -> Vec<u8> {
    let ip = fix_ipv4_header(frame[14..].to_vec());
    [frame[..14].to_vec(), ip].concat()
}

/// An IPv6 packet, to be varied.
#[derive(Clone)]
pub struct Ip6 {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub hop_limit: u8,
    /// Protocol of the L4 header.
    pub protocol: u8,
    /// Extension headers in order: their own number, and their bytes with whatever stands in the first (next header).
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Ip6 {
    pub fn new(protocol: u8) -> Self {
        Self {
            source: A6,
            destination: B6,
            hop_limit: 64,
            protocol,
            extensions: vec![],
        }
    }

    pub fn extension(mut self, number: u8, bytes: &[u8]) -> Self {
        self.extensions.push((number, bytes.to_vec()));
        self
    }

    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut chain = vec![];
        for (place, (_, bytes)) in self.extensions.iter().enumerate() {
            let next = self
                .extensions
                .get(place + 1)
                .map_or(self.protocol, |(number, _)| *number);
            chain.push(next);
            chain.extend(&bytes[1..]);
        }
        chain.extend(payload);
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend((chain.len() as u16).to_be_bytes());
        ip.push(
            self.extensions
                .first()
                .map_or(self.protocol, |(number, _)| *number),
        );
        ip.push(self.hop_limit);
        ip.extend(self.source);
        ip.extend(self.destination);
        ip.extend(chain);
        ip
    }

    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(0x86dd, &self.packet(payload))
    }

    pub fn pseudo(&self, length: usize) -> Vec<u8> {
        let mut pseudo = [self.source, self.destination].concat();
        pseudo.extend((length as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, self.protocol]);
        pseudo
    }
}

/// L4 bytes with the checksum at `at` put right over a pseudo-header.
pub fn summed(pseudo: &[u8], mut l4: Vec<u8>, at: usize) -> Vec<u8> {
    l4[at..at + 2].fill(0);
    let checksum = !ones_sum(&[pseudo, &l4].concat());
    l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    l4
}

/// A TCP segment without checksum.
pub fn tcp(ports: (u16, u16), flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut tcp = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    tcp.extend(1000_u32.to_be_bytes());
    tcp.extend(2000_u32.to_be_bytes());
    tcp.extend([(((20 + options.len()) / 4) as u8) << 4, flags]);
    tcp.extend(512_u16.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(options);
    tcp.extend(payload);
    tcp
}

/// A UDP datagram without checksum.
pub fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut udp = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    udp.extend((8 + payload.len() as u16).to_be_bytes());
    udp.extend([0; 2]);
    udp.extend(payload);
    udp
}

/// An ICMP or ICMPv6 message without checksum.
pub fn icmp(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0];
    icmp.extend(rest);
    icmp.extend(body);
    icmp
}

pub fn tcp4(ports: (u16, u16), flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let ip = Ip4::new(6);
    let l4 = tcp(ports, flags, options, payload);
    ip.frame(&summed(&ip.pseudo(l4.len()), l4, 16))
}

pub fn udp4(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let ip = Ip4::new(17);
    let l4 = udp(ports, payload);
    ip.frame(&summed(&ip.pseudo(l4.len()), l4, 6))
}

pub fn icmp4(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    Ip4::new(1).frame(&summed(&[], icmp(kind, code, rest, body), 2))
}

/// L4 bytes in IPv6 with their checksum put right.
pub fn over6(ip: &Ip6, l4: Vec<u8>, at: usize) -> Vec<u8> {
    ip.frame(&summed(&ip.pseudo(l4.len()), l4, at))
}

pub fn tcp6(ports: (u16, u16), flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    over6(&Ip6::new(6), tcp(ports, flags, options, payload), 16)
}

pub fn udp6(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    over6(&Ip6::new(17), udp(ports, payload), 6)
}

pub fn icmp6(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    over6(&Ip6::new(58), icmp(kind, code, rest, body), 2)
}

/// An ARP packet whose sender is `sender`.
pub fn arp(operation: u16, sender: [u8; 6]) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4];
    arp.extend(operation.to_be_bytes());
    arp.extend(sender);
    arp.extend(A4);
    arp.extend([0; 6]);
    arp.extend(B4);
    ethernet(0x0806, &arp)
}

/// A valid neighbour solicitation.
pub fn neighbour_solicitation() -> Vec<u8> {
    let mut ip = Ip6::new(58);
    (ip.source, ip.destination, ip.hop_limit) = (LINK, solicited_node(B6), 255);
    let body = [B6.to_vec(), vec![1, 1], SOURCE_MAC.to_vec()].concat();
    over6(&ip, icmp(135, 0, [0; 4], &body), 2)
}

pub fn solicited_node(address: [u8; 16]) -> [u8; 16] {
    let mut node = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    node[13..].copy_from_slice(&address[13..]);
    node
}

/// Hop-by-hop options with a router alert (RFC 2711) and PadN.
pub const ROUTER_ALERT: [u8; 8] = [0, 0, 5, 2, 0, 0, 1, 0];

/// A valid MLDv2 report.
pub fn mld_report() -> Vec<u8> {
    let mut ip = Ip6::new(58).extension(0, &ROUTER_ALERT);
    (ip.source, ip.hop_limit) = (LINK, 1);
    ip.destination = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];
    let record = [&[4, 0, 0, 0][..], &ALL_NODES].concat();
    over6(&ip, icmp(143, 0, [0, 0, 0, 1], &record), 2)
}
