//! Rewrites the packets of a proxied connection, in place and with incremental checksums (RFC 1624).

use crate::flow::segment::flag;
use crate::flow::translation::rescale;
use crate::flow::{Segment, Session, Translation};
use crate::packet::PacketMeta;
use crate::packet::checksum::Sum;

/// What the packets of one direction need.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Rewrite {
    translation: Translation,
    /// The client sends it; else the server.
    from_client: bool,
    /// The scale that its window is in, and the one that its receiver takes it for.
    scales: (u8, u8),
}

impl Rewrite {
    /// For packets of `session` that the client sends, or that the server sends.
    pub(super) fn new(session: &Session, translation: Translation, from_client: bool) -> Self {
        let client = session.opener;
        let scale = |end: &crate::flow::TcpSender| {
            if end.has(crate::flow::TcpSender::SETTLED) {
                end.scale
            } else {
                0
            }
        };
        let scales = if from_client {
            (translation.client_scale, scale(&session.tcp[client.index()]))
        } else {
            let server = client.reverse().index();
            (scale(&session.tcp[server]), translation.told_scale)
        };
        Self {
            translation,
            from_client,
            scales,
        }
    }

    fn window(&self, flags: u8, window: u16) -> u16 {
        // A SYN's window is not scaled (RFC 7323, section 2.2).
        if flags & flag::SYN != 0 || self.scales.0 == self.scales.1 {
            return window;
        }
        rescale(window, self.scales.0, self.scales.1)
    }

    /// A client's segment as its server will see it; the server's stay as they are.
    pub(super) fn segment(&self, segment: &mut Segment) {
        if !self.from_client {
            return;
        }
        segment.ack = segment.ack.wrapping_add(self.translation.sequence);
        segment.window = self.window(segment.flags, segment.window);
        segment.options.sack = match segment.options.sack {
            Some(_) if self.translation.has(Translation::STRIP_SACK) => None,
            sack => sack.map(|right| right.wrapping_add(self.translation.sequence)),
        };
    }

    /// Rewrites the TCP header of a frame.
    pub(in crate::engine) fn frame(&self, frame: &mut [u8], meta: &PacketMeta) {
        let start = usize::from(meta.l4_offset);
        let Some(header) = frame.get_mut(start..start + usize::from(meta.detail)) else {
            return;
        };
        let before = Sum::ZERO.bytes(header).fold();
        let Some((tcp, options)) = header.split_first_chunk_mut::<20>() else {
            return;
        };
        let flags = tcp[13];
        if self.from_client {
            if flags & flag::ACK != 0 {
                add(&mut tcp[8..12], self.translation.sequence);
            }
        } else {
            add(&mut tcp[4..8], self.translation.sequence.wrapping_neg());
        }
        let window = self.window(flags, u16::from_be_bytes([tcp[14], tcp[15]]));
        tcp[14..16].copy_from_slice(&window.to_be_bytes());
        self.options(options, flags);
        let after = Sum::ZERO.bytes(header).fold();
        fix(header, 16, before, after);
    }

    /// Rewrites the options; the parser has checked that they are in order.
    fn options(&self, mut options: &mut [u8], flags: u8) {
        loop {
            let length = match *options {
                [] | [0, ..] | [_] => return,
                [1, ..] => 1,
                [_, length, ..] => usize::from(length).max(2),
            };
            if length > options.len() {
                return;
            }
            let (option, rest) = options.split_at_mut(length);
            match option[0] {
                5 if self.from_client => self.blocks(option),
                8 if length == 10 => self.timestamps(option, flags),
                _ => {}
            }
            options = rest;
        }
    }

    /// Selective acknowledgements of the client (RFC 2018, section 3).
    fn blocks(&self, option: &mut [u8]) {
        if self.translation.has(Translation::STRIP_SACK) {
            return option.fill(1);
        }
        for edge in option[2..].chunks_exact_mut(4) {
            add(edge, self.translation.sequence);
        }
    }

    /// The server's time stamps, or the client's echoes of them.
    fn timestamps(&self, option: &mut [u8], flags: u8) {
        if !self.from_client {
            add(&mut option[2..6], self.translation.timestamp.wrapping_neg());
        } else if self.translation.has(Translation::STRIP_TIMESTAMPS) {
            option.fill(1);
        } else if flags & flag::ACK != 0 {
            add(&mut option[6..10], self.translation.timestamp);
        }
    }
}

/// Makes the sequence number in the TCP header that an ICMP error quotes, a packet of the server, the one that the server sent.
pub(super) fn quoted_sequence(frame: &mut [u8], meta: &PacketMeta, at: usize, delta: u32) {
    let start = usize::from(meta.l4_offset);
    let Some(message) = frame.get_mut(start..start + usize::from(meta.l4_len)) else {
        return;
    };
    let before = Sum::ZERO.bytes(message).fold();
    if let Some(sequence) = at.checked_sub(start).and_then(|at| message.get_mut(at..at + 4)) {
        add(sequence, delta);
    }
    let after = Sum::ZERO.bytes(message).fold();
    fix(message, 2, before, after);
}

/// Adds to a number in network byte order.
fn add(number: &mut [u8], delta: u32) {
    if let Some(bytes) = number.first_chunk_mut::<4>() {
        *bytes = u32::from_be_bytes(*bytes).wrapping_add(delta).to_be_bytes();
    }
}

/// Corrects the checksum at `at` for bytes whose sum, checksum and all, was `before` and is `after` (RFC 1624, equation 3). The
/// whole header is summed, not what changed alone: options stand at odd places, too.
fn fix(header: &mut [u8], at: usize, before: u16, after: u16) {
    if let Some(field) = header.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        let checksum = Sum::ZERO
            .word(!u16::from_be_bytes(*field))
            .word(!before)
            .word(after)
            .checksum();
        *field = checksum.to_be_bytes();
    }
}
