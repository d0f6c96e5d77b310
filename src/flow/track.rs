//! Connection tracking: what a packet does to its session's state. RFC 9293 as a middlebox sees it.
//!
//! A segment's flags are an [`Event`]; a table of rules says for each state, each end and each event what it
//! does; and the state follows from what has been seen of both ends: a SYN or FIN each way, and whether it was
//! acknowledged. Knowing that a FIN was acknowledged takes its sequence number, kept in [`TcpSender::end`].
//!
//! Before the table is asked, a segment's numbers are held against what both ends may send ([`super::window`]).

pub use super::segment::flag;
use super::window::{self, Plain, Reset};
use super::{Direction, Segment, Session, SessionState, TcpSender};
use crate::packet::{PacketKind, PacketMeta};

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
    /// Its numbers are not what its end may send now: it is dropped (`tcp_out_of_window`), the session stays.
    OutOfWindow,
    /// A RST that passes, and that its receiver may or may not accept: the state stays, but [`Session::timeout`] is short
    /// now; the engine calls [`super::SessionTable::set_state`] with the state that it has.
    Shorten,
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

/// Notes in a session just made what its first TCP segment (a SYN) says of its sender. `false`: it has data and no Fast Open
/// option, and is none that may open a session.
#[must_use]
pub fn open_tcp(session: &mut Session, segment: &Segment) -> bool {
    window::start(&mut session.tcp, session.opener, segment);
    !is_strict(session) || segment.data_len == 0 || segment.options.fast_open
}

/// Notes in a session just made what a segment in mid-stream says of both ends (`pickup`).
pub fn pick_up_tcp(session: &mut Session, segment: &Segment) {
    window::pick_up(&mut session.tcp, session.opener, segment);
}

/// Is this one of the nearly all packets that change nothing but numbers and counters? Then what is to be noted of its
/// numbers is noted. (`false`: nothing changed, and [`track_tcp`] or [`track_other`] has to be asked.) `plain` reads a
/// TCP segment; `None`: it has a flag or an option that takes a closer look.
#[inline(always)]
#[must_use]
pub fn is_steady(session: &mut Session, sender: Direction, plain: impl FnOnce() -> Option<Plain>) -> bool {
    // The usual two by a test each, which costs less than a jump through a table.
    if session.state == SessionState::Established {
        return plain().is_some_and(|segment| window::pass_plain(&mut session.tcp, sender, &segment));
    }
    if session.state == SessionState::UdpReplied {
        return true;
    }
    match session.state {
        SessionState::OtherReplied => true,
        // Of an answer the first one is looked at closer, and nothing tells which that is.
        SessionState::Icmp => !session.key.class.is_echo() && session.is_opener(sender),
        SessionState::UdpNew | SessionState::OtherNew => session.is_opener(sender),
        _ => false,
    }
}

/// Can `sender` have sent a segment with this sequence number that is not acknowledged and forgotten? What an ICMP error
/// about it must prove (RFC 5927, section 4.1).
#[must_use]
pub fn has_sent(session: &Session, sender: Direction, seq: u32) -> bool {
    !is_strict(session) || window::was_sent(&session.tcp, sender, seq)
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

/// Are sequence numbers looked at?
const fn is_strict(session: &Session) -> bool {
    session.flags & Session::LIBERAL == 0
}

/// Tracks a segment of a TCP session: notes what it says of both senders and tells what becomes of the state.
pub fn track_tcp(session: &mut Session, sender: Direction, segment: &Segment) -> Tracked {
    let Some(event) = Event::of(segment.flags) else {
        return Tracked::BadFlags;
    };
    let end = usize::from(!session.is_opener(sender));
    let Some(rules) = RULES.get(session.state.index()) else {
        return Tracked::BadFlags; // not a TCP session: the key's protocol rules it out
    };
    let strict = is_strict(session);
    let tcp = &mut session.tcp;
    let next = match rules[end][event as usize] {
        Rule::Pass => return Tracked::Stay,
        Rule::Refuse => return Tracked::BadFlags,
        Rule::Reopen => return Tracked::Reopen,
        Rule::Late if strict && !is_late(tcp, sender, segment) => return Tracked::OutOfWindow,
        Rule::Late => {
            // A FIN or data that the RST overtook: its receiver goes on with the number after it.
            if event != Event::Rst {
                window::advance(tcp, sender, segment);
            }
            return Tracked::Stay;
        }
        // What acknowledges an old connection has no data.
        Rule::Old if strict && segment.data_len > 0 => return Tracked::OutOfWindow,
        Rule::Old => {
            // The opener's RST will carry this number.
            let this = &mut tcp[sender.index()];
            this.acked = segment.ack;
            this.flags |= TcpSender::ACKED;
            return Tracked::Stay;
        }
        Rule::Refused => match refused(tcp, session.opener, sender, segment) {
            Some(next) => next,
            None if strict => return Tracked::OutOfWindow,
            None => SessionState::Closed,
        },
        Rule::Reset => match window::reset(tcp, sender, segment.seq) {
            Reset::Outside
                if strict
                    && is_gone(&tcp[sender.index()])
                    && window::answers_old(tcp, sender, segment.seq) =>
            {
                return Tracked::Stay;
            }
            Reset::Outside if strict => return Tracked::OutOfWindow,
            Reset::Inside if strict && session.flags & Session::OUTLIVED != 0 => return Tracked::Stay,
            Reset::Inside if strict => {
                tcp[sender.index()].flags |= TcpSender::RESET;
                return Tracked::Shorten;
            }
            _ => SessionState::Closed,
        },
        // Picked up in mid-stream, and not answered yet: its numbers have begun long ago, or anew.
        Rule::Syn if tcp[0].has(TcpSender::SETTLED) => {
            return if event == Event::Syn {
                Tracked::Reopen
            } else {
                Tracked::Stay
            };
        }
        Rule::Syn => {
            if strict && !may_start(tcp, sender, segment) {
                return Tracked::OutOfWindow;
            }
            note_syn(tcp, sender, segment);
            state_of(tcp)
        }
        Rule::Note => {
            if strict && !may_go_on(tcp, sender, segment) {
                return Tracked::OutOfWindow;
            }
            note(tcp, sender, segment);
            // It was asked whether it sent that RST (RFC 5961, section 3.2), or had not heard of it: it has not closed.
            let doubted = &mut tcp[sender.reverse().index()];
            if doubted.has(TcpSender::RESET) {
                doubted.flags &= !TcpSender::RESET;
                session.flags |= Session::OUTLIVED;
            }
            state_of(tcp)
        }
    };
    if next == session.state {
        Tracked::Stay
    } else {
        Tracked::Move(next)
    }
}

/// A SYN or SYN+ACK of an end whose numbers may still start: a SYN+ACK acknowledges the other's SYN, and data needs Fast
/// Open (RFC 7413).
fn may_start(tcp: &[TcpSender; 2], sender: Direction, segment: &Segment) -> bool {
    let other = &tcp[sender.reverse().index()];
    if segment.has(flag::ACK) {
        let early = segment.data_len > 0 && !other.has(TcpSender::FAST_OPEN);
        window::acknowledges_syn(other, segment.ack) && !early
    } else {
        segment.data_len == 0 || segment.options.fast_open
    }
}

/// A segment with ACK: its sender has sent a SYN, its numbers are in the window, and data comes after the handshake, but for
/// that which answers a Fast Open.
fn may_go_on(tcp: &[TcpSender; 2], sender: Direction, segment: &Segment) -> bool {
    let (this, other) = (&tcp[sender.index()], &tcp[sender.reverse().index()]);
    let early = segment.data_len > 0 && !this.has(TcpSender::SYN_ACKED) && !other.has(TcpSender::FAST_OPEN);
    this.has(TcpSender::SYN) && window::is_in_window(tcp, sender, segment) && !early
}

/// May its socket be gone, so that it answers what still arrives with RSTs?
const fn is_gone(this: &TcpSender) -> bool {
    this.has(TcpSender::FIN) || this.has(TcpSender::RESET)
}

/// A segment of a connection that is over: one that was on its way, or sent again.
fn is_late(tcp: &[TcpSender; 2], sender: Direction, segment: &Segment) -> bool {
    if segment.has(flag::RST) {
        return window::reset(tcp, sender, segment.seq) != Reset::Outside
            || window::answers_old(tcp, sender, segment.seq);
    }
    window::is_in_window(tcp, sender, segment)
}

/// A RST before there was a SYN of the replier: it must acknowledge the SYN (RFC 9293, section 3.10.7.3, second), or be the
/// opener's own. The opener also answers an ACK of an old connection with one that the replier alone shall hear.
fn refused(
    tcp: &[TcpSender; 2],
    opener: Direction,
    sender: Direction,
    segment: &Segment,
) -> Option<SessionState> {
    let (first, second) = (&tcp[opener.index()], &tcp[opener.reverse().index()]);
    if sender == opener {
        if second.has(TcpSender::ACKED) && segment.seq == second.acked {
            return Some(SessionState::SynSent);
        }
        let own = segment.seq == first.end || segment.seq == first.acked;
        return own.then_some(SessionState::Closed);
    }
    let acknowledges = segment.has(flag::ACK) && window::acknowledges_syn(first, segment.ack);
    acknowledges.then_some(SessionState::Closed)
}

/// What a rule says about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It passes, whatever its numbers, and tells nothing.
    Pass,
    /// It passes if its acknowledgement or data is in the window; what it says of the two senders is noted, and the state
    /// follows.
    Note,
    /// Numbers start: it passes if it may, and is noted.
    Syn,
    /// It passes and ends the connection, if it is one that its receiver accepts.
    Reset,
    /// The same before there are numbers of the replier.
    Refused,
    /// It passes if it is in the window; its numbers are noted, and the state stays.
    Late,
    /// It passes; its acknowledgement is kept for the RST that answers it.
    Old,
    /// A new connection on the same ports.
    Reopen,
    /// No TCP sends this here.
    Refuse,
}

use Rule::{Late, Note, Old, Pass, Refuse, Refused, Reopen, Reset as Abort, Syn};

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
/// | 7 | syn_sent | either | RST | refused: it acknowledges the SYN; or the opener gives up (3.10.7.3, second) |
/// | 8 | syn_sent2, syn_received | either | SYN, SYN+ACK | first or again (3.8.1) |
/// | 9 | syn_sent2 | either | ACK | acknowledges the other's SYN (3.10.7.4, fifth, SYN-RECEIVED) |
/// | 10 | syn_received | either | ACK | third step of the handshake; or the replier's data before it (RFC 7413) |
/// | 11 | syn_sent2, syn_received | either | FIN | closed at once; acknowledges the SYN too (3.10.4, SYN-RECEIVED) |
/// | 12 | established to last_ack | either | SYN | passes for the challenge ACK that answers it (3.10.7.4, fourth) |
/// | 13 | established to closed | either | SYN+ACK | a late copy; an endpoint answers it with an ACK at most |
/// | 14 | established | either | ACK | data and acknowledgements |
/// | 15 | established to last_ack | either | FIN | the sender closes (3.6) |
/// | 16 | fin_wait to last_ack | either | ACK | may acknowledge the other's FIN (3.6, figures 12 and 13) |
/// | 17 | syn_sent2 to time_wait | either | RST | the connection is aborted (3.10.7.4, second; RFC 5961, section 3.2); after its own FIN also in answer to a segment that was overtaken (3.10.7.1) |
/// | 18 | time_wait, closed | either | SYN | a new connection on the same ports (3.6.1; 3.10.7.4, TIME-WAIT; RFC 6191) |
/// | 19 | time_wait | either | ACK, FIN | the last ones sent again (3.10.7.4, eighth, TIME-WAIT) |
/// | 20 | closed | either | ACK, FIN, RST | on their way when it was reset; answered by an RST (3.10.7.1) |
const RULES: [[[Rule; 5]; 2]; 10] = [
    // syn_sent
    [
        [Syn, Refuse, Refuse, Refuse, Refused],
        [Syn, Syn, Old, Refuse, Refused],
    ],
    // syn_sent2
    [[Syn, Syn, Note, Note, Abort]; 2],
    // syn_received
    [[Syn, Syn, Note, Note, Abort]; 2],
    // established
    [[Pass, Pass, Note, Note, Abort]; 2],
    // fin_wait
    [[Pass, Pass, Note, Note, Abort]; 2],
    // close_wait
    [[Pass, Pass, Note, Note, Abort]; 2],
    // closing
    [[Pass, Pass, Note, Note, Abort]; 2],
    // last_ack
    [[Pass, Pass, Note, Note, Abort]; 2],
    // time_wait
    [[Reopen, Pass, Late, Late, Abort]; 2],
    // closed
    [[Reopen, Pass, Late, Late, Late]; 2],
];

/// Notes a SYN or SYN+ACK; one of an end whose SYN is acknowledged tells nothing new.
fn note_syn(tcp: &mut [TcpSender; 2], sender: Direction, segment: &Segment) {
    if !tcp[sender.index()].has(TcpSender::SYN_ACKED) {
        window::start(tcp, sender, segment);
    }
    if segment.has(flag::ACK) {
        acknowledge(tcp, sender, segment);
    }
}

/// Notes what a segment with ACK says of its sender's FIN, and of the other end's SYN and FIN, which it may acknowledge.
fn note(tcp: &mut [TcpSender; 2], sender: Direction, segment: &Segment) {
    acknowledge(tcp, sender, segment);
    window::advance(tcp, sender, segment);
    let this = &mut tcp[sender.index()];
    let newest = this.end == segment.end();
    if segment.has(flag::FIN) && newest {
        // Until it is acknowledged the newest FIN counts: one with more data before it replaces one sent earlier.
        this.flags |= TcpSender::FIN;
    } else if newest && segment.data_len > 0 && !this.has(TcpSender::FIN_ACKED) {
        // Data behind a FIN: that FIN was none of this sender's.
        this.flags &= !TcpSender::FIN;
    }
}

/// What an acknowledgement says of the other end.
fn acknowledge(tcp: &mut [TcpSender; 2], sender: Direction, segment: &Segment) {
    let other = &mut tcp[sender.reverse().index()];
    if other.has(TcpSender::SYN) {
        other.flags |= TcpSender::SYN_ACKED;
    }
    // Exactly: nothing after a FIN can be acknowledged, and nothing less acknowledges it.
    if other.has(TcpSender::FIN) && segment.ack == other.end {
        other.flags |= TcpSender::FIN_ACKED;
    }
    if tcp.iter().all(|end| end.has(TcpSender::SYN_ACKED)) {
        window::settle(tcp);
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
