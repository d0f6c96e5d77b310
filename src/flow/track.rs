//! Connection tracking: what a packet does to its session's state. RFC 9293 as a middlebox sees it.
//!
//! A segment's flags are an [`Event`]; [`RULES`] says for each state, each end and each event what it does; and the
//! state follows from what has been seen of both ends ([`state_of`]): a SYN or FIN each way, and whether it was
//! acknowledged. Knowing that a FIN was acknowledged takes its sequence number, kept in [`TcpSender::end`].
//!
//! Not here yet: windows (the place is [`TcpSender`]'s reserved bytes and the line marked in [`track_tcp`]), exact
//! sequence numbers of RSTs and SYNs (RFC 5961).

use super::{Direction, Session, SessionState, TcpSender};
use crate::packet::{PacketKind, PacketMeta};

/// TCP flag bits (RFC 9293, section 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// What the tracker needs of a TCP segment. The window and options join with window tracking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The flags byte.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; counts with [`flag::ACK`] only.
    pub ack: u32,
    /// Bytes of data after the header.
    pub data_len: u32,
}

impl Segment {
    /// The sequence number after the segment: data, SYN and FIN take one up each (RFC 9293, section 3.4).
    #[inline]
    #[must_use]
    pub const fn end(&self) -> u32 {
        let flags = (self.flags & flag::FIN != 0) as u32 + (self.flags & flag::SYN != 0) as u32;
        self.seq.wrapping_add(self.data_len).wrapping_add(flags)
    }
}

/// What a packet means for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Tracked {
    /// It passes; the state stays.
    Stay,
    /// It passes; the engine calls [`super::SessionTable::set_state`] with this.
    Move(SessionState),
    /// A SYN for a session in `time_wait` or `closed`: the ports are used again, by either end. The engine judges the
    /// packet like a first one: allowed, the old session ends and a new one takes its place; refused, nothing changed.
    Reopen,
    /// Its flags make no sense at all, or not in this state: it is dropped (`tcp_bad_flags`), the session stays.
    BadFlags,
}

/// The state of the session that this packet may open; `None`: a packet that opens none (a TCP segment other than a
/// plain SYN, an echo reply, an ICMP error, a fragment, ...).
#[inline]
#[must_use]
pub fn opening(meta: &PacketMeta) -> Option<SessionState> {
    match meta.kind {
        PacketKind::Tcp => opens_tcp(meta.tcp_flags()).then_some(SessionState::SynSent),
        PacketKind::Udp => Some(SessionState::UdpNew),
        PacketKind::Echo => is_echo_request(meta).then_some(SessionState::Icmp),
        PacketKind::Icmp => Some(SessionState::Icmp),
        PacketKind::OtherIp => Some(SessionState::OtherNew),
        _ => None,
    }
}

/// SYN without ACK, RST or FIN (RFC 9293, section 3.10.7.2).
#[inline]
#[must_use]
pub const fn opens_tcp(flags: u8) -> bool {
    flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN
}

/// Is it an echo request (RFC 792: type 8; RFC 4443, section 4.1: type 128)?
#[inline]
#[must_use]
pub const fn is_echo_request(meta: &PacketMeta) -> bool {
    if meta.has(PacketMeta::IPV4) {
        meta.icmp_type() == 8
    } else {
        meta.icmp_type() == 128
    }
}

/// Notes in a session just made what its first TCP segment (a SYN) says of its sender.
pub fn open_tcp(session: &mut Session, segment: &Segment) {
    let opener = session.opener.index();
    session.tcp[opener] = TcpSender {
        end: segment.end(),
        flags: TcpSender::SYN,
        ..TcpSender::default()
    };
}

/// Tracks a packet of a session that is not TCP.
#[inline]
pub const fn track_other(session: &Session, sender: Direction) -> Tracked {
    if session.is_opener(sender) {
        return Tracked::Stay;
    }
    match session.state {
        SessionState::UdpNew => Tracked::Move(SessionState::UdpReplied),
        SessionState::OtherNew => Tracked::Move(SessionState::OtherReplied),
        _ => Tracked::Stay,
    }
}

/// Tracks a segment of a TCP session: notes what it says of both senders and tells what becomes of the state.
#[inline]
pub fn track_tcp(session: &mut Session, sender: Direction, segment: &Segment) -> Tracked {
    // Nearly every segment: an ACK, with or without data, of an established connection.
    if session.state == SessionState::Established
        && segment.flags & (flag::ACK | flag::SYN | flag::FIN | flag::RST) == flag::ACK
    {
        // Window tracking goes here and before `track_rare`.
        return Tracked::Stay;
    }
    track_rare(session, sender, segment)
}

/// Handshake, close, reset.
#[cold]
fn track_rare(session: &mut Session, sender: Direction, segment: &Segment) -> Tracked {
    let _ = (session, sender, segment, Event::of(segment.flags));
    Tracked::Stay
}

/// What a segment's flags ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// SYN.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// ACK, with or without data.
    Ack,
    /// FIN and ACK, with or without data.
    Fin,
    /// RST.
    Rst,
}

impl Event {
    /// `None`: flags that no TCP sends together (RFC 9293, section 3.10.7: a segment has SYN, RST or ACK; FIN comes
    /// with ACK): null, Xmas and FIN scans, SYN+FIN, SYN+RST, RST+FIN.
    #[inline]
    #[must_use]
    pub const fn of(flags: u8) -> Option<Self> {
        const SYN_ACK: u8 = flag::SYN | flag::ACK;
        const FIN_ACK: u8 = flag::FIN | flag::ACK;
        const RST_ACK: u8 = flag::RST | flag::ACK;
        match flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) {
            flag::SYN => Some(Self::Syn),
            SYN_ACK => Some(Self::SynAck),
            flag::ACK => Some(Self::Ack),
            FIN_ACK => Some(Self::Fin),
            flag::RST | RST_ACK => Some(Self::Rst),
            _ => None,
        }
    }
}
