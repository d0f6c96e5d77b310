//! The straight path for eight frames at once: their headers side by side, one vector instruction for a field of all of
//! them. What it does not take, the straight path for one frame still may.

use wide::u32x8;

use super::{ETHERNET, RxChecksum, Straight, Sum, protocol};
use crate::base::simd::{self, COLUMNS, LANES, Row};

/// The headers that are read: from the EtherType to the end of the shortest Ethernet frame (60 bytes without FCS).
/// Word `w` of a frame is its bytes from `FROM + 4 * w` on, as a little-endian number.
const FROM: usize = 12;
const TO: usize = FROM + 4 * COLUMNS;
/// Of frames that are shorter: no IPv4.
const NOTHING: Row = [0; 4 * COLUMNS];

/// What [`parse_lanes`] finds out: [`Straight`]'s values of eight frames. Only lanes that are `taken` say something.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// All ones: the frame took this path.
    pub taken: u32x8,
    /// As [`Straight::source`].
    pub source: u32x8,
    /// As [`Straight::destination`].
    pub destination: u32x8,
    /// [`Straight::source_port`] in the low half, [`Straight::destination_port`] in the high one.
    pub ports: u32x8,
    /// Bytes of the IP packet.
    pub ip_len: u32x8,
    /// IP protocol.
    pub protocol: u32x8,
    /// What a tracker needs of TCP.
    pub tcp: TcpLanes,
}

/// The fields of eight TCP segments that say all there is about one with ACK alone (no SYN, FIN or RST).
#[derive(Clone, Copy, Debug)]
pub struct TcpLanes {
    /// All ones: the lane is such a segment (if the frame took the straight path).
    pub plain: u32x8,
    /// Sequence numbers.
    pub sequence: u32x8,
    /// Acknowledgement numbers.
    pub acknowledgment: u32x8,
    /// The window field in the low half, bytes of data in the high one.
    pub window_and_len: u32x8,
}

impl TcpLanes {
    const NONE: Self = Self {
        plain: u32x8::ZERO,
        sequence: u32x8::ZERO,
        acknowledgment: u32x8::ZERO,
        window_and_len: u32x8::ZERO,
    };

    /// Of headers that begin in the middle of word 5 and have `header` words; `l4_len` bytes with the data.
    #[inline(always)]
    fn of(w: &[u32x8; COLUMNS], header: u32x8, l4_len: u32x8) -> Self {
        const ACK_ALONE: u32 = 0x10;
        const ACK_SYN_RST_FIN: u32 = 0x17;
        let flags: u32x8 = w[8] >> 24;
        Self {
            plain: (flags & splat(ACK_SYN_RST_FIN)).cmp_eq(splat(ACK_ALONE)),
            sequence: swapped_32(across(w[6], w[7])),
            acknowledgment: swapped_32(across(w[7], w[8])),
            window_and_len: swapped(low(w[9])) | ((l4_len - (header << 2)) << 16),
        }
    }
}

/// Frames of the straight path ([`super::parse_straight`]) that have at least 60 bytes and, if TCP, no options but time
/// stamps in their usual place.
///
/// What is wrong with a frame is collected as bits that are not 0 (`a ^ b`: they differ; `a - b >> 31`: a is less; the lesser of two:
/// both are wrong) and compared once at the end: masks of comparisons that are combined with each other are packed and unpacked by
/// the compiler again and again.
#[inline(always)]
#[must_use]
pub fn parse_lanes(frames: &[&[u8]; LANES], device: &[RxChecksum; LANES], verify_l4: bool) -> Lanes {
    let headers = frames.map(|f| f.get(FROM..TO).and_then(|f| f.first_chunk()).unwrap_or(&NOTHING));
    let mut w = simd::columns(&headers).map(u32x8::new);
    let length = u32x8::new(frames.map(|f| f.len() as u32));
    let said = Said::of(device);

    let ip_len = swapped(low(w[1]));
    let end = ip_len + splat(ETHERNET as u32);
    let l4_len = ip_len - splat(u32::from(Straight::IP_HEADER));
    // EtherType; version and header length; fragment offset and MORE FRAGMENTS.
    let ip = ((w[0] ^ splat(0x0045_0008)) & splat(0x00ff_ffff)) | (w[2] & splat(0xff3f)) | less(length, end);
    let protocol: u32x8 = w[2] >> 24;
    let not_udp = protocol ^ splat(u32::from(protocol::UDP));
    let not_tcp = protocol ^ splat(u32::from(protocol::TCP));
    let udp = not_udp | (swapped(high(w[6])) ^ l4_len) | less(ip_len, splat(28));
    let header: u32x8 = (w[8] >> 20) & splat(15);
    // NOP, NOP, time stamps, their length (RFC 7323, appendix A).
    let stamped = (header ^ splat(8)) | (across(w[10], w[11]) ^ splat(0x0a08_0101));
    let options = (header ^ splat(5)).min(stamped);
    let tcp = not_tcp | options | less(ip_len, (header << 2) + splat(20));
    let mut wrong = ip | udp.min(tcp);

    // What both sums have: the addresses.
    let addresses = high(w[3]) + low(w[4]) + high(w[4]) + low(w[5]);
    let ip_sum = addresses + high(w[0]) + low(w[1]) + high(w[1]) + low(w[2]) + high(w[2]) + low(w[3]);
    wrong |= said.wrong(RxChecksum::IP_GOOD, RxChecksum::IP_BAD, ip_sum);
    if verify_l4 && !said.all(RxChecksum::L4_GOOD) {
        if less(end, splat(TO as u32)).any() {
            // Padding is not part of the packet.
            for (k, word) in w.iter_mut().enumerate().skip(7) {
                let at = splat((FROM + 4 * k) as u32);
                let bytes: u32x8 = end.max(at) - at;
                let some: u32x8 = (splat(1) << (bytes << 3)) - splat(1);
                *word &= bytes.cmp_gt(splat(3)) | some;
            }
        }
        let pseudo = (protocol << 8) + swapped(l4_len);
        let mut sum = addresses + pseudo + high(w[5]);
        for word in &w[6..] {
            sum = sum + low(*word) + (*word >> 16);
        }
        if less(splat(TO as u32), end).any() {
            sum += rest(frames, end);
        }
        let unchecked = not_udp | low(w[7]);
        wrong |= unchecked.min(said.wrong(RxChecksum::L4_GOOD, RxChecksum::L4_BAD, sum));
    }
    let is_tcp = not_tcp.cmp_eq(u32x8::ZERO);
    let tcp = if is_tcp.any() {
        let of = TcpLanes::of(&w, header, l4_len);
        TcpLanes {
            plain: of.plain & is_tcp,
            ..of
        }
    } else {
        TcpLanes::NONE
    };
    Lanes {
        taken: wrong.cmp_eq(u32x8::ZERO),
        source: across(w[3], w[4]),
        destination: across(w[4], w[5]),
        ports: swapped_halves(across(w[5], w[6])),
        ip_len,
        protocol,
        tcp,
    }
}

/// What devices said about the checksums of eight frames.
struct Said {
    /// Of each.
    lanes: u32x8,
    /// What was said of any of them, and of all.
    any: u32,
    all: u32,
}

impl Said {
    #[inline(always)]
    fn of(device: &[RxChecksum; LANES]) -> Self {
        let bits = device.map(RxChecksum::bits);
        Self {
            lanes: u32x8::new(bits),
            any: bits.iter().fold(0, |any, bits| any | bits),
            all: bits.iter().fold(RxChecksum::ALL, |all, bits| all & bits),
        }
    }

    /// Was `good` said of all, and no contrary of any? Nothing is to be summed then.
    #[inline(always)]
    const fn all(&self, good: u32) -> bool {
        self.all & good != 0 && self.any & (RxChecksum::L4_BAD | RxChecksum::IP_BAD) == 0
    }

    /// Not 0: the device says that a checksum is wrong or, where it says nothing, the sum of all words is.
    #[inline(always)]
    fn wrong(&self, good: u32, bad: u32, sum: u32x8) -> u32x8 {
        // Of fewer than 64 words that are not all 0, so that one folding leaves no other multiple of 0xffff.
        let wrong = (low(sum) + high(sum)) ^ splat(0xffff);
        if self.any & (good | bad) == 0 {
            return wrong;
        }
        let said = self.lanes & splat(good | bad);
        // Both bits: it did not look.
        (wrong | said.cmp_eq(splat(bad))).min(said ^ splat(good))
    }
}

/// The sums of what is behind the words.
#[inline(never)]
fn rest(frames: &[&[u8]; LANES], end: u32x8) -> u32x8 {
    let mut sums = [0; LANES];
    for ((frame, end), sum) in frames.iter().zip(end.to_array()).zip(&mut sums) {
        if let Some(rest) = frame.get(TO..end as usize) {
            *sum = u32::from(Sum::ZERO.bytes(rest).fold().swap_bytes());
        }
    }
    u32x8::new(sums)
}

/// The top bit set: a < b, of numbers below 2^31.
#[inline(always)]
fn less(a: u32x8, b: u32x8) -> u32x8 {
    (a - b) & splat(1 << 31)
}

#[inline(always)]
fn splat(value: u32) -> u32x8 {
    u32x8::new([value; LANES])
}

/// The first of a word's two 16-bit words.
#[inline(always)]
fn low(word: u32x8) -> u32x8 {
    word & splat(0xffff)
}

/// The second.
#[inline(always)]
fn high(word: u32x8) -> u32x8 {
    word >> 16
}

/// The word that the second half of one word and the first half of the next are.
#[inline(always)]
fn across(word: u32x8, next: u32x8) -> u32x8 {
    high(word) | (next << 16)
}

/// A 16-bit word between network and host byte order.
#[inline(always)]
fn swapped(word: u32x8) -> u32x8 {
    low((word << 8) | (word >> 8))
}

/// Both 16-bit words of a word between network and host byte order.
#[inline(always)]
fn swapped_halves(word: u32x8) -> u32x8 {
    let even = splat(0x00ff_00ff);
    ((word & even) << 8) | ((word >> 8) & even)
}

/// A word between network and host byte order.
#[inline(always)]
fn swapped_32(word: u32x8) -> u32x8 {
    let halves = swapped_halves(word);
    (halves << 16) | (halves >> 16)
}
