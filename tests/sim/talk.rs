//! Conversations of clients with servers, packet by packet: TCP with numbers that go on as they would, UDP, ICMP echo; and packets that
//! nobody asked for. A packet that is lost is sent again.

use std::net::Ipv4Addr;

use haechi::base::{Nanos, PortId};
use haechi::packet::synth::{Addresses, Content, PacketSpec};
use haechi::packet::view::tcp_flag::{ACK, FIN, RST, SYN};

use super::ha_net::Random;
use super::policy::Service;

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);
/// UDP and ICMP sessions may idle for two seconds.
const IDLE: Nanos = Nanos::from_millis(1800);
/// Tries of one packet, then the client gives up.
const TRIES: u32 = 40;

/// Where a conversation stands: what is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// TCP: the three of the handshake.
    Syn,
    SynAck,
    HandshakeAck,
    /// TCP: data either way; UDP and ICMP: once it was answered.
    Open,
    /// TCP.
    ClientFin,
    ServerFin,
    LastAck,
    Reset,
    /// UDP and ICMP.
    Ask,
    Answer,
}

#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) service: Service,
    client: Ipv4Addr,
    server: Ipv4Addr,
    port: u16,
    stage: Stage,
    /// The next number of the client's and of the server's.
    numbers: [u32; 2],
    tries: u32,
    pub(crate) next_at: Nanos,
    /// Packets went both ways since.
    pub(crate) established: Option<Nanos>,
    /// Nothing can be expected of it any more: what it went through may have cost the session.
    pub(crate) excused: bool,
    /// The client has sent something that got through: answers may pass.
    pub(crate) asked: bool,
    /// Data packets that are left.
    left: u32,
    /// It survived a change of lead.
    pub(crate) moved: bool,
    /// When its last packet got through.
    last: Nanos,
}

/// A packet of a conversation.
pub(crate) struct Packet {
    pub(crate) port: PortId,
    pub(crate) frame: Vec<u8>,
    /// From the server.
    pub(crate) is_reply: bool,
    /// It is of a session that both sides have been in: no forwarding node may drop it.
    pub(crate) must_pass: bool,
    bytes: u32,
}

impl Talk {
    pub(crate) fn new(place: usize, now: Nanos, random: &mut Random) -> Self {
        let mut talk = Self {
            service: Service::Web,
            client: Ipv4Addr::new(10, 0, 0, 1 + place as u8),
            server: Ipv4Addr::new(192, 0, 2, 7),
            port: 1024,
            stage: Stage::Syn,
            numbers: [0; 2],
            tries: 0,
            next_at: now,
            established: None,
            excused: false,
            asked: false,
            left: 0,
            moved: false,
            last: now,
        };
        talk.begin(now, random);
        talk
    }

    /// Another conversation of the same client.
    pub(crate) fn begin(&mut self, now: Nanos, random: &mut Random) {
        // Often of the same service, and sometimes of the same ports: another session of the flow.
        if random.chance(160) {
            self.service = match random.below(16) {
                0..=5 => Service::Web,
                6..=8 => Service::Tls,
                9..=11 => Service::Names,
                12..=14 => Service::Echo,
                _ => Service::Telnet,
            };
        }
        if !random.chance(60) {
            self.port = 1024 + random.below(60_000) as u16;
        }
        self.stage = match self.service {
            Service::Names | Service::Echo => Stage::Ask,
            _ => Stage::Syn,
        };
        self.numbers = [random.next() as u32, random.next() as u32];
        self.tries = 0;
        self.next_at = now.plus(Nanos::from_millis(random.below(400)));
        (self.established, self.excused, self.asked, self.moved) = (None, false, false, false);
        self.left = match random.below(4) {
            0 => random.below(5) as u32,
            1 | 2 => random.below(40) as u32,
            _ => 100_000,
        };
    }

    const fn is_tcp(&self) -> bool {
        !matches!(self.service, Service::Names | Service::Echo)
    }

    fn ends(&self, is_reply: bool) -> (Addresses, (u16, u16)) {
        let port = match self.service {
            Service::Web => 80,
            Service::Tls => 443,
            Service::Names => 53,
            Service::Telnet => 23,
            Service::Echo => 0,
        };
        if is_reply {
            (Addresses::V4(self.server, self.client), (port, self.port))
        } else {
            (Addresses::V4(self.client, self.server), (self.port, port))
        }
    }

    fn packet(&self, is_reply: bool, flags: u8, bytes: u32) -> Packet {
        let (addresses, ports) = self.ends(is_reply);
        let [own, other] = if is_reply {
            [self.numbers[1], self.numbers[0]]
        } else {
            self.numbers
        };
        let content = match self.service {
            Service::Names => Content::Udp { ports },
            Service::Echo => {
                let [high, low] = self.port.to_be_bytes();
                Content::Icmp {
                    kind: if is_reply { 0 } else { 8 },
                    code: 0,
                    rest: [high, low, 0, 1],
                }
            }
            _ => Content::Tcp {
                ports,
                flags,
                sequence: own,
                acknowledgment: if flags & ACK == 0 { 0 } else { other },
                window: 65_000,
            },
        };
        let mut spec = PacketSpec::new(addresses, content);
        spec.payload = vec![0; bytes as usize];
        let of_session = self.is_tcp() || is_reply;
        Packet {
            port: if is_reply { WAN } else { LAN },
            frame: spec.frame(),
            is_reply,
            must_pass: of_session && self.established.is_some() && !self.excused,
            bytes,
        }
    }

    /// What is sent now.
    pub(crate) fn next(&mut self, now: Nanos, random: &mut Random) -> Packet {
        if !self.is_tcp() && now.since(self.last) >= IDLE {
            // Its session may have idled out: what comes is another one.
            self.established = None;
        }
        if self.stage == Stage::Open && self.left == 0 {
            self.stage = match (self.service, random.chance(80)) {
                (Service::Names | Service::Echo, _) => Stage::Ask,
                (_, true) => Stage::Reset,
                (_, false) => Stage::ClientFin,
            };
        }
        match self.stage {
            Stage::Syn => self.packet(false, SYN, 0),
            Stage::SynAck => self.packet(true, SYN | ACK, 0),
            Stage::HandshakeAck | Stage::LastAck => self.packet(false, ACK, 0),
            Stage::Open => self.packet(random.chance(128), ACK, 1 + random.below(200) as u32),
            Stage::ClientFin => self.packet(false, FIN | ACK, 0),
            Stage::ServerFin => self.packet(true, FIN | ACK, 0),
            Stage::Reset => self.packet(false, RST | ACK, 0),
            Stage::Ask => self.packet(false, 0, 20),
            Stage::Answer => self.packet(true, 0, 40),
        }
    }

    /// A packet that a server sends to a client that has never asked.
    pub(crate) fn blind(&self, random: &mut Random) -> Packet {
        let mut other = self.clone();
        (other.service, other.port) = (Service::Names, random.below(1024) as u16);
        (other.established, other.asked) = (None, false);
        other.packet(true, 0, 1)
    }

    /// It got through.
    pub(crate) fn passed(&mut self, now: Nanos, packet: &Packet, random: &mut Random) {
        self.tries = 0;
        self.asked |= !packet.is_reply;
        let from = usize::from(packet.is_reply);
        self.last = now;
        let is_tcp = self.is_tcp();
        if is_tcp {
            let flag = matches!(
                self.stage,
                Stage::Syn | Stage::SynAck | Stage::ClientFin | Stage::ServerFin
            );
            self.numbers[from] = self.numbers[from].wrapping_add(packet.bytes + u32::from(flag));
        }
        self.stage = match self.stage {
            Stage::Syn => Stage::SynAck,
            Stage::SynAck => Stage::HandshakeAck,
            Stage::Ask => Stage::Answer,
            Stage::HandshakeAck | Stage::Answer => {
                self.established = self.established.or(Some(now));
                if is_tcp { Stage::Open } else { Stage::Ask }
            }
            Stage::ClientFin => Stage::ServerFin,
            Stage::ServerFin => Stage::LastAck,
            Stage::Open => Stage::Open,
            Stage::LastAck | Stage::Reset => {
                self.begin(now, random);
                return;
            }
        };
        self.left = self.left.saturating_sub(1);
        if !is_tcp && self.left == 0 {
            self.begin(now, random);
            return;
        }
        let pause = if random.chance(20) { 1_500 } else { 150 };
        self.next_at = now.plus(Nanos::from_millis(1 + random.below(pause)));
    }

    /// It did not: it is sent again, or the client gives up.
    pub(crate) fn lost(&mut self, now: Nanos, random: &mut Random) {
        self.tries += 1;
        if self.stage == Stage::Answer && random.chance(128) {
            self.stage = Stage::Ask;
        }
        if self.tries > TRIES || self.excused && self.tries > 3 {
            self.begin(now, random);
        } else {
            self.next_at = now.plus(Nanos::from_millis(30 + random.below(200)));
        }
    }
}
