//! Every state with every kind of segment from either end.

use haechi::flow::track::{Event, flag, opens_tcp};
use haechi::flow::{Direction, SessionState, Tracked};

use crate::connection::{A, Connection, FA, ISNS, Opener, R, RA, Replier, S, SA, every_way};

const HANDSHAKE: &str = "rsa=syn_received oa=established ";

/// Each way to stand between two ends: its name, the words that lead to it, and what each kind of segment does in it,
/// from the opener and from the replier. `.`: nothing; `!`: no TCP sends these flags here; `#`: its numbers are wrong.
const MATRIX: &[(&str, &str, &str, &str)] = &[
    //               SYN       SYN+ACK      ACK          ACK of FIN   FIN      FIN+ACK of FIN  RST
    (
        "syn_sent",
        "",
        ".         !            !            !            !        !        closed",
        "syn_sent2 syn_received .            .            !        !        #",
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
                // Data after the handshake, and flags that the tracker does not look at, change nothing.
                let data = flags == A && !name.starts_with("syn_");
                for extra in [0, flag::PSH, flag::URG, flag::ECE | flag::CWR] {
                    every_way(|mut c| {
                        c.talk(&way);
                        assert_eq!(c.state().name(), *name);
                        let len = if data && c.fin_end[from as usize].is_none() {
                            100
                        } else {
                            0
                        };
                        let (tracked, after) = c.send(from, flags | extra, len, acks_fin);
                        let got = match tracked {
                            Tracked::Stay => ".",
                            Tracked::Move(_) => after.name(),
                            Tracked::Reopen => "REOPEN",
                            Tracked::BadFlags => "!",
                            Tracked::OutOfWindow => "#",
                            Tracked::Shorten => "~",
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
