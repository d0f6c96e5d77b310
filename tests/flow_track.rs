//! Connection tracking: every state with every kind of segment from either end, whole conversations, and two endpoints
//! on a lossy path.
#![allow(clippy::unwrap_used, reason = "tests")]

use haechi::base::slab::HeapMemory;
use haechi::base::{Nanos, SessionIx};
use haechi::flow::track::{Event, flag, is_steady, open_tcp, opening, opens_tcp, track_other, track_tcp};
use haechi::flow::{
    Direction, FlowKey, HashSeed, KeyClass, Segment, Session, SessionState, SessionTable, StateTimeouts,
    TimeoutClass, Tracked,
};
use haechi::packet::{PacketKind, PacketMeta};
use proptest::prelude::*;

const S: u8 = flag::SYN;
const SA: u8 = flag::SYN | flag::ACK;
const A: u8 = flag::ACK;
const FA: u8 = flag::FIN | flag::ACK;
const R: u8 = flag::RST;
const RA: u8 = flag::RST | flag::ACK;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Opener,
    Replier,
}
use End::{Opener, Replier};

impl End {
    fn other(self) -> Self {
        if self == Opener { Replier } else { Opener }
    }
}

/// A tracked connection, with what its ends have sent so far. Data is 100 bytes a segment.
struct Connection {
    table: SessionTable,
    ix: SessionIx,
    /// The next sequence number of each end, and the FIN's end once it is sent.
    next: [u32; 2],
    fin_end: [Option<u32>; 2],
}

impl Connection {
    /// The opener's SYN has been seen.
    fn open(opener: Direction, isn: [u32; 2]) -> Self {
        let mut table = SessionTable::new(1, &HeapMemory, HashSeed([1; 4])).unwrap();
        let mut session = Session::new(FlowKey::default(), opener, SessionState::SynSent);
        let syn = Segment {
            flags: S,
            seq: isn[0],
            ack: 0,
            data_len: 0,
        };
        open_tcp(&mut session, &syn);
        let hash = table.hash(&session.key);
        let ix = table.insert(session, hash, Nanos(0), 100).unwrap();
        Self {
            table,
            ix,
            next: [isn[0].wrapping_add(1), isn[1]],
            fin_end: [None; 2],
        }
    }

    fn state(&self) -> SessionState {
        self.table.get(self.ix).state()
    }

    /// What the tracker says of a segment, and the state after it.
    fn raw(&mut self, from: End, segment: Segment) -> (Tracked, SessionState) {
        let session = self.table.get_mut(self.ix);
        let sender = if from == Opener {
            session.opener
        } else {
            session.opener.reverse()
        };
        let tracked = track_tcp(session, sender, &segment);
        if let Tracked::Move(state) = tracked {
            assert_ne!(state, self.state(), "a move to the state that it is in");
            self.table.set_state(self.ix, state, 100);
        }
        (tracked, self.state())
    }

    /// A segment of this end with these flags and `data_len` bytes; it acknowledges the other's FIN or all but it.
    fn segment(&self, from: End, flags: u8, data_len: u32, acks_fin: bool) -> Segment {
        let (this, other) = (from as usize, from.other() as usize);
        let mut seq = self.next[this];
        if let Some(end) = self.fin_end[this] {
            // A FIN sent again is the same FIN; anything else comes after it.
            seq = if flags & flag::FIN != 0 {
                end.wrapping_sub(1)
            } else {
                end
            };
        } else if flags & flag::SYN != 0 && from == Opener {
            seq = seq.wrapping_sub(1);
        }
        let ack = match self.fin_end[other] {
            Some(end) if acks_fin => end,
            Some(end) => end.wrapping_sub(1),
            None => self.next[other],
        };
        Segment {
            flags,
            seq,
            ack,
            data_len,
        }
    }

    fn send(&mut self, from: End, flags: u8, data_len: u32, acks_fin: bool) -> (Tracked, SessionState) {
        let segment = self.segment(from, flags, data_len, acks_fin);
        let this = from as usize;
        if self.fin_end[this].is_none() {
            self.next[this] = segment.end();
            if flags & flag::FIN != 0 && Event::of(flags).is_some() {
                self.fin_end[this] = Some(segment.end());
            }
        }
        self.raw(from, segment)
    }

    /// A conversation in short: each word is `o` or `r`, a kind of segment (`s`, `sa`, `a`, `d`ata, `f`in, `r`st; `*`
    /// after `a` and `f`: acknowledges the other's FIN), and after `=` the state that it must lead to.
    fn talk(&mut self, words: &str) -> &mut Self {
        for word in words.split_whitespace() {
            let (what, expected) = word.split_once('=').unwrap();
            let from = if what.starts_with('o') { Opener } else { Replier };
            let (flags, len, acks_fin) = match &what[1..] {
                "s" => (S, 0, false),
                "sa" => (SA, 0, false),
                "a" => (A, 0, false),
                "a*" => (A, 0, true),
                "d" => (A | flag::PSH, 100, false),
                "d*" => (A | flag::PSH, 100, true),
                "f" => (FA, 0, false),
                "f*" => (FA, 0, true),
                "fd" => (FA | flag::PSH, 100, false),
                "r" => (R, 0, false),
                "ra" => (RA, 0, true),
                other => unreachable!("{other}"),
            };
            let (tracked, state) = self.send(from, flags, len, acks_fin);
            let got = match tracked {
                Tracked::Stay | Tracked::Move(_) => state.name(),
                Tracked::Reopen => "REOPEN",
                Tracked::BadFlags => "BAD",
            };
            assert_eq!(got, expected, "after {word:?} of {words:?}");
        }
        self
    }
}

/// Initial sequence numbers that stay clear of the wrap, and such that SYN, data or FIN fall on it.
const ISNS: [[u32; 2]; 5] = [
    [1000, 5000],
    [u32::MAX, u32::MAX],
    [u32::MAX - 1, u32::MAX - 101],
    [u32::MAX - 100, u32::MAX - 2],
    [0x7fff_ffff, 0x7fff_ff9b],
];

/// A fresh connection in every orientation.
fn every_way(mut test: impl FnMut(Connection)) {
    for opener in [Direction::LowToHigh, Direction::HighToLow] {
        for isn in ISNS {
            test(Connection::open(opener, isn));
        }
    }
}

fn conversation(words: &str) {
    every_way(|mut c| {
        c.talk(words);
    });
}

const HANDSHAKE: &str = "rsa=syn_received oa=established ";

/// Each way to stand between two ends: its name, the words that lead to it, and what each kind of segment does in it,
/// from the opener and from the replier. `.`: nothing; `!`: refused.
const MATRIX: &[(&str, &str, &str, &str)] = &[
    //               SYN       SYN+ACK      ACK          ACK of FIN   FIN      FIN+ACK of FIN  RST
    (
        "syn_sent",
        "",
        ".         !            !            !            !        !        closed",
        "syn_sent2 syn_received .            .            !        !        closed",
    ),
    (
        "syn_sent2",
        "rs=syn_sent2",
        ".         syn_received syn_received syn_received fin_wait fin_wait closed",
        ".         syn_received syn_received syn_received fin_wait fin_wait closed",
    ),
    (
        "syn_received",
        "rsa=syn_received",
        ".         established  established  established  fin_wait fin_wait closed",
        ".         .            .            .            fin_wait fin_wait closed",
    ),
    (
        "syn_received",
        "rs=syn_sent2 osa=syn_received",
        ".         .            .            .            fin_wait fin_wait closed",
        ".         established  established  established  fin_wait fin_wait closed",
    ),
    (
        "established",
        "H",
        ".         .            .            .            fin_wait fin_wait closed",
        ".         .            .            .            fin_wait fin_wait closed",
    ),
    (
        "fin_wait",
        "H of=fin_wait",
        ".         .            .            .            .        .        closed",
        ".         .            .            close_wait   closing  last_ack closed",
    ),
    (
        "fin_wait",
        "H rf=fin_wait",
        ".         .            .            close_wait   closing  last_ack closed",
        ".         .            .            .            .        .        closed",
    ),
    (
        "close_wait",
        "H of=fin_wait ra*=close_wait",
        ".         .            .            .            .        .        closed",
        ".         .            .            .            last_ack last_ack closed",
    ),
    (
        "close_wait",
        "H rf=fin_wait oa*=close_wait",
        ".         .            .            .            last_ack last_ack closed",
        ".         .            .            .            .        .        closed",
    ),
    (
        "closing",
        "H of=fin_wait rf=closing",
        ".         .            .            last_ack     .        last_ack closed",
        ".         .            .            last_ack     .        last_ack closed",
    ),
    (
        "last_ack",
        "H of=fin_wait rf*=last_ack",
        ".         .            .            time_wait    .        time_wait closed",
        ".         .            .            .            .        .         closed",
    ),
    (
        "last_ack",
        "H rf=fin_wait of*=last_ack",
        ".         .            .            .            .        .         closed",
        ".         .            .            time_wait    .        time_wait closed",
    ),
    (
        "time_wait",
        "H of=fin_wait rf*=last_ack oa*=time_wait",
        "REOPEN    .            .            .            .        .        closed",
        "REOPEN    .            .            .            .        .        closed",
    ),
    (
        "closed",
        "H or=closed",
        "REOPEN    .            .            .            .        .        .",
        "REOPEN    .            .            .            .        .        .",
    ),
];

#[test]
fn every_state_with_every_segment_from_either_end() {
    let columns = [
        (S, false),
        (SA, false),
        (A, false),
        (A, true),
        (FA, false),
        (FA, true),
        (R, false),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (name, way, opener_row, replier_row) in MATRIX {
        let way = way.replace('H', HANDSHAKE);
        for (from, row) in [(Opener, opener_row), (Replier, replier_row)] {
            let cells: Vec<_> = row.split_whitespace().collect();
            assert_eq!(cells.len(), columns.len());
            for (cell, (flags, acks_fin)) in cells.iter().zip(columns) {
                // Data, and flags that the tracker does not look at, change nothing.
                let len = if flags == A { 100 } else { 0 };
                for extra in [0, flag::PSH, flag::URG, flag::ECE | flag::CWR] {
                    every_way(|mut c| {
                        c.talk(&way);
                        assert_eq!(c.state().name(), *name);
                        let (tracked, after) = c.send(from, flags | extra, len, acks_fin);
                        let got = match tracked {
                            Tracked::Stay => ".",
                            Tracked::Move(_) => after.name(),
                            Tracked::Reopen => "REOPEN",
                            Tracked::BadFlags => "!",
                        };
                        assert_eq!(
                            got, *cell,
                            "{way}: {from:?} sends {flags:#04x}, acks FIN: {acks_fin}"
                        );
                        if !matches!(tracked, Tracked::Move(_)) {
                            assert_eq!(after.name(), *name);
                        }
                    });
                }
            }
        }
        seen.insert(*name);
    }
    let tcp = SessionState::ALL
        .iter()
        .filter(|s| format!("{:?}", s.timeout_class()).starts_with("Tcp"));
    assert_eq!(
        seen,
        tcp.map(|s| s.name()).collect(),
        "every TCP state is in the matrix"
    );
}

#[test]
fn flags_that_no_tcp_sends_are_refused_in_every_state() {
    let valid = [S, SA, A, FA, R, RA];
    for (name, way, ..) in MATRIX {
        let way = way.replace('H', HANDSHAKE);
        for flags in 0..=u8::MAX {
            let core = flags & (S | flag::ACK | flag::FIN | R);
            assert_eq!(Event::of(flags).is_some(), valid.contains(&core), "{flags:#04x}");
            assert_eq!(opens_tcp(flags), core == S);
            if valid.contains(&core) {
                continue;
            }
            for from in [Opener, Replier] {
                let mut c = Connection::open(Direction::LowToHigh, ISNS[0]);
                c.talk(&way);
                assert_eq!(
                    c.send(from, flags, 0, true).0,
                    Tracked::BadFlags,
                    "{name} {flags:#04x}"
                );
                assert_eq!(c.state().name(), *name);
            }
        }
    }
}

#[test]
fn ordinary_connections() {
    // Opened, data both ways, closed by the client (RFC 9293, figures 6 and 12).
    conversation(
        "rsa=syn_received oa=established od=established ra=established rd=established oa=established \
         of=fin_wait ra*=close_wait rf*=last_ack oa*=time_wait",
    );
    // Closed by the server, its FIN with the last data; the client's FIN acknowledges it.
    conversation("rsa=syn_received oa=established rfd=fin_wait of*=last_ack ra*=time_wait");
    // The client's SYN and the server's SYN+ACK sent again.
    conversation("os=syn_sent os=syn_sent rsa=syn_received rsa=syn_received os=syn_received oa=established");
    // The client's ACK is lost before us; its first data serves as well.
    conversation("rsa=syn_received od=established");
    // The client closes at once: its FIN carries the handshake's last ACK.
    conversation("rsa=syn_received of=fin_wait rf*=last_ack oa*=time_wait");
}

#[test]
fn simultaneous_open_and_close() {
    // RFC 9293, figure 7: both SYN, both SYN+ACK.
    conversation("rs=syn_sent2 osa=syn_received rsa=established");
    conversation("rs=syn_sent2 rsa=syn_received osa=established od=established");
    // An end that answers with a plain ACK.
    conversation("rs=syn_sent2 ra=syn_received oa=established");
    // Figure 13: FINs cross, then their ACKs.
    conversation("rsa=syn_received oa=established of=fin_wait rf=closing oa*=last_ack ra*=time_wait");
}

#[test]
fn half_closed_connections_go_on() {
    // The client has sent its request and closes; the server answers at length.
    conversation(
        "rsa=syn_received oa=established od=established of=fin_wait ra*=close_wait rd*=close_wait \
         oa=close_wait rd*=close_wait oa=close_wait rf*=last_ack oa*=time_wait",
    );
}

#[test]
fn a_fin_is_acknowledged_by_its_own_number_alone() {
    every_way(|mut c| {
        c.talk("rsa=syn_received oa=established od=established of=fin_wait");
        let end = c.fin_end[0].unwrap();
        for wrong in [
            end.wrapping_sub(1),
            end.wrapping_sub(101),
            end.wrapping_add(1),
            end ^ 0x8000_0000,
        ] {
            let ack = Segment {
                flags: A,
                seq: c.next[1],
                ack: wrong,
                data_len: 0,
            };
            assert_eq!(
                c.raw(Replier, ack),
                (Tracked::Stay, SessionState::FinWait),
                "{wrong} for {end}"
            );
        }
        c.talk("ra*=close_wait");
    });
}

#[test]
fn a_fin_sent_again_with_more_data_counts_anew() {
    every_way(|mut c| {
        c.talk("rsa=syn_received oa=established");
        let seq = c.next[0];
        let fin = |data_len| Segment {
            flags: FA,
            seq,
            ack: 0,
            data_len,
        };
        // Sent after 100 bytes that were lost, then both in one segment, then with 50 bytes more.
        let first = Segment {
            seq: seq.wrapping_add(100),
            ..fin(0)
        };
        assert_eq!(c.raw(Opener, first).1, SessionState::FinWait);
        assert_eq!(c.raw(Opener, fin(100)), (Tracked::Stay, SessionState::FinWait));
        assert_eq!(c.raw(Opener, fin(150)), (Tracked::Stay, SessionState::FinWait));
        let ack = |ack| Segment {
            flags: A,
            seq: 0,
            ack,
            data_len: 0,
        };
        assert_eq!(
            c.raw(Replier, ack(seq.wrapping_add(101))).1,
            SessionState::FinWait
        );
        assert_eq!(
            c.raw(Replier, ack(seq.wrapping_add(151))).1,
            SessionState::CloseWait
        );
        // Acknowledged is acknowledged.
        assert_eq!(c.raw(Opener, fin(0)), (Tracked::Stay, SessionState::CloseWait));
    });
}

#[test]
fn resets() {
    // Nobody listens.
    conversation("rra=closed");
    // The client gives up.
    conversation("or=closed");
    // In mid-stream, by either end; what was on its way passes.
    conversation("rsa=syn_received oa=established or=closed rd=closed or=closed");
    conversation("rsa=syn_received oa=established rra=closed od=closed rr=closed");
    // TIME_WAIT too.
    conversation("rsa=syn_received oa=established of=fin_wait rf*=last_ack oa*=time_wait rr=closed");
}

#[test]
fn ports_are_used_again() {
    let closed = "rsa=syn_received oa=established of=fin_wait rf*=last_ack oa*=time_wait ";
    conversation(&format!("{closed} ra=time_wait os=REOPEN"));
    conversation(&format!("{closed} rs=REOPEN"));
    conversation("rra=closed os=REOPEN");
    // Half-open (RFC 9293, figure 9): the server still holds an old connection and says so with an ACK, the client
    // resets it and tries again.
    conversation("ra=syn_sent or=closed os=REOPEN");
    // The client restarted: its SYN passes an established session, the challenge ACK comes back, the RST clears it.
    conversation("rsa=syn_received oa=established os=established ra=established or=closed os=REOPEN");
    // But not while the old connection is closing.
    conversation("rsa=syn_received oa=established of=fin_wait os=fin_wait ra*=close_wait os=close_wait");
}

#[test]
fn only_a_plain_syn_a_request_or_a_datagram_opens_a_session() {
    let meta = |kind, flags, byte| PacketMeta {
        kind,
        flags,
        tcp_flags_or_icmp_type: byte,
        ..PacketMeta::default()
    };
    let (v4, v6) = (PacketMeta::IPV4, PacketMeta::IPV6);
    for flags in 0..=u8::MAX {
        let plain_syn = flags & (S | flag::ACK | flag::FIN | R) == S;
        assert_eq!(
            opening(&meta(PacketKind::Tcp, v4, flags)),
            plain_syn.then_some(SessionState::SynSent)
        );
    }
    assert_eq!(opening(&meta(PacketKind::Udp, v4, 0)), Some(SessionState::UdpNew));
    assert_eq!(opening(&meta(PacketKind::Echo, v4, 8)), Some(SessionState::Icmp));
    assert_eq!(opening(&meta(PacketKind::Echo, v4, 0)), None);
    assert_eq!(
        opening(&meta(PacketKind::Echo, v6, 128)),
        Some(SessionState::Icmp)
    );
    assert_eq!(opening(&meta(PacketKind::Echo, v6, 129)), None);
    assert_eq!(opening(&meta(PacketKind::Icmp, v4, 13)), Some(SessionState::Icmp));
    assert_eq!(
        opening(&meta(PacketKind::OtherIp, v4, 0)),
        Some(SessionState::OtherNew)
    );
    for kind in [
        PacketKind::Malformed,
        PacketKind::BadChecksum,
        PacketKind::Arp,
        PacketKind::NonIp,
        PacketKind::NeighbourDiscovery,
        PacketKind::IcmpError,
        PacketKind::Fragment,
    ] {
        assert_eq!(opening(&meta(kind, v4, S)), None, "{kind:?}");
    }
}

#[test]
fn datagrams_count_as_replied_from_the_first_one_back() {
    for opener in [Direction::LowToHigh, Direction::HighToLow] {
        for (first, replied) in [
            (SessionState::UdpNew, Some(SessionState::UdpReplied)),
            (SessionState::UdpReplied, None),
            (SessionState::OtherNew, Some(SessionState::OtherReplied)),
            (SessionState::OtherReplied, None),
            (SessionState::Icmp, None),
        ] {
            let session = Session::new(FlowKey::default(), opener, first);
            assert_eq!(track_other(&session, opener), Tracked::Stay);
            let expected = replied.map_or(Tracked::Stay, Tracked::Move);
            assert_eq!(track_other(&session, opener.reverse()), expected);
        }
    }
}

/// A reply belongs to its request's session alone, also between hosts that ping each other with one identifier.
#[test]
fn an_echo_belongs_to_its_request() {
    for (flags, request, reply) in [(PacketMeta::IPV4, 8, 0), (PacketMeta::IPV6, 128, 129)] {
        let key = |from: u8, to: u8, icmp_type| {
            let meta = PacketMeta {
                source: [from; 16],
                destination: [to; 16],
                source_port: 1,
                destination_port: 1,
                kind: PacketKind::Echo,
                flags,
                tcp_flags_or_icmp_type: icmp_type,
                ..PacketMeta::default()
            };
            FlowKey::of(&meta, 0)
        };
        let (there, direction) = key(1, 2, request);
        assert_eq!(there.class, KeyClass::EchoFromLow);
        assert_eq!(key(2, 1, reply), (there, direction.reverse()));
        let (back, direction) = key(2, 1, request);
        assert_eq!(back.class, KeyClass::EchoFromHigh);
        assert_eq!(key(1, 2, reply), (back, direction.reverse()));
        assert_ne!(there, back);
    }
}

#[test]
fn states_have_names_and_timeouts() {
    let classes = [
        ("syn_sent", TimeoutClass::TcpSynSent),
        ("syn_sent2", TimeoutClass::TcpSynReceived),
        ("syn_received", TimeoutClass::TcpSynReceived),
        ("established", TimeoutClass::TcpEstablished),
        ("fin_wait", TimeoutClass::TcpClosing),
        ("close_wait", TimeoutClass::TcpClosing),
        ("closing", TimeoutClass::TcpClosing),
        ("last_ack", TimeoutClass::TcpClosing),
        ("time_wait", TimeoutClass::TcpTimeWait),
        ("closed", TimeoutClass::TcpClosed),
        ("udp_new", TimeoutClass::UdpNew),
        ("udp_replied", TimeoutClass::UdpReplied),
        ("icmp", TimeoutClass::Icmp),
        ("other_new", TimeoutClass::Other),
        ("other_replied", TimeoutClass::Other),
    ];
    assert_eq!(classes.len(), SessionState::COUNT);
    let timeouts = StateTimeouts::from_fn(|class| match class {
        TimeoutClass::TcpEstablished => Nanos(u64::MAX),
        TimeoutClass::TcpClosed => Nanos(1),
        _ => Nanos::from_secs(30),
    });
    for (name, class) in classes {
        let state = SessionState::from_name(name).unwrap();
        assert_eq!((state.name(), state.timeout_class()), (name, class));
        let expected = match class {
            TimeoutClass::TcpEstablished => StateTimeouts::MAX_TICKS,
            TimeoutClass::TcpClosed => 1,
            _ => 1789, // 30 s in ticks of 2^24 ns, rounded up
        };
        assert_eq!(timeouts.ticks(state), expected, "{name}");
        assert_eq!(state.is_half_open(), name.starts_with("syn_"));
    }
    assert_eq!(SessionState::from_name("Established"), None);
}

/// One end of a connection, as simple as RFC 9293 allows: no options, everything not acknowledged is sent again.
#[derive(Debug)]
struct Endpoint {
    /// Opens actively; else it waits for a SYN.
    active: bool,
    isn: u32,
    /// Bytes to send before the FIN.
    bytes: u32,
    /// Acknowledged, in sequence numbers from the ISN on: SYN, bytes, FIN.
    acked: u32,
    /// The next number expected of the other end, once its SYN came.
    expects: Option<u32>,
    got_fin: bool,
}

impl Endpoint {
    fn established(&self) -> bool {
        self.acked > 0 && self.expects.is_some()
    }

    fn fin_acked(&self) -> bool {
        self.acked == self.bytes + 2
    }

    fn done(&self) -> bool {
        self.fin_acked() && self.got_fin
    }

    /// What it sends now, given the most data for one segment; `close`: a FIN may go.
    fn emit(&self, most: u32, close: bool) -> Option<Segment> {
        let seq = self.isn.wrapping_add(self.acked);
        let ack = self.expects.unwrap_or(0);
        let ack_flag = if self.expects.is_some() { A } else { 0 };
        if self.acked == 0 {
            return (self.active || self.expects.is_some()).then_some(Segment {
                flags: S | ack_flag,
                seq,
                ack,
                data_len: 0,
            });
        }
        self.expects?;
        let data_len = (self.bytes + 1).saturating_sub(self.acked).min(most);
        let fin = close && !self.fin_acked() && self.acked + data_len == self.bytes + 1;
        Some(Segment {
            flags: A | if fin { flag::FIN } else { 0 },
            seq,
            ack,
            data_len,
        })
    }

    fn receive(&mut self, segment: &Segment) {
        if segment.flags & S != 0 && self.expects.is_none() {
            self.expects = Some(segment.seq.wrapping_add(1));
        }
        let Some(expects) = self.expects else { return };
        if segment.flags & A != 0 {
            let acked = segment.ack.wrapping_sub(self.isn);
            if acked > self.acked && acked <= self.bytes + 2 {
                self.acked = acked;
            }
        }
        if segment.flags & S == 0 && self.acked > 0 && segment.seq == expects && !self.got_fin {
            self.expects = Some(segment.end());
            self.got_fin = segment.flags & flag::FIN != 0;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Two endpoints talk through the tracker; segments are lost before it and behind it. Nothing that they send is refused, a
    /// connection that both hold established is `established` here too, and once both have closed it is `time_wait`.
    #[test]
    fn endpoints_on_a_lossy_path(
        opener in prop::sample::select(vec![Direction::LowToHigh, Direction::HighToLow]),
        simultaneous in any::<bool>(),
        isn in any::<[u32; 2]>(),
        bytes in (0..400_u32, 0..400_u32),
        steps in prop::collection::vec((any::<bool>(), 0..3_u8, 0..150_u32, any::<bool>()), 0..80),
    ) {
        let mut ends = [
            Endpoint { active: true, isn: isn[0], bytes: bytes.0, acked: 0, expects: None, got_fin: false },
            Endpoint { active: simultaneous, isn: isn[1], bytes: bytes.1, acked: 0, expects: None, got_fin: false },
        ];
        let mut c = Connection::open(opener, isn);
        let mut fins = 0_u32;
        // After the random steps, enough lossless ones to finish.
        let rest = (0..60).map(|i| (i % 2 == 0, 0, 100, true));
        for (from_opener, loss, most, close) in steps.into_iter().chain(rest) {
            let (from, this) = if from_opener { (Opener, 0) } else { (Replier, 1) };
            let Some(segment) = ends[this].emit(most, close) else { continue };
            if loss == 1 {
                continue;
            }
            let (tracked, state) = c.raw(from, segment);
            prop_assert!(
                matches!(tracked, Tracked::Stay | Tracked::Move(_)),
                "{tracked:?} in {state:?}: {from:?} sends {segment:?}"
            );
            fins += u32::from(segment.flags & flag::FIN != 0);
            if loss == 0 {
                ends[1 - this].receive(&segment);
            }
            if fins == 0 && ends.iter().all(Endpoint::established) {
                prop_assert_eq!(c.state(), SessionState::Established);
            }
            prop_assert!(fins > 0 || c.state() <= SessionState::Established);
            if ends.iter().all(Endpoint::fin_acked) {
                prop_assert_eq!(c.state(), SessionState::TimeWait);
            } else if ends.iter().any(Endpoint::fin_acked) {
                prop_assert!(matches!(
                    c.state(),
                    SessionState::CloseWait | SessionState::LastAck | SessionState::TimeWait
                ));
            }
        }
        prop_assert!(ends.iter().all(Endpoint::done), "the model never finishes: {ends:?}");
        prop_assert_eq!(c.state(), SessionState::TimeWait);
    }
}

/// The engine's short cut past the tracker: whatever it calls steady, the tracker lets pass and notes nothing of.
#[test]
fn what_is_steady_changes_nothing() {
    let mut steady = 0;
    for state in SessionState::ALL.iter().copied() {
        let kind = match state {
            SessionState::UdpNew | SessionState::UdpReplied => PacketKind::Udp,
            SessionState::Icmp => PacketKind::Icmp,
            SessionState::OtherNew | SessionState::OtherReplied => PacketKind::OtherIp,
            _ => PacketKind::Tcp,
        };
        for (opener, sender) in [Direction::LowToHigh, Direction::HighToLow]
            .into_iter()
            .flat_map(|o| [(o, Direction::LowToHigh), (o, Direction::HighToLow)])
        {
            for flags in 0..=u8::MAX {
                let mut session = Session::new(FlowKey::default(), opener, state);
                let meta = PacketMeta {
                    kind,
                    tcp_flags_or_icmp_type: flags,
                    ..PacketMeta::default()
                };
                if !is_steady(&session, sender, meta.tcp_flags()) {
                    continue;
                }
                steady += 1;
                let before = format!("{session:?}");
                let tracked = if kind == PacketKind::Tcp {
                    let segment = Segment {
                        flags,
                        seq: 1,
                        ack: 2,
                        data_len: 3,
                    };
                    track_tcp(&mut session, sender, &segment)
                } else {
                    track_other(&session, sender)
                };
                assert_eq!(tracked, Tracked::Stay, "{state:?}, flags {flags:#x}");
                assert_eq!(format!("{session:?}"), before, "{state:?}, flags {flags:#x}");
            }
        }
    }
    // UDP and other protocols replied and ICMP: all; new ones: the opener's; TCP: 16 combinations of the other flags.
    assert_eq!(steady, 3 * 4 * 256 + 2 * 2 * 256 + 4 * 16);
}
