//! One session's news: fields with a tag and a length of one byte each. What belongs together and is always there is one field, so
//! that ten sessions of TCP over IPv4 fit into a datagram.

use super::field::{Fields, u16_of, u32_of, u64_of};
use super::{FIELD, tag};
use crate::base::{Nanos, PortId};
use crate::flow::image::{Birth, Image};
use crate::flow::station::Station;
use crate::flow::{Direction, FlowKey, KeyClass, Session, SessionState, TcpSender, Translation};
use crate::ha::message::Update;
use crate::packet::LinkHeader;

/// The tags of a session's fields, as they stand on the wire.
mod part {
    /// Low address (4), high address (4), low port (2), high port (2), domain (4), protocol (1), class (1).
    pub(super) const KEY_V4: u8 = 1;
    /// The same with addresses of 16 bytes.
    pub(super) const KEY_V6: u8 = 2;
    /// Birth (8); of a session that has not ended also: rule (8), serial (4), ingress (2), egress (2), state, opener, flags (1 each).
    pub(super) const CORE: u8 = 3;
    /// Of each sender: end, highest end, acknowledged (4 each), window (2), flags, scale (1 each). Left out if all is 0.
    pub(super) const SENDERS: u8 = 4;
    /// Bytes (8, 8), packets (8, 8), age and idle in microseconds (6, 6), which last for 9 years.
    pub(super) const COUNTS: u8 = 5;
    /// Type and code of what opened it. Left out if both are 0.
    pub(super) const ICMP: u8 = 6;
    /// Sequence, time stamp, cookie (4 each), flags, segment size, told scale, client's scale (1 each). Left out if not proxied.
    pub(super) const TRANSLATION: u8 = 7;
    /// Two headers of 20 bytes. Left out if both are unknown.
    pub(super) const LINKS: u8 = 8;
    // Reserved: 9, its NAT binding; 10, its expectations; 11, its real server.
}

const KEY_V4: usize = 18;
const KEY_V6: usize = 42;
const BIRTH: usize = 8;
/// A host: link header and port.
pub(super) const STATION: usize = LinkHeader::SIZE + 2;
const CORE: usize = 27;
const SENDER: usize = 16;
const COUNTS: usize = 44;
const TRANSLATION: usize = 16;

/// Bytes of a part's tag and length.
const HEAD: usize = 2;

/// The longest that [`write`] makes, without its tag and length: every part, over IPv6.
pub const MAX: usize =
    8 * HEAD - HEAD + KEY_V6 + CORE + 2 * SENDER + COUNTS + 2 + TRANSLATION + 2 * LinkHeader::SIZE;

/// Why a session is left out that could be read: it cannot be one. No node makes such a one; to take it in could do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUpdate {
    /// No key, or one that no packet has: ends in the wrong order, ports or a class that do not belong to the protocol.
    #[error("a key that no packet has")]
    Key,
    /// A state that its protocol does not have, or an unknown one.
    #[error("a state of another protocol")]
    State,
    /// An opener that is neither of the two ends.
    #[error("an opener that is no direction")]
    Opener,
    /// A port beyond those that a node can have.
    #[error("a port that no node has")]
    Port,
    /// A host without an address that one can have.
    #[error("a host that cannot be")]
    Station,
    /// Numbers of a sender that the tracker does not make.
    #[error("numbers that no sender has")]
    Sender,
    /// A session that is rewritten, and not how; or rewritten and no TCP.
    #[error("a translation that cannot be")]
    Translation,
}

/// What is known of one sender, as TCP has it.
fn sender_bytes(of: &TcpSender) -> [u8; SENDER] {
    let mut bytes = [0; SENDER];
    bytes[..4].copy_from_slice(&of.end.to_le_bytes());
    bytes[4..8].copy_from_slice(&of.max_end.to_le_bytes());
    bytes[8..12].copy_from_slice(&of.acked.to_le_bytes());
    bytes[12..14].copy_from_slice(&of.max_win.to_le_bytes());
    bytes[14] = of.flags;
    bytes[15] = of.scale;
    bytes
}

fn sender_of(bytes: &[u8; SENDER]) -> TcpSender {
    TcpSender {
        end: u32_of(bytes),
        max_end: u32_of(&bytes[4..]),
        acked: u32_of(&bytes[8..]),
        max_win: u16_of(&bytes[12..]),
        flags: bytes[14],
        scale: bytes[15],
    }
}

/// The low 6 bytes of a time in microseconds, or the longest that they can say.
#[inline(always)]
fn micros(time: Nanos) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = (time.0 / 1000).min((1 << 48) - 1).to_le_bytes();
    [a, b, c, d, e, f]
}

/// As [`micros`] made them.
#[inline(always)]
fn nanos(bytes: &[u8]) -> Nanos {
    let low = u64::from(u32_of(bytes));
    let high = u64::from(u16_of(bytes.get(4..).unwrap_or_default()));
    Nanos((low | (high << 32)) * 1000)
}

/// Which parts an image has beside key, core and counts.
struct Parts {
    senders: bool,
    icmp: bool,
    translation: bool,
    links: bool,
}

impl Parts {
    fn of(image: &Image) -> Self {
        Self {
            senders: image.tcp != [TcpSender::default(); 2],
            icmp: image.icmp != [0; 2],
            translation: image.flags & Session::PROXIED != 0,
            links: !image.links.iter().all(LinkHeader::is_unknown),
        }
    }

    fn len(&self) -> usize {
        let part = |there: bool, len: usize| if there { HEAD + len } else { 0 };
        part(self.senders, 2 * SENDER)
            + part(self.icmp, 2)
            + part(self.translation, TRANSLATION)
            + part(self.links, 2 * LinkHeader::SIZE)
    }
}

const fn key_len(key: &FlowKey) -> usize {
    HEAD + if key.is_ipv4() { KEY_V4 } else { KEY_V6 }
}

/// Bytes that an update takes, without its tag and length.
pub(super) fn len(update: &Update) -> usize {
    match update {
        Update::Session(image) => key_len(&image.key) + HEAD + CORE + HEAD + COUNTS + Parts::of(image).len(),
        Update::Gone { key, .. } => key_len(key) + HEAD + BIRTH,
        Update::Station(_) => STATION,
    }
}

/// A buffer on the stack that is filled from the front.
struct Buffer<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Buffer<N> {
    #[inline(always)]
    fn put<const LEN: usize>(&mut self, value: [u8; LEN]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + LEN) {
            place.copy_from_slice(&value);
            self.len += LEN;
        }
    }

    #[inline(always)]
    fn head(&mut self, tag: u8, len: usize) {
        self.put([tag, len as u8]);
    }
}

/// Appends an update with its tag and length.
pub(super) fn write(out: &mut Vec<u8>, update: &Update) {
    let mut buffer = Buffer {
        bytes: [0; FIELD + MAX],
        len: FIELD,
    };
    let tag = match update {
        Update::Session(image) => {
            write_image(&mut buffer, image);
            tag::SESSION
        }
        Update::Gone { key, birth } => {
            write_key(&mut buffer, key);
            buffer.head(part::CORE, BIRTH);
            buffer.put(birth.0.to_le_bytes());
            tag::GONE
        }
        Update::Station(station) => {
            buffer.put(station.link.to_bytes());
            buffer.put(station.port.0.to_le_bytes());
            tag::STATION
        }
    };
    let length = ((buffer.len - FIELD) as u16).to_le_bytes();
    buffer.bytes[..FIELD].copy_from_slice(&[tag, length[0], length[1]]);
    out.extend_from_slice(buffer.bytes.get(..buffer.len).unwrap_or_default());
}

#[inline(always)]
fn write_key<const N: usize>(buffer: &mut Buffer<N>, key: &FlowKey) {
    if key.is_ipv4() {
        buffer.head(part::KEY_V4, KEY_V4);
        let [.., a, b, c, d] = key.low;
        buffer.put([a, b, c, d]);
        let [.., a, b, c, d] = key.high;
        buffer.put([a, b, c, d]);
    } else {
        buffer.head(part::KEY_V6, KEY_V6);
        buffer.put(key.low);
        buffer.put(key.high);
    }
    buffer.put(key.low_port.to_le_bytes());
    buffer.put(key.high_port.to_le_bytes());
    buffer.put(key.domain.to_le_bytes());
    buffer.put([key.protocol, key.class as u8]);
}

#[inline(always)]
fn write_image<const N: usize>(buffer: &mut Buffer<N>, image: &Image) {
    let parts = Parts::of(image);
    write_key(buffer, &image.key);
    buffer.head(part::CORE, CORE);
    buffer.put(image.birth.0.to_le_bytes());
    buffer.put(image.rule.to_le_bytes());
    buffer.put(image.serial.to_le_bytes());
    buffer.put(image.ingress.0.to_le_bytes());
    buffer.put(image.egress.0.to_le_bytes());
    buffer.put([image.state as u8, image.opener as u8, image.flags & Image::FLAGS]);
    if parts.senders {
        buffer.head(part::SENDERS, 2 * SENDER);
        buffer.put(sender_bytes(&image.tcp[0]));
        buffer.put(sender_bytes(&image.tcp[1]));
    }
    buffer.head(part::COUNTS, COUNTS);
    for number in [image.bytes, image.packets].as_flattened() {
        buffer.put(number.to_le_bytes());
    }
    buffer.put(micros(image.age));
    buffer.put(micros(image.idle));
    if parts.icmp {
        buffer.head(part::ICMP, 2);
        buffer.put(image.icmp);
    }
    if parts.translation {
        let of = &image.translation;
        buffer.head(part::TRANSLATION, TRANSLATION);
        for number in [of.sequence, of.timestamp, of.cookie] {
            buffer.put(number.to_le_bytes());
        }
        buffer.put([of.flags, of.mss, of.told_scale, of.client_scale]);
    }
    if parts.links {
        buffer.head(part::LINKS, 2 * LinkHeader::SIZE);
        buffer.put(image.links[0].to_bytes());
        buffer.put(image.links[1].to_bytes());
    }
}

/// Reads a host's place, which is long enough.
pub(super) fn read_station(value: &[u8]) -> Result<Update, InvalidUpdate> {
    let (link, rest) = value.split_first_chunk().ok_or(InvalidUpdate::Station)?;
    let (port, _) = rest.split_first_chunk().ok_or(InvalidUpdate::Station)?;
    let link = LinkHeader::from_bytes(link)
        .of_source()
        .ok_or(InvalidUpdate::Station)?;
    let port = PortId(u16::from_le_bytes(*port));
    Ok(Update::Station(Station { link, port }))
}

/// Is the structure of an update of this tag right? `None`: a length runs over its end; `false`: a value is too short.
pub(super) fn check(tag: u8, value: &[u8]) -> Option<bool> {
    let core = if tag == tag::GONE { BIRTH } else { CORE };
    let mut is_long_enough = true;
    for field in Fields::<1>(value) {
        let (part, value) = field?;
        let shortest = match part {
            part::KEY_V4 => KEY_V4,
            part::KEY_V6 => KEY_V6,
            part::CORE => core,
            part::SENDERS => 2 * SENDER,
            part::COUNTS => COUNTS,
            part::ICMP => 2,
            part::TRANSLATION => TRANSLATION,
            part::LINKS => 2 * LinkHeader::SIZE,
            _ => 0,
        };
        is_long_enough &= value.len() >= shortest;
    }
    Some(is_long_enough)
}

/// The end of a session.
pub(super) fn read_gone(value: &[u8]) -> Result<Update, InvalidUpdate> {
    let (mut key, mut birth) = (None, Birth(0));
    for (part, value) in Fields::<1>(value).flatten() {
        match part {
            part::KEY_V4 | part::KEY_V6 => key = read_key(part, value),
            part::CORE => birth = Birth(u64_of(value)),
            _ => (),
        }
    }
    let key = key.ok_or(InvalidUpdate::Key)?;
    Ok(Update::Gone { key, birth })
}

/// A session.
#[inline]
pub(super) fn read(value: &[u8]) -> Result<Image, InvalidUpdate> {
    let mut image = Image::default();
    let (mut key, mut state, mut translated) = (None, 0, false);
    for (part, value) in Fields::<1>(value).flatten() {
        match part {
            part::KEY_V4 | part::KEY_V6 => key = read_key(part, value),
            part::CORE => {
                if let Some(core) = value.first_chunk::<CORE>() {
                    state = core[24];
                    image.opener = opener(core[25]).ok_or(InvalidUpdate::Opener)?;
                    image.flags = core[26] & Image::FLAGS;
                    image.birth = Birth(u64_of(core));
                    image.rule = u64_of(&core[8..]);
                    image.serial = u32_of(&core[16..]);
                    image.ingress = PortId(u16_of(&core[20..]));
                    image.egress = PortId(u16_of(&core[22..]));
                }
            }
            part::SENDERS => {
                if let Some((low, rest)) = value.split_first_chunk() {
                    let high = rest.first_chunk().map(sender_of);
                    image.tcp = [sender_of(low), high.unwrap_or_default()];
                }
            }
            part::COUNTS => {
                if let Some(counts) = value.first_chunk::<COUNTS>() {
                    image.bytes = [u64_of(counts), u64_of(&counts[8..])];
                    image.packets = [u64_of(&counts[16..]), u64_of(&counts[24..])];
                    image.age = nanos(&counts[32..]);
                    image.idle = nanos(&counts[38..]);
                }
            }
            part::ICMP => image.icmp = value.first_chunk().copied().unwrap_or_default(),
            part::TRANSLATION => {
                translated = true;
                image.translation = read_translation(value);
            }
            part::LINKS => {
                if let Some((low, rest)) = value.split_first_chunk() {
                    let high = rest.first_chunk().map(LinkHeader::from_bytes);
                    image.links = [LinkHeader::from_bytes(low), high.unwrap_or_default()];
                }
            }
            _ => (),
        }
    }
    image.key = key.ok_or(InvalidUpdate::Key)?;
    let states = states(image.key.protocol, image.key.class);
    image.state = SessionState::ALL
        .get(usize::from(state))
        .copied()
        .filter(|state| states.contains(state))
        .ok_or(InvalidUpdate::State)?;
    validate(&image, translated)?;
    if image.flags & Session::PROXIED == 0 {
        image.translation = Translation::default();
    }
    Ok(image)
}

fn read_translation(value: &[u8]) -> Translation {
    let Some(of) = value.first_chunk::<TRANSLATION>() else {
        return Translation::default();
    };
    Translation {
        sequence: u32_of(of),
        timestamp: u32_of(&of[4..]),
        cookie: u32_of(&of[8..]),
        flags: of[12],
        mss: of[13],
        told_scale: of[14],
        client_scale: of[15],
    }
}

const fn opener(number: u8) -> Option<Direction> {
    match number {
        0 => Some(Direction::LowToHigh),
        1 => Some(Direction::HighToLow),
        _ => None,
    }
}

/// The states that sessions of a protocol have.
const fn states(protocol: u8, class: KeyClass) -> std::ops::RangeInclusive<SessionState> {
    use SessionState as S;
    match (class, protocol) {
        (KeyClass::Ports, 6) => S::SynSent..=S::Closed,
        (KeyClass::Ports, _) => S::UdpNew..=S::UdpReplied,
        (KeyClass::Addresses, _) => S::OtherNew..=S::OtherReplied,
        _ => S::Icmp..=S::Icmp,
    }
}

/// A key as [`FlowKey::of`] makes them; `None`: no packet has it.
#[inline]
fn read_key(part: u8, value: &[u8]) -> Option<FlowKey> {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let mut key = FlowKey::default();
    let rest: &[u8; 10] = if part == part::KEY_V4 {
        let value = value.first_chunk::<KEY_V4>()?;
        key.low[..12].copy_from_slice(&MAPPED);
        key.low[12..].copy_from_slice(&value[..4]);
        key.high[..12].copy_from_slice(&MAPPED);
        key.high[12..].copy_from_slice(&value[4..8]);
        value.last_chunk()?
    } else {
        let value = value.first_chunk::<KEY_V6>()?;
        key.low.copy_from_slice(&value[..16]);
        key.high.copy_from_slice(&value[16..32]);
        value.last_chunk()?
    };
    key.low_port = u16_of(rest);
    key.high_port = u16_of(&rest[2..]);
    key.domain = u32_of(&rest[4..]);
    key.protocol = rest[8];
    key.class = class(rest[9])?;
    is_key(&key).then_some(key)
}

const fn class(number: u8) -> Option<KeyClass> {
    Some(match number {
        0 => KeyClass::Addresses,
        1 => KeyClass::Ports,
        2 => KeyClass::EchoFromLow,
        3 => KeyClass::EchoFromHigh,
        4 => KeyClass::IcmpFromLow,
        5 => KeyClass::IcmpFromHigh,
        _ => return None,
    })
}

/// Can a packet have this key? (One over IPv6 between IPv4-mapped addresses looks like one over IPv4.)
const fn is_key(key: &FlowKey) -> bool {
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let [low, high, _] = key.words();
    let is_in_order = low < high || (low == high && key.low_port <= key.high_port);
    let mapped = key.is_ipv4();
    let fits = match key.class {
        KeyClass::Ports => matches!(key.protocol, 6 | 17),
        KeyClass::Addresses => {
            let others = !matches!(key.protocol, 6 | 17) && (mapped || key.protocol != ICMPV6);
            others && key.low_port == 0 && key.high_port == 0
        }
        _ => {
            let icmp = key.protocol == ICMPV6 || (mapped && key.protocol == ICMP);
            icmp && key.low_port == key.high_port
        }
    };
    is_in_order && fits
}

/// Looks at what a table, a tracker or a rewrite takes for granted.
fn validate(image: &Image, translated: bool) -> Result<(), InvalidUpdate> {
    if image.ingress.index() >= MAX_PORTS || image.egress.index() >= MAX_PORTS {
        return Err(InvalidUpdate::Port);
    }
    let is_tcp = image.state <= SessionState::Closed;
    let senders = &image.tcp;
    let (is_possible, is_echo) = (|of: &TcpSender| is_sender(of), image.key.class.is_echo());
    if (is_tcp && !senders.iter().all(is_possible)) || (is_echo && !senders.iter().all(is_echoes)) {
        return Err(InvalidUpdate::Sender);
    }
    let of = &image.translation;
    let proxied = image.flags & Session::PROXIED != 0;
    let is_known = translated && of.mss < 8 && of.told_scale <= MAX_SCALE && of.client_scale <= MAX_SCALE;
    if (image.flags != 0 && !is_tcp) || (proxied && !is_known) {
        return Err(InvalidUpdate::Translation);
    }
    Ok(())
}

/// Ports that a configuration can have: two for each of 256 pairs.
const MAX_PORTS: usize = crate::flow::evict::MAX_PORTS;

/// RFC 7323, section 2.3.
const MAX_SCALE: u8 = 14;

/// Can the tracker have noted this of a TCP sender? A scale that is used is one.
const fn is_sender(of: &TcpSender) -> bool {
    of.scale <= MAX_SCALE || (of.scale == TcpSender::NO_SCALE && !of.has(TcpSender::SETTLED))
}

/// Can this be a range of numbers of echoes ([`crate::flow::echo`])?
const fn is_echoes(of: &TcpSender) -> bool {
    of.end <= 0xffff && of.max_end <= 0x8000
}
