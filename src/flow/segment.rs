//! A TCP segment as the tracker reads it (RFC 9293, section 3.1).

/// TCP flag bits.
pub mod flag {
    pub use crate::packet::view::tcp_flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
}

/// What the tracker needs of a TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The flags byte.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; counts with [`flag::ACK`] only.
    pub ack: u32,
    /// The window field as it stands, unscaled.
    pub window: u16,
    /// Bytes of data after the header.
    pub data_len: u32,
    /// What its options say.
    pub options: Options,
}

/// The options that matter to a middlebox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Window scale, at most 14 (RFC 7323, section 2.3). Counts on a SYN only.
    pub scale: Option<u8>,
    /// The highest right edge of its SACK blocks (RFC 2018, section 3).
    pub sack: Option<u32>,
    /// It asks for, or has, a Fast Open cookie (RFC 7413, section 4.1.1). Counts on a SYN only.
    pub fast_open: bool,
    /// Maximum segment size in bytes (RFC 9293, section 3.7.1). Counts on a SYN only.
    pub mss: Option<u16>,
    /// Selective acknowledgements are permitted (RFC 2018, section 2). Counts on a SYN only.
    pub sack_permitted: bool,
    /// Time stamps: its sender's, and the one that it echoes (RFC 7323, section 3.2).
    pub timestamps: Option<(u32, u32)>,
}

impl Options {
    /// From the bytes between the fixed header and the data. The parser has checked that they are in order; what is not
    /// ends the list.
    #[must_use]
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        loop {
            let (kind, length) = match *bytes {
                [] | [0, ..] => return options,
                [1, ..] => {
                    bytes = &bytes[1..];
                    continue;
                }
                [kind, length, ..] => (kind, usize::from(length)),
                [_] => return options,
            };
            let Some(value) = bytes.get(2..length) else {
                return options;
            };
            match (kind, value) {
                (2, [high, low]) => options.mss = Some(u16::from_be_bytes([*high, *low])),
                (4, []) => options.sack_permitted = true,
                (8, [a, b, c, d, e, f, g, h]) => {
                    let [own, echoed] = [[*a, *b, *c, *d], [*e, *f, *g, *h]].map(u32::from_be_bytes);
                    options.timestamps = Some((own, echoed));
                }
                (3, [scale]) => options.scale = Some((*scale).min(14)),
                (5, blocks) => {
                    for block in blocks.chunks_exact(8) {
                        let right = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
                        options.sack = Some(options.sack.map_or(right, |most| later(most, right)));
                    }
                }
                // RFC 7413's number, and the experimental one with its magic number (appendix A).
                (34, _) | (254, [0xf9, 0x89, ..]) => options.fast_open = true,
                _ => {}
            }
            bytes = &bytes[length..];
        }
    }
}

impl Segment {
    /// The sequence number after the segment: data, SYN and FIN take one up each (RFC 9293, section 3.4).
    #[inline]
    #[must_use]
    pub const fn end(&self) -> u32 {
        let flags = (self.flags & flag::FIN != 0) as u32 + (self.flags & flag::SYN != 0) as u32;
        self.seq.wrapping_add(self.data_len).wrapping_add(flags)
    }

    /// Is this flag set?
    #[inline]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Is `a` at or before `b` in sequence space (RFC 9293, section 3.4; RFC 1982)?
#[inline(always)]
#[must_use]
pub const fn at_or_before(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) as i32 >= 0
}

/// The later one of two sequence numbers.
#[inline(always)]
#[must_use]
pub const fn later(a: u32, b: u32) -> u32 {
    if at_or_before(a, b) { b } else { a }
}
