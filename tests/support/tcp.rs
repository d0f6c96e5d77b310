//! TCP segments with options, written and read by etherparse: what is tested makes and checks none of them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use etherparse::{IpNumber, PacketBuilder, TcpHeader, TcpOptionElement};

use crate::checked::checked;

pub const SYN: u8 = 2;
pub const FIN: u8 = 1;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// The two ends of every segment here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    #[default]
    Client,
    Server,
}

/// A segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    pub from: End,
    pub v6: bool,
    /// The client's; the server's is 80.
    pub port: u16,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: Option<(u32, u32)>,
    pub sack: Vec<(u32, u32)>,
    pub data: Vec<u8>,
}

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT: [u8; 4] = [10, 0, 0, 5];
const SERVER: [u8; 4] = [192, 0, 2, 7];

fn v6([.., last]: [u8; 4]) -> [u8; 16] {
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

impl Tcp {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn options(&self) -> Vec<u8> {
        let mut bytes = vec![];
        if let Some(mss) = self.mss {
            bytes.extend([2, 4]);
            bytes.extend(mss.to_be_bytes());
        }
        if self.sack_permitted {
            bytes.extend([4, 2]);
        }
        if let Some((own, echoed)) = self.timestamps {
            bytes.extend([8, 10]);
            bytes.extend(own.to_be_bytes());
            bytes.extend(echoed.to_be_bytes());
        }
        if let Some(scale) = self.scale {
            bytes.extend([3, 3, scale]);
        }
        if !self.sack.is_empty() {
            // At an odd place, sometimes.
            bytes.push(1);
            bytes.extend([5, 2 + 8 * self.sack.len() as u8]);
            for (left, right) in &self.sack {
                bytes.extend(left.to_be_bytes());
                bytes.extend(right.to_be_bytes());
            }
        }
        while bytes.len() % 4 != 0 {
            bytes.push(1);
        }
        bytes
    }

    /// The frame, checksums right.
    pub fn frame(&self) -> Vec<u8> {
        let (macs, addresses, ports) = match self.from {
            End::Client => ((CLIENT_MAC, SERVER_MAC), (CLIENT, SERVER), (self.port, 80)),
            End::Server => ((SERVER_MAC, CLIENT_MAC), (SERVER, CLIENT), (80, self.port)),
        };
        let mut tcp = TcpHeader::new(ports.0, ports.1, self.seq, self.window);
        tcp.acknowledgment_number = self.ack;
        (tcp.fin, tcp.syn, tcp.rst, tcp.ack) = (self.has(FIN), self.has(SYN), self.has(RST), self.has(ACK));
        tcp.set_options_raw(&self.options()).expect("options that fit");
        let ethernet = PacketBuilder::ethernet2(macs.0, macs.1);
        let mut frame = vec![];
        if self.v6 {
            let builder = ethernet.ipv6(v6(addresses.0), v6(addresses.1), 60);
            builder
                .tcp_header(tcp)
                .write(&mut frame, &self.data)
                .expect("a frame");
        } else {
            let builder = ethernet.ipv4(addresses.0, addresses.1, 60);
            builder
                .tcp_header(tcp)
                .write(&mut frame, &self.data)
                .expect("a frame");
        }
        frame
    }

    /// A frame in which every length and every checksum is right.
    #[track_caller]
    pub fn read(frame: &[u8]) -> Self {
        let packet = checked(frame);
        let v6 = packet.net.as_ref().is_some_and(etherparse::NetHeaders::is_ipv6);
        let Some(etherparse::TransportHeader::Tcp(tcp)) = &packet.transport else {
            panic!("not TCP ({:?}): {frame:02x?}", IpNumber::TCP);
        };
        let from = if tcp.source_port == 80 {
            End::Server
        } else {
            End::Client
        };
        let link = packet
            .link
            .as_ref()
            .and_then(|link| link.clone().ethernet2())
            .expect("Ethernet");
        let source = match from {
            End::Client => CLIENT_MAC,
            End::Server => SERVER_MAC,
        };
        assert_eq!(link.source, source, "from the MAC address of its end");
        let mut segment = Self {
            from,
            v6,
            port: tcp.source_port.max(tcp.destination_port),
            flags: u8::from(tcp.fin)
                | u8::from(tcp.syn) << 1
                | u8::from(tcp.rst) << 2
                | u8::from(tcp.ack) << 4,
            seq: tcp.sequence_number,
            ack: tcp.acknowledgment_number,
            window: tcp.window_size,
            data: packet.payload.slice().to_vec(),
            ..Self::default()
        };
        for option in tcp.options_iterator() {
            match option.expect("options in order") {
                TcpOptionElement::MaximumSegmentSize(mss) => segment.mss = Some(mss),
                TcpOptionElement::WindowScale(scale) => segment.scale = Some(scale),
                TcpOptionElement::SelectiveAcknowledgementPermitted => segment.sack_permitted = true,
                TcpOptionElement::SelectiveAcknowledgement(first, more) => {
                    segment.sack.push(first);
                    segment.sack.extend(more.into_iter().flatten());
                }
                TcpOptionElement::Timestamp(own, echoed) => segment.timestamps = Some((own, echoed)),
                TcpOptionElement::Noop => {}
            }
        }
        segment
    }
}
