//! Frames made by a library that is not ours (etherparse), and by hand where they are to be wrong.

use std::net::IpAddr;

use etherparse::PacketBuilder;

use super::Host;

/// From where to where: MAC and IP addresses of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source and destination MAC.
    pub mac: [[u8; 6]; 2],
    /// Source and destination address, of one family.
    pub ip: [IpAddr; 2],
    /// TTL or hop limit.
    pub ttl: u8,
}

/// TCP flags (RFC 9293, section 3.1), as bits.
pub mod tcp {
    /// FIN
    pub const FIN: u8 = 1;
    /// SYN
    pub const SYN: u8 = 2;
    /// RST
    pub const RST: u8 = 4;
    /// PSH
    pub const PSH: u8 = 8;
    /// ACK
    pub const ACK: u8 = 16;
}

impl Ends {
    /// From host to host over IPv4.
    #[must_use]
    pub fn v4(from: &Host, to: &Host) -> Self {
        Self {
            mac: [from.mac, to.mac],
            ip: [from.v4, to.v4],
            ttl: 64,
        }
    }

    /// From host to host over IPv6.
    #[must_use]
    pub fn v6(from: &Host, to: &Host) -> Self {
        Self {
            mac: [from.mac, to.mac],
            ip: [from.v6, to.v6],
            ttl: 64,
        }
    }

    /// The other way round.
    #[must_use]
    pub fn reply(self) -> Self {
        Self {
            mac: [self.mac[1], self.mac[0]],
            ip: [self.ip[1], self.ip[0]],
            ttl: self.ttl,
        }
    }

    /// The same with another TTL or hop limit.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    fn builder(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.mac[0], self.mac[1]);
        match self.ip {
            [IpAddr::V4(from), IpAddr::V4(to)] => ethernet.ipv4(from.octets(), to.octets(), self.ttl),
            [IpAddr::V6(from), IpAddr::V6(to)] => ethernet.ipv6(from.octets(), to.octets(), self.ttl),
            _ => panic!("two families in one packet: {self:?}"),
        }
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(&self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder()
            .udp(source_port, destination_port)
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    /// A TCP segment.
    #[must_use]
    pub fn tcp(&self, ports: (u16, u16), flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let mut header = etherparse::TcpHeader::new(ports.0, ports.1, seq, 64_000);
        header.acknowledgment_number = ack;
        (header.fin, header.syn) = (flags & tcp::FIN != 0, flags & tcp::SYN != 0);
        (header.rst, header.psh) = (flags & tcp::RST != 0, flags & tcp::PSH != 0);
        header.ack = flags & tcp::ACK != 0;
        let mut frame = Vec::new();
        self.builder()
            .tcp_header(header)
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    /// An echo request of ICMP or ICMPv6.
    #[must_use]
    pub fn echo_request(&self, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = self.builder();
        match self.ip[0] {
            IpAddr::V4(_) => builder.icmpv4_echo_request(id, seq).write(&mut frame, payload),
            IpAddr::V6(_) => builder.icmpv6_echo_request(id, seq).write(&mut frame, payload),
        }
        .unwrap();
        frame
    }

    /// A frame of any EtherType.
    #[must_use]
    pub fn ethernet(&self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        [&self.mac[1][..], &self.mac[0], &ether_type.to_be_bytes(), payload].concat()
    }
}

/// 802.1Q.
pub const DOT1Q: u16 = 0x8100;
/// 802.1ad, the service tag.
pub const DOT1AD: u16 = 0x88a8;

/// The frame with these tags (TPID and TCI) put before its EtherType, outer first.
#[must_use]
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    for (tpid, tci) in tags {
        out.extend_from_slice(&tpid.to_be_bytes());
        out.extend_from_slice(&tci.to_be_bytes());
    }
    out.extend_from_slice(&frame[12..]);
    out
}

/// Small deterministic random numbers (SplitMix64): a test prints its seed, and the seed repeats the test.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed from the environment variable `HAECHI_SEED`, or a new one; printed, so that a failure can be repeated.
    #[must_use]
    pub fn seeded(test: &str) -> Self {
        let seed = match std::env::var("HAECHI_SEED") {
            Ok(seed) => seed.parse().expect("HAECHI_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_nanos() as u64,
        };
        println!("{test}: HAECHI_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// True in `n` of `of` cases.
    pub fn chance(&mut self, n: usize, of: usize) -> bool {
        self.below(of) < n
    }

    /// A few random bytes of the frame changed, cut off or put on; at least one of these.
    #[must_use]
    pub fn mutate(&mut self, frame: &[u8], longest: usize) -> Vec<u8> {
        let mut out = frame.to_vec();
        for _ in 0..=self.below(3) {
            match self.below(4) {
                0 => out.truncate(14 + self.below(out.len().max(15) - 14)),
                1 => out.extend((0..self.below(64)).map(|_| 0xa5)),
                // The headers are where a parser looks.
                2 => {
                    let at = self.below(out.len().min(74));
                    out[at] = self.next() as u8;
                }
                _ => {
                    let at = self.below(out.len());
                    out[at] ^= 1 << self.below(8);
                }
            }
        }
        out.truncate(longest);
        out
    }
}
