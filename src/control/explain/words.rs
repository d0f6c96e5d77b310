//! Packets in words, both ways: what a user writes to a frame, and a frame to what a user reads.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use super::Simulator;
use crate::base::PortId;
use crate::config::TimeSpan;
use crate::control::node::{ErrorKind, NodeError};
use crate::control::view::{self, vlan_tags};
use crate::packet::parse::{Malformed, fragment_field};
use crate::packet::synth::{Content, PacketSpec, SpecError};
use crate::packet::{PacketKind, PacketMeta};

/// TCP flags by bit, as they are written (RFC 9293, section 3.1; RFC 3168).
const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
const SYN: u8 = 2;
const FIN: u8 = 1;
const ACK: u8 = 16;

/// Flows that a conversation remembers at most.
const MAX_FLOWS: usize = 1 << 20;

/// A frame in the words of `--packet`, as far as the parser understood it.
#[must_use]
pub fn describe(meta: &PacketMeta, frame: &[u8]) -> String {
    let (source, destination) = (view::address(meta.source), view::address(meta.destination));
    let with_ports = |name: &str| {
        let source = SocketAddr::new(source, meta.source_port);
        let destination = SocketAddr::new(destination, meta.destination_port);
        format!("{name} {source} > {destination}")
    };
    let mut text = match meta.kind {
        PacketKind::Malformed => match Malformed::from_detail(meta.detail) {
            Some(what) => format!("malformed ({})", what.name()),
            None => "malformed".to_owned(),
        },
        PacketKind::BadChecksum => "bad checksum".to_owned(),
        PacketKind::Arp => "arp".to_owned(),
        PacketKind::NonIp => match frame.get(12..14) {
            Some(ethertype) => format!("ethertype 0x{:02x}{:02x}", ethertype[0], ethertype[1]),
            None => "non-ip".to_owned(),
        },
        PacketKind::Tcp => {
            let mut text = with_ports("tcp");
            for (bit, flag) in FLAGS.iter().enumerate() {
                if meta.tcp_flags() & (1 << bit) != 0 {
                    // Writing to a string cannot fail.
                    let _ = write!(text, " {flag}");
                }
            }
            text
        }
        PacketKind::Udp => with_ports("udp"),
        PacketKind::Echo | PacketKind::IcmpError | PacketKind::Icmp | PacketKind::NeighbourDiscovery => {
            let name = view::protocol(meta.protocol);
            let mut text = format!(
                "{name} {source} > {destination} {}/{}",
                meta.icmp_type(),
                meta.detail
            );
            if meta.kind == PacketKind::Echo {
                let _ = write!(text, " id={}", meta.source_port);
            }
            text
        }
        PacketKind::OtherIp => format!("proto/{} {source} > {destination}", meta.protocol),
        PacketKind::Fragment => {
            let mut text = format!("fragment proto/{} {source} > {destination}", meta.protocol);
            if let Some(field) = fragment_field(meta, frame) {
                let last = u32::from(field.offset) + u32::from(meta.l4_len).saturating_sub(1);
                let more = if field.more { " more" } else { "" };
                let _ = write!(text, " id={} bytes={}-{last}{more}", field.id, field.offset);
            }
            text
        }
    };
    for tag in vlan_tags(meta.vlan) {
        let _ = write!(text, " vlan={tag}");
    }
    text
}

/// What tells two ways of one conversation: addresses, ports, protocol, VLAN tags.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Way {
    source: [u8; 16],
    destination: [u8; 16],
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    vlan: u32,
}

impl Way {
    fn of(meta: &PacketMeta) -> Self {
        Self {
            source: meta.source,
            destination: meta.destination,
            source_port: meta.source_port,
            destination_port: meta.destination_port,
            protocol: meta.protocol,
            vlan: meta.vlan,
        }
    }

    fn back(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

/// Packets that answer each other: finds out where one comes in, and fills in TCP numbers that its writer left out.
#[derive(Default)]
pub struct Conversation {
    ways: HashMap<Way, Known>,
}

/// What is known of one way.
#[derive(Clone, Copy)]
struct Known {
    ingress: PortId,
    /// The sequence number of its next segment.
    next: u32,
}

/// A packet in words with what stands before it.
struct Line<'a> {
    /// `after 31s`: since the packet before, in nanoseconds.
    after_ns: u64,
    from: Option<&'a str>,
    port: Option<&'a str>,
    packet: &'a str,
}

/// A packet that is ready for the engine.
pub(crate) struct Ready {
    pub(crate) frame: Vec<u8>,
    pub(crate) ingress: PortId,
    pub(crate) after_ns: u64,
}

impl Conversation {
    /// Reads a packet in words: `[after TIME] [from ZONE | port NAME] PROTOCOL SOURCE > DESTINATION [WORD ...]`; where
    /// it does not say where it comes in and answers no earlier one, it is `default`'s turn.
    pub(crate) fn read(
        &mut self,
        simulator: &Simulator,
        text: &str,
        default: Result<PortId, NodeError>,
    ) -> Result<Ready, NodeError> {
        let wrong = |why: String| NodeError::new(ErrorKind::BadRequest, format!("packet \"{text}\": {why}"));
        let line = Line::parse(text).map_err(wrong)?;
        let mut spec = line.spec().map_err(wrong)?;
        // Where the frame comes in does not change how it is parsed.
        let way = Way::of(&simulator.parse(&spec.frame(), PortId(0)));
        let ingress = match ingress(simulator, line.from, line.port)? {
            Some(port) => port,
            None => match self.ingress(simulator, way) {
                Some(port) => port,
                None => default?,
            },
        };
        let next = simulator.next_numbers(&simulator.parse(&spec.frame(), ingress));
        self.fill_in(&mut spec, line.packet, way, next);
        let frame = spec.frame();
        self.remember(way, ingress, &spec);
        Ok(Ready {
            frame,
            ingress,
            after_ns: line.after_ns,
        })
    }

    /// Where a frame comes in that goes on with an earlier way, or answers it.
    pub(crate) fn ingress_of(&mut self, simulator: &Simulator, frame: &[u8], default: PortId) -> PortId {
        let meta = simulator.parse(frame, default);
        if matches!(meta.kind, PacketKind::Malformed | PacketKind::BadChecksum) {
            return default;
        }
        let way = Way::of(&meta);
        let port = self.ingress(simulator, way).unwrap_or(default);
        self.insert(
            way,
            Known {
                ingress: port,
                next: 0,
            },
        );
        port
    }

    fn ingress(&self, simulator: &Simulator, way: Way) -> Option<PortId> {
        if let Some(known) = self.ways.get(&way) {
            return Some(known.ingress);
        }
        let answered = self.ways.get(&way.back())?;
        simulator
            .policy()
            .ports
            .get(answered.ingress.index())
            .map(|port| port.peer)
    }

    /// TCP numbers that were left out go on where the conversation is, or the session that the packet belongs to: `next`,
    /// of this end and of the other.
    fn fill_in(&self, spec: &mut PacketSpec, text: &str, way: Way, next: [Option<u32>; 2]) {
        let Content::Tcp {
            flags,
            sequence,
            acknowledgment,
            ..
        } = &mut spec.content
        else {
            return;
        };
        let says = |key: &str| text.split_ascii_whitespace().any(|word| word.starts_with(key));
        let known = |way: &Way| self.ways.get(way).map(|known| known.next);
        if let (false, Some(next)) = (says("seq="), known(&way).or(next[0])) {
            *sequence = next;
        }
        if let (false, true, Some(next)) = (says("ack="), *flags & ACK != 0, known(&way.back()).or(next[1])) {
            *acknowledgment = next;
        }
    }

    fn remember(&mut self, way: Way, ingress: PortId, spec: &PacketSpec) {
        let next = match spec.content {
            Content::Tcp { flags, sequence, .. } => {
                let data = u32::try_from(spec.payload.len()).unwrap_or(0);
                let marks = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
                sequence.wrapping_add(data).wrapping_add(marks)
            }
            _ => 0,
        };
        self.insert(way, Known { ingress, next });
    }

    fn insert(&mut self, way: Way, known: Known) {
        if self.ways.len() < MAX_FLOWS || self.ways.contains_key(&way) {
            self.ways.insert(way, known);
        }
    }
}

/// Is this a packet in words ([`Conversation`]), under whatever configuration?
///
/// # Errors
/// Says what is wrong with it.
pub fn check_words(text: &str) -> Result<(), String> {
    Line::parse(text)?.spec().map(drop)
}

impl<'a> Line<'a> {
    fn spec(&self) -> Result<PacketSpec, String> {
        let protocol = self.packet.split_whitespace().next().unwrap_or_default();
        if !matches!(protocol, "" | "tcp" | "udp" | "icmp" | "icmpv6") {
            // What follows an unknown protocol cannot be judged: that comes first.
            let alone: Result<PacketSpec, _> = format!("{protocol} 192.0.2.1 > 192.0.2.2").parse();
            alone.map_err(|e| e.to_string())?;
        }
        self.packet.parse().map_err(|e: SpecError| e.to_string())
    }

    fn parse(text: &'a str) -> Result<Self, String> {
        let mut line = Self {
            after_ns: 0,
            from: None,
            port: None,
            packet: text.trim(),
        };
        loop {
            let mut words = line.packet.splitn(3, char::is_whitespace);
            let (first, second, rest) = (words.next(), words.next(), words.next());
            let value = |what: &str| match (second, rest) {
                (Some(value), Some(rest)) => Ok((value, rest.trim_start())),
                _ => Err(format!("{what} and the packet are missing after it")),
            };
            match first {
                Some("after") => {
                    let (time, rest) = value("a time")?;
                    let span: TimeSpan = time.parse().map_err(|e| format!("after {time}: {e}"))?;
                    (line.after_ns, line.packet) = (span.0.0, rest);
                }
                Some("from") => {
                    let (zone, rest) = value("a zone")?;
                    (line.from, line.packet) = (Some(zone), rest);
                }
                Some("port") => {
                    let (port, rest) = value("a port")?;
                    (line.port, line.packet) = (Some(port), rest);
                }
                _ => return Ok(line),
            }
        }
    }
}

/// The port that a zone or a port's name means; `None`: neither is given.
///
/// # Errors
/// When there is no such port or zone, or when the zone has several ports.
pub(crate) fn ingress(
    simulator: &Simulator,
    from: Option<&str>,
    port: Option<&str>,
) -> Result<Option<PortId>, NodeError> {
    let refused = |message: String| NodeError::new(ErrorKind::BadRequest, message);
    let ports: Vec<_> = simulator.names().ports().collect();
    let list = |names: &mut dyn Iterator<Item = &str>| {
        let mut names: Vec<_> = names.collect();
        names.dedup();
        names.join(", ")
    };
    if let Some(port) = port {
        let Some((id, _, zone)) = ports.iter().find(|(_, name, _)| *name == port) else {
            let all = list(&mut ports.iter().map(|(_, name, _)| *name));
            return Err(refused(format!("there is no port \"{port}\"")).fix(format!("the ports are {all}")));
        };
        if from.is_some_and(|from| from != *zone) {
            return Err(refused(format!(
                "port \"{port}\" is not in zone \"{}\"",
                from.unwrap_or_default()
            ))
            .fix(format!("its zone is \"{zone}\"")));
        }
        return Ok(Some(*id));
    }
    let Some(from) = from else {
        return Ok(None);
    };
    let inside: Vec<_> = ports.iter().filter(|(_, _, zone)| *zone == from).collect();
    match inside.as_slice() {
        [(id, _, _)] => Ok(Some(*id)),
        [] => {
            let mut zones: Vec<_> = ports.iter().map(|(_, _, zone)| *zone).collect();
            zones.sort_unstable();
            let all = list(&mut zones.into_iter());
            Err(refused(format!("no port is in a zone \"{from}\"")).fix(format!("the zones are {all}")))
        }
        several => {
            let all = list(&mut several.iter().map(|(_, name, _)| *name));
            Err(refused(format!("zone \"{from}\" has several ports")).fix(format!("say which one: {all}")))
        }
    }
}
