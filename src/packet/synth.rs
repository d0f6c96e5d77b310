//! Frames from a description, for `explain --packet`, tests and the lab: `tcp 10.0.0.5:1234 > 192.0.2.7:80 syn`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::checksum::Sum;
use super::parse::{ethertype, protocol};
use super::view::tcp_flag;

/// The longest payload that a description may ask for: one jumbo frame's.
const MAX_PAYLOAD: usize = 9000;
/// The shortest frame, without FCS (IEEE 802.3).
const MIN_FRAME: usize = 60;

/// A packet: what stands in its headers. Lengths and checksums follow from it.
///
/// As text (see [`PacketSpec::from_str`]): `tcp 10.0.0.5:1234 > 192.0.2.7:80 syn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    /// Ethernet source; locally administered by default.
    pub source_mac: [u8; 6],
    /// Ethernet destination.
    pub destination_mac: [u8; 6],
    /// VLAN tags, outer first: 802.1Q, or 802.1ad for the outer one of two.
    pub vlans: Vec<u16>,
    /// Both addresses.
    pub addresses: Addresses,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What the IP packet carries.
    pub content: Content,
    /// The bytes behind the L4 header; what goes past 65,000 is cut off.
    pub payload: Vec<u8>,
}

/// The addresses of a packet, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4: source and destination.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6: source and destination.
    V6(Ipv6Addr, Ipv6Addr),
}

impl Addresses {
    /// `None`: of two families.
    #[must_use]
    pub const fn of(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4(source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6(source, destination)),
            _ => None,
        }
    }
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A TCP segment without options.
    Tcp {
        /// Source and destination port.
        ports: (u16, u16),
        /// The flags byte ([`tcp_flag`]).
        flags: u8,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgment number.
        acknowledgment: u32,
        /// Window field.
        window: u16,
    },
    /// A UDP datagram: source and destination port.
    Udp {
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The four bytes behind the checksum: an echo's identifier and sequence number.
        rest: [u8; 4],
    },
    /// Another protocol, by its number.
    Protocol(u8),
}

/// What is wrong with the description of a packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(String);

impl SpecError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl PacketSpec {
    /// A packet with usual values for everything else.
    #[must_use]
    pub const fn new(addresses: Addresses, content: Content) -> Self {
        Self {
            source_mac: [0x02, 0, 0, 0, 0, 0x01],
            destination_mac: [0x02, 0, 0, 0, 0, 0x02],
            vlans: Vec::new(),
            addresses,
            ttl: 64,
            content,
            payload: Vec::new(),
        }
    }

    /// The whole frame, from the Ethernet header on, padded to the shortest length, lengths and checksums right.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(128 + self.payload.len());
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        for (place, vlan) in self.vlans.iter().enumerate() {
            let service = self.vlans.len() > 1 && place == 0;
            let tag = if service {
                ethertype::SERVICE_VLAN
            } else {
                ethertype::VLAN
            };
            frame.extend(tag.to_be_bytes());
            frame.extend((vlan & 0x0fff).to_be_bytes());
        }
        let l4 = self.l4();
        match self.addresses {
            Addresses::V4(source, destination) => {
                frame.extend(ethertype::IPV4.to_be_bytes());
                frame.extend(self.ipv4_header(source, destination, l4.len()));
            }
            Addresses::V6(source, destination) => {
                frame.extend(ethertype::IPV6.to_be_bytes());
                frame.extend(self.ipv6_header(source, destination, l4.len()));
            }
        }
        frame.extend(l4);
        frame.resize(frame.len().max(MIN_FRAME), 0);
        frame
    }

    /// The protocol number of what it carries.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match (self.content, self.addresses) {
            (Content::Tcp { .. }, _) => protocol::TCP,
            (Content::Udp { .. }, _) => protocol::UDP,
            (Content::Icmp { .. }, Addresses::V4(..)) => protocol::ICMP,
            (Content::Icmp { .. }, Addresses::V6(..)) => protocol::ICMPV6,
            (Content::Protocol(number), _) => number,
        }
    }

    fn ipv4_header(&self, source: Ipv4Addr, destination: Ipv4Addr, l4_len: usize) -> [u8; 20] {
        let mut header = [0; 20];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&(20 + l4_len as u16).to_be_bytes());
        header[6] = 0x40;
        header[8] = self.ttl;
        header[9] = self.protocol();
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&destination.octets());
        let checksum = Sum::ZERO.bytes(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn ipv6_header(&self, source: Ipv6Addr, destination: Ipv6Addr, l4_len: usize) -> [u8; 40] {
        let mut header = [0; 40];
        header[0] = 0x60;
        header[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes());
        header[6] = self.protocol();
        header[7] = self.ttl;
        header[8..24].copy_from_slice(&source.octets());
        header[24..40].copy_from_slice(&destination.octets());
        header
    }

    /// The L4 header and the payload.
    fn l4(&self) -> Vec<u8> {
        let payload = &self.payload[..self.payload.len().min(65_000)];
        let mut l4 = Vec::with_capacity(20 + payload.len());
        // Where the checksum goes, and whether the pseudo-header is part of it.
        let checksum_at = match self.content {
            Content::Tcp {
                ports,
                flags,
                sequence,
                acknowledgment,
                window,
            } => {
                l4.extend(ports.0.to_be_bytes());
                l4.extend(ports.1.to_be_bytes());
                l4.extend(sequence.to_be_bytes());
                l4.extend(acknowledgment.to_be_bytes());
                l4.extend([5 << 4, flags]);
                l4.extend(window.to_be_bytes());
                l4.extend([0; 4]);
                Some((16, true))
            }
            Content::Udp { ports } => {
                l4.extend(ports.0.to_be_bytes());
                l4.extend(ports.1.to_be_bytes());
                l4.extend((8 + payload.len() as u16).to_be_bytes());
                l4.extend([0; 2]);
                Some((6, true))
            }
            Content::Icmp { kind, code, rest } => {
                l4.extend([kind, code, 0, 0]);
                l4.extend(rest);
                Some((2, matches!(self.addresses, Addresses::V6(..))))
            }
            Content::Protocol(_) => None,
        };
        l4.extend(payload);
        if let Some((at, with_pseudo_header)) = checksum_at {
            let sum = if with_pseudo_header {
                self.address_sum().pseudo(self.protocol(), l4.len() as u32)
            } else {
                Sum::ZERO
            };
            let mut checksum = sum.bytes(&l4).checksum();
            if checksum == 0 && matches!(self.content, Content::Udp { .. }) {
                // 0 would say that there is none (RFC 768).
                checksum = 0xffff;
            }
            l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        l4
    }

    fn address_sum(&self) -> Sum {
        match self.addresses {
            Addresses::V4(source, destination) => {
                Sum::ZERO.bytes(&source.octets()).bytes(&destination.octets())
            }
            Addresses::V6(source, destination) => {
                Sum::ZERO.bytes(&source.octets()).bytes(&destination.octets())
            }
        }
    }
}

impl FromStr for PacketSpec {
    type Err = SpecError;

    /// `PROTOCOL SOURCE > DESTINATION [WORD ...]`, as users write it:
    ///
    /// - `tcp 10.0.0.5:1234 > 192.0.2.7:80 syn`; flags are words or a list (`syn,ack`), `syn` when there are none
    /// - `udp [2001:db8::5]:1234 > [2001:db8::7]:53 len=100`
    /// - `icmp 10.0.0.5 > 192.0.2.7 echo-request id=7 seq=1`, `icmp 10.0.0.5 > 192.0.2.7 13/0`; `icmpv6` likewise
    /// - `proto/47 10.0.0.5 > 192.0.2.7`
    ///
    /// Words for all: `vlan=5` (again for a second tag), `ttl=64`, `len=BYTES` of payload; for TCP `seq=`, `ack=`, `win=`.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut words = text.split_whitespace();
        let mut word = |what: &str| {
            words
                .next()
                .ok_or_else(|| SpecError::new(format!("{what} is missing: {EXAMPLE}")))
        };
        let name = word("the protocol")?;
        let source = word("the source")?;
        let arrow = word("\">\" between source and destination")?;
        if !matches!(arrow, ">" | "->") {
            return Err(SpecError::new(format!(
                "\"{arrow}\" where \">\" should stand between source and destination: {EXAMPLE}"
            )));
        }
        let destination = word("the destination")?;
        let has_ports = matches!(name, "tcp" | "udp");
        let (source, destination) = (end(source, has_ports)?, end(destination, has_ports)?);
        let addresses = Addresses::of(source.ip(), destination.ip()).ok_or_else(|| {
            SpecError::new("source and destination are of different families: both IPv4 or both IPv6")
        })?;
        let ports = (source.port(), destination.port());
        let mut spec = Self::new(addresses, content(name, ports, addresses)?);
        for word in words {
            spec.apply(word)?;
        }
        spec.finish();
        Ok(spec)
    }
}

/// What every error about the shape of a description ends with.
const EXAMPLE: &str = "e.g. \"tcp 10.0.0.5:1234 > 192.0.2.7:80 syn\"";

/// An address, with its port where the protocol has ports.
fn end(word: &str, has_port: bool) -> Result<SocketAddr, SpecError> {
    if has_port {
        return word.parse().map_err(|_| {
            SpecError::new(format!(
                "\"{word}\" is not an address with a port: write 10.0.0.5:1234 or [2001:db8::5]:1234"
            ))
        });
    }
    let address = word
        .parse()
        .map_err(|_| SpecError::new(format!("\"{word}\" is not an IPv4 or IPv6 address")))?;
    Ok(SocketAddr::new(address, 0))
}

/// What the protocol's name says.
fn content(name: &str, ports: (u16, u16), addresses: Addresses) -> Result<Content, SpecError> {
    let v6 = matches!(addresses, Addresses::V6(..));
    match name {
        "tcp" => Ok(Content::Tcp {
            ports,
            flags: 0,
            sequence: 0,
            acknowledgment: 0,
            window: 64_240,
        }),
        "udp" => Ok(Content::Udp { ports }),
        "icmp" if v6 => Err(SpecError::new("IPv6 has \"icmpv6\", not \"icmp\"")),
        "icmpv6" if !v6 => Err(SpecError::new("IPv4 has \"icmp\", not \"icmpv6\"")),
        "icmp" | "icmpv6" => Ok(Content::Icmp {
            kind: if v6 { 128 } else { 8 },
            code: 0,
            rest: [0; 4],
        }),
        _ => match name.strip_prefix("proto/").map(u8::from_str) {
            Some(Ok(number)) => Ok(Content::Protocol(number)),
            _ => Err(SpecError::new(format!(
                "unknown protocol \"{name}\": write tcp, udp, icmp, icmpv6 or proto/NUMBER"
            ))),
        },
    }
}

impl PacketSpec {
    /// One word behind the destination.
    fn apply(&mut self, word: &str) -> Result<(), SpecError> {
        let name = self.name();
        let unknown = || SpecError::new(format!("\"{word}\" means nothing in a {name} packet"));
        if let Some((key, value)) = word.split_once('=') {
            return self.set(key, value)?.ok_or_else(unknown);
        }
        match &mut self.content {
            Content::Tcp { flags, .. } => {
                for name in word.split([',', '+']) {
                    *flags |= flag(name).ok_or_else(|| {
                        SpecError::new(format!("\"{name}\" is not a TCP flag or a known word"))
                    })?;
                }
                Ok(())
            }
            Content::Icmp { kind, code, .. } => {
                let v6 = matches!(self.addresses, Addresses::V6(..));
                (*kind, *code) = icmp_message(word, v6).ok_or_else(|| {
                    SpecError::new(format!("\"{word}\" is not an ICMP message: write TYPE/CODE"))
                })?;
                Ok(())
            }
            _ => Err(unknown()),
        }
    }

    /// A `key=value` word; `None`: this packet has no such key.
    fn set(&mut self, key: &str, value: &str) -> Result<Option<()>, SpecError> {
        match (key, &mut self.content) {
            ("vlan", _) => {
                if self.vlans.len() == 2 {
                    return Err(SpecError::new("more than two VLAN tags"));
                }
                self.vlans.push(number(key, value, 4095)?);
            }
            ("ttl", _) => self.ttl = number(key, value, 255)?,
            ("len", _) => self.payload = vec![0; number::<usize>(key, value, MAX_PAYLOAD as u64)?],
            ("seq", Content::Tcp { sequence, .. }) => *sequence = number(key, value, u64::from(u32::MAX))?,
            (
                "ack",
                Content::Tcp {
                    acknowledgment,
                    flags,
                    ..
                },
            ) => {
                *acknowledgment = number(key, value, u64::from(u32::MAX))?;
                *flags |= tcp_flag::ACK;
            }
            ("win", Content::Tcp { window, .. }) => *window = number(key, value, 65_535)?,
            ("id", Content::Icmp { rest, .. }) => {
                rest[..2].copy_from_slice(&number::<u16>(key, value, 65_535)?.to_be_bytes());
            }
            ("seq", Content::Icmp { rest, .. }) => {
                rest[2..].copy_from_slice(&number::<u16>(key, value, 65_535)?.to_be_bytes());
            }
            _ => return Ok(None),
        }
        Ok(Some(()))
    }

    /// Defaults that depend on what was not said.
    fn finish(&mut self) {
        match &mut self.content {
            Content::Tcp { flags, .. } if *flags == 0 => *flags = tcp_flag::SYN,
            Content::Icmp { kind, .. } => {
                // An error without the packet that it is about would be malformed.
                let v4 = matches!(self.addresses, Addresses::V4(..));
                let is_error = if v4 {
                    matches!(kind, 3 | 4 | 5 | 11 | 12)
                } else {
                    *kind < 128
                };
                if is_error && self.payload.is_empty() {
                    self.payload = self.quoted();
                }
            }
            _ => {}
        }
    }

    /// The packet that an ICMP error to this destination is about, as its body: a UDP packet the other way.
    fn quoted(&self) -> Vec<u8> {
        let addresses = match self.addresses {
            Addresses::V4(source, destination) => Addresses::V4(destination, source),
            Addresses::V6(source, destination) => Addresses::V6(destination, source),
        };
        let about = Self::new(
            addresses,
            Content::Udp {
                ports: (33_434, 33_434),
            },
        );
        let (header, l4) = (14, about.l4());
        let ip = match addresses {
            Addresses::V4(..) => 20,
            Addresses::V6(..) => 40,
        };
        let mut packet = about.frame();
        packet.truncate(header + ip + l4.len());
        packet.split_off(header)
    }

    const fn name(&self) -> &'static str {
        match (self.content, self.addresses) {
            (Content::Tcp { .. }, _) => "tcp",
            (Content::Udp { .. }, _) => "udp",
            (Content::Icmp { .. }, Addresses::V4(..)) => "icmp",
            (Content::Icmp { .. }, Addresses::V6(..)) => "icmpv6",
            (Content::Protocol(_), _) => "proto",
        }
    }
}

/// A number from 0 to `max`.
fn number<T: TryFrom<u64>>(key: &str, value: &str, max: u64) -> Result<T, SpecError> {
    value
        .parse::<u64>()
        .ok()
        .filter(|n| *n <= max)
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| SpecError::new(format!("{key}={value}: must be a number from 0 to {max}")))
}

fn flag(name: &str) -> Option<u8> {
    Some(match name {
        "fin" => tcp_flag::FIN,
        "syn" => tcp_flag::SYN,
        "rst" => tcp_flag::RST,
        "psh" => tcp_flag::PSH,
        "ack" => tcp_flag::ACK,
        "urg" => tcp_flag::URG,
        "ece" => tcp_flag::ECE,
        "cwr" => tcp_flag::CWR,
        _ => return None,
    })
}

/// Type and code of an ICMP message by its name in rules, or as numbers.
fn icmp_message(word: &str, v6: bool) -> Option<(u8, u8)> {
    let kind = match (word, v6) {
        ("echo-request", false) => 8,
        ("echo-reply", false) => 0,
        ("destination-unreachable", false) => 3,
        ("time-exceeded", false) => 11,
        ("parameter-problem", false) => 12,
        ("timestamp-request", false) => 13,
        ("timestamp-reply", false) => 14,
        ("echo-request", true) => 128,
        ("echo-reply", true) => 129,
        ("destination-unreachable", true) => 1,
        ("packet-too-big", true) => 2,
        ("time-exceeded", true) => 3,
        ("parameter-problem", true) => 4,
        _ => {
            let (kind, code) = word.split_once('/').unwrap_or((word, "0"));
            return Some((kind.parse().ok()?, code.parse().ok()?));
        }
    };
    Some((kind, 0))
}
