//! Connection tracking: what a packet does to its session's state. RFC 9293 as a middlebox sees it.
//!
//! A segment's flags are an [`Event`]; a table of rules says for each state, each end and each event what it
//! does; and the state follows from what has been seen of both ends: a SYN or FIN each way, and whether it was
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
        PacketKind::Echo | PacketKind::Icmp => (!is_icmp_reply(meta)).then_some(SessionState::Icmp),
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

/// The ICMP type that this one answers; `None`: it answers nothing. Echo, time stamp, information and address mask (RFC
/// 792; RFC 950, appendix I); echo (RFC 4443, section 4.2), node information (RFC 4620), home agent addresses and mobile
/// prefixes (RFC 6275, sections 6.6 and 6.8).
#[inline]
#[must_use]
pub const fn answered_type(ipv4: bool, icmp_type: u8) -> Option<u8> {
    match (ipv4, icmp_type) {
        (true, 0) => Some(8),
        (true, asks @ (14 | 16 | 18)) | (false, asks @ (129 | 140 | 145 | 147)) => Some(asks - 1),
        _ => None,
    }
}

/// Is it an answer, which belongs to the session of what it answers and opens none?
#[inline]
#[must_use]
pub const fn is_icmp_reply(meta: &PacketMeta) -> bool {
    answered_type(meta.has(PacketMeta::IPV4), meta.icmp_type()).is_some()
}

/// What of an ICMP packet other than an echo or an error is part of its flow's key: type and code of the query, the same
/// for its answer.
#[inline]
#[must_use]
pub const fn icmp_query(meta: &PacketMeta) -> u16 {
    let icmp_type = match answered_type(meta.has(PacketMeta::IPV4), meta.icmp_type()) {
        Some(asks) => asks,
        None => meta.icmp_type(),
    };
    // Node information has codes of its own in queries and in replies (RFC 4620, section 4).
    let code = match (meta.has(PacketMeta::IPV4), icmp_type) {
        (false, 139) => 0,
        _ => meta.detail,
    };
    u16::from_be_bytes([icmp_type, code])
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

/// Is this one of the nearly all packets that change nothing of what is tracked? Then [`track_tcp`] or [`track_other`] would
/// say [`Tracked::Stay`] and note nothing. (`false` only means that they have to be asked.)
#[inline(always)]
#[must_use]
pub fn is_steady(session: &Session, sender: Direction, tcp_flags: u8) -> bool {
    match session.state {
        // Window tracking goes here, too.
        SessionState::Established => tcp_flags & (flag::ACK | flag::SYN | flag::FIN | flag::RST) == flag::ACK,
        SessionState::UdpReplied | SessionState::OtherReplied | SessionState::Icmp => true,
        SessionState::UdpNew | SessionState::OtherNew => session.is_opener(sender),
        _ => false,
    }
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

/// Handshake, close, reset: everything that the table of rules decides.
#[cold]
fn track_rare(session: &mut Session, sender: Direction, segment: &Segment) -> Tracked {
    let Some(event) = Event::of(segment.flags) else {
        return Tracked::BadFlags;
    };
    let end = usize::from(!session.is_opener(sender));
    let Some(rules) = RULES.get(session.state.index()) else {
        return Tracked::BadFlags; // not a TCP session: the key's protocol rules it out
    };
    let next = match rules[end][event as usize] {
        Rule::Pass => return Tracked::Stay,
        Rule::Refuse => return Tracked::BadFlags,
        Rule::Reopen => return Tracked::Reopen,
        Rule::Reset => SessionState::Closed,
        Rule::Note => {
            note(&mut session.tcp, sender, segment);
            state_of(&session.tcp)
        }
    };
    if next == session.state {
        Tracked::Stay
    } else {
        Tracked::Move(next)
    }
}

/// What a rule says about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It passes and tells nothing.
    Pass,
    /// It passes; what it says of the two senders is noted, and the state follows.
    Note,
    /// It passes and ends the connection.
    Reset,
    /// A new connection on the same ports.
    Reopen,
    /// No TCP sends this here.
    Refuse,
}

use Rule::{Note, Pass, Refuse, Reopen, Reset};

/// For each TCP state, end (opener, replier) and event (SYN, SYN+ACK, ACK, FIN, RST) a rule. Sections are RFC 9293's.
///
/// | rule | state | end | event | why |
/// | --- | --- | --- | --- | --- |
/// | 1 | syn_sent | opener | SYN | sent again (3.8.1), perhaps with another ISN |
/// | 2 | syn_sent | opener | SYN+ACK, ACK, FIN | it has seen nothing that it could acknowledge (3.5) |
/// | 3 | syn_sent | replier | SYN | simultaneous open (3.5, figure 7) |
/// | 4 | syn_sent | replier | SYN+ACK | second step of the handshake (3.5, figure 6) |
/// | 5 | syn_sent | replier | ACK | it still holds an old connection; the opener will reset it (3.5.1, figure 9) |
/// | 6 | syn_sent | replier | FIN | of an old connection; the ACK of rule 5 follows |
/// | 7 | syn_sent2, syn_received | either | SYN, SYN+ACK | first or again (3.8.1) |
/// | 8 | syn_sent2 | either | ACK | acknowledges the other's SYN (3.10.7.4, fifth, SYN-RECEIVED) |
/// | 9 | syn_received | either | ACK | third step of the handshake; or the replier's data before it (RFC 7413) |
/// | 10 | syn_sent2, syn_received | either | FIN | closed at once; acknowledges the SYN too (3.10.4, SYN-RECEIVED) |
/// | 11 | established to last_ack | either | SYN | passes for the challenge ACK that answers it (3.10.7.4, fourth) |
/// | 12 | established to closed | either | SYN+ACK | a late copy; an endpoint answers it with an ACK at most |
/// | 13 | established | either | ACK | data and acknowledgements |
/// | 14 | established to last_ack | either | FIN | the sender closes (3.6) |
/// | 15 | fin_wait to last_ack | either | ACK | may acknowledge the other's FIN (3.6, figures 12 and 13) |
/// | 16 | all but closed | either | RST | the connection is aborted (3.10.7.3, 3.10.7.4, second); in time_wait too |
/// | 17 | time_wait, closed | either | SYN | a new connection on the same ports (3.6.1; 3.10.7.4, TIME-WAIT; RFC 6191) |
/// | 18 | time_wait | either | ACK, FIN | the last ones sent again (3.10.7.4, eighth, TIME-WAIT) |
/// | 19 | closed | either | ACK, FIN, RST | on their way when it was reset; answered by an RST (3.10.7.1) |
const RULES: [[[Rule; 5]; 2]; 10] = [
    // syn_sent
    [
        [Note, Refuse, Refuse, Refuse, Reset],
        [Note, Note, Pass, Refuse, Reset],
    ],
    // syn_sent2
    [[Note, Note, Note, Note, Reset]; 2],
    // syn_received
    [[Note, Note, Note, Note, Reset]; 2],
    // established
    [[Pass, Pass, Pass, Note, Reset]; 2],
    // fin_wait
    [[Pass, Pass, Note, Note, Reset]; 2],
    // close_wait
    [[Pass, Pass, Note, Note, Reset]; 2],
    // closing
    [[Pass, Pass, Note, Note, Reset]; 2],
    // last_ack
    [[Pass, Pass, Note, Note, Reset]; 2],
    // time_wait
    [[Reopen, Pass, Pass, Pass, Reset]; 2],
    // closed
    [[Reopen, Pass, Pass, Pass, Pass]; 2],
];

/// Notes what a segment says of its sender's SYN and FIN, and of the other end's, which it may acknowledge.
fn note(tcp: &mut [TcpSender; 2], sender: Direction, segment: &Segment) {
    let this = &mut tcp[sender.index()];
    if segment.flags & flag::SYN != 0 && !this.has(TcpSender::SYN_ACKED) {
        this.flags |= TcpSender::SYN;
        this.end = segment.end();
    }
    // Until it is acknowledged the newest FIN counts: one with more data before it replaces one sent earlier.
    if segment.flags & flag::FIN != 0 && !this.has(TcpSender::FIN_ACKED) {
        this.flags |= TcpSender::FIN;
        this.end = segment.end();
    }
    let other = &mut tcp[sender.reverse().index()];
    if segment.flags & flag::ACK != 0 {
        if other.has(TcpSender::SYN) {
            other.flags |= TcpSender::SYN_ACKED;
        }
        // Exactly: nothing after a FIN can be acknowledged, and nothing less acknowledges it.
        if other.has(TcpSender::FIN) && segment.ack == other.end {
            other.flags |= TcpSender::FIN_ACKED;
        }
    }
}

/// The state that follows from what was seen of both ends (RFC 9293, section 3.3.2, from the middle).
const fn state_of(tcp: &[TcpSender; 2]) -> SessionState {
    const fn both(tcp: &[TcpSender; 2], flag: u8) -> u8 {
        tcp[0].has(flag) as u8 + tcp[1].has(flag) as u8
    }
    match (both(tcp, TcpSender::FIN), both(tcp, TcpSender::FIN_ACKED)) {
        (0, _) => match (both(tcp, TcpSender::SYN), both(tcp, TcpSender::SYN_ACKED)) {
            (0 | 1, _) => SessionState::SynSent,
            (_, 0) => SessionState::SynSent2,
            (_, 1) => SessionState::SynReceived,
            _ => SessionState::Established,
        },
        (1, 0) => SessionState::FinWait,
        (1, _) => SessionState::CloseWait,
        (_, 0) => SessionState::Closing,
        (_, 1) => SessionState::LastAck,
        _ => SessionState::TimeWait,
    }
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
