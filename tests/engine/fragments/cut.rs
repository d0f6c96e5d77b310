//! Datagrams cut into fragments, and a node to send them to.
#![allow(unreachable_pub, reason = "a module of a test binary")]

use crate::frames::*;
use crate::node::Node;

/// A datagram of either family, to be cut into pieces.
#[derive(Clone)]
pub struct Cut {
    pub v6: bool,
    pub id: u32,
    pub protocol: u8,
    /// What is fragmented: the L4 packet, in IPv6 maybe behind extension headers.
    pub body: Vec<u8>,
    /// Ends swapped.
    pub back: bool,
}

impl Cut {
    /// A UDP datagram with a right checksum.
    pub fn udp(v6: bool, ports: (u16, u16), length: usize) -> Self {
        let payload: Vec<u8> = (0..length).map(|n| (n * 7 / 3) as u8).collect();
        let l4 = udp(ports, &payload);
        let sum = match v6 {
            true => Ip6::new(17).pseudo(l4.len()),
            false => Ip4::new(17).pseudo(l4.len()),
        };
        Self {
            v6,
            id: 0x1234,
            protocol: 17,
            body: summed(&sum, l4, 6),
            back: false,
        }
    }

    pub fn tcp(v6: bool, ports: (u16, u16), flags: u8, payload: &[u8]) -> Self {
        let l4 = tcp(ports, flags, &[], payload);
        let sum = match v6 {
            true => Ip6::new(6).pseudo(l4.len()),
            false => Ip4::new(6).pseudo(l4.len()),
        };
        Self {
            protocol: 6,
            body: summed(&sum, l4, 16),
            ..Self::udp(v6, ports, 0)
        }
    }

    /// An echo request.
    pub fn echo(v6: bool, length: usize) -> Self {
        let l4 = icmp(if v6 { 128 } else { 8 }, 0, [0, 7, 0, 1], &vec![0x5a; length]);
        let sum = match v6 {
            true => Ip6::new(58).pseudo(l4.len()),
            false => vec![],
        };
        Self {
            protocol: if v6 { 58 } else { 1 },
            body: summed(&sum, l4, 2),
            ..Self::udp(v6, (0, 0), 0)
        }
    }

    /// Any bytes as a fragment of this datagram.
    pub fn piece(&self, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
        if self.v6 {
            let field = (offset as u16 | u16::from(more)).to_be_bytes();
            let mut header = vec![0, 0, field[0], field[1]];
            header.extend(self.id.to_be_bytes());
            let mut ip = Ip6::new(self.protocol).extension(44, &header);
            if self.back {
                std::mem::swap(&mut ip.source, &mut ip.destination);
            }
            return ip.frame(bytes);
        }
        let mut ip = Ip4::new(self.protocol);
        ip.fragment = (u16::from(more) << 13) | (offset as u16 / 8);
        if self.back {
            std::mem::swap(&mut ip.source, &mut ip.destination);
        }
        let mut packet = ip.packet(bytes);
        packet[4..6].copy_from_slice(&(self.id as u16).to_be_bytes());
        ethernet(0x0800, &fix_ipv4_header(packet))
    }

    /// Its bytes from `start` to `end`.
    pub fn part(&self, start: usize, end: usize) -> Vec<u8> {
        self.piece(start, end < self.body.len(), &self.body[start..end])
    }

    /// All of it in pieces of `size` bytes.
    pub fn pieces(&self, size: usize) -> Vec<Vec<u8>> {
        let starts = (0..self.body.len()).step_by(size);
        starts
            .map(|start| self.part(start, (start + size).min(self.body.len())))
            .collect()
    }
}

pub const BOTH: [bool; 2] = [false, true];

pub fn all(node: &mut Node, port: &str, frames: &[Vec<u8>]) -> Vec<String> {
    frames.iter().map(|frame| node.frame(port, frame)).collect()
}

pub fn leave(node: &mut Node) -> Vec<Vec<u8>> {
    std::mem::take(&mut node.forwarded)
        .into_iter()
        .map(|(_, frame)| frame)
        .collect()
}

pub fn released(node: &mut Node) -> Vec<String> {
    std::mem::take(&mut node.released)
}

pub fn rule(service: &str) -> String {
    format!("[[rule]]\nname = \"one\"\nfrom = \"lan\"\nservice = [\"{service}\"]\naction = \"allow\"\n")
}
