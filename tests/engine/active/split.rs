//! Fragments of one datagram whose ways cross different nodes.

use haechi::base::Nanos;

use super::flows::OUT;
use crate::both::{Both, error};
use crate::fragments::cut::Cut;

const LAN: u16 = 0;
const WAN: u16 = 1;
/// More than fragments wait for their first one.
const LONG: Nanos = Nanos(6_000_000);
/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Where the session is that a datagram belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Session {
    /// At this node; the other one knows, or does not.
    At(usize, bool),
    /// There is none: the datagram opens it.
    New,
}

const SESSIONS: [Session; 5] = [
    Session::At(0, true),
    Session::At(1, true),
    Session::At(0, false),
    Session::At(1, false),
    Session::New,
];

/// A datagram of three pieces, to a session as said; and the port that it comes in by.
fn datagram(both: &mut Both, session: Session, v6: bool) -> (u16, Vec<Vec<u8>>) {
    let Session::At(node, synced) = session else {
        return (LAN, Cut::udp(v6, (5, 53), 60).pieces(24));
    };
    let open = Cut::udp(v6, (5, 53), 10).pieces(100).remove(0);
    assert_eq!(both.frame(node, LAN, &open).len(), 1);
    if synced {
        both.sync();
    }
    let mut reply = Cut::udp(v6, (53, 5), 60);
    reply.back = true;
    (WAN, reply.pieces(24))
}

fn run(session: Session, workers: [u16; 2], v6: bool, ways: usize, order: [usize; 3], gap: Nanos) -> Both {
    let mut both = Both::with_workers(OUT, workers);
    let (port, pieces) = datagram(&mut both, session, v6);
    both.done.left.clear();
    let node = |piece: usize| (ways >> piece) & 1;
    for piece in order {
        both.frame(node(piece), port, &pieces[piece]);
        if gap > Nanos(0) {
            both.wait(gap);
        }
    }
    both.wait(LONG);
    both.wait(LONG);
    let case =
        format!("{session:?}, workers {workers:?}, v6 {v6}, nodes {ways:03b}, order {order:?}, gap {gap:?}");
    let mut left = both.done.left.clone();
    left.sort();
    let mut expected: Vec<_> = (0..3)
        .map(|piece| (node(piece), port ^ 1, pieces[piece].clone()))
        .collect();
    expected.sort();
    assert_eq!(left, expected, "{case}: {:?}", both.done.drops);
    assert_eq!(both.done.take_drops(), [vec![], vec![]], "{case}");
    let held: u64 = both.nodes.iter().flatten().map(|engine| engine.held()).sum();
    assert_eq!(held, 0, "{case}");
    let reassembled = |node| both.sum(node, |c| c.fragments_reassembled);
    assert!(reassembled(0) + reassembled(1) > 0, "{case}");
    // (The harness has checked that nothing crosses twice one way, and that everything leaves where it came in.)
    both.sync();
    both.assert_equal();
    both
}

/// Every distribution over both nodes, every order, with the session at either, known or not at the other, or to be opened.
#[test]
fn fragments_split_over_both_nodes_in_every_order() {
    for session in SESSIONS {
        for workers in [[1, 1], [3, 2]] {
            for ways in 0..8 {
                for order in ORDERS {
                    run(session, workers, workers == [3, 2], ways, order, Nanos(0));
                }
            }
        }
    }
}

/// The same, each so much later than the one before that it was offered meanwhile.
#[test]
fn fragments_that_come_late() {
    for session in SESSIONS {
        for workers in [[1, 1], [2, 3]] {
            for ways in 0..8 {
                for order in ORDERS {
                    run(session, workers, false, ways, order, LONG);
                }
            }
        }
    }
}

/// What is known to be the other node's goes there at once; what is not waits a little.
#[test]
fn a_first_fragment_of_the_other_nodes_session_does_not_wait() {
    let mut both = Both::new(OUT);
    let (port, pieces) = datagram(&mut both, Session::At(0, true), false);
    both.frame(1, port, &pieces[1]);
    assert_eq!(
        (both.sum(1, |c| c.redirected_out), both.nodes[1][0].held()),
        (0, 1)
    );
    both.frame(1, port, &pieces[0]);
    assert_eq!(
        (both.sum(1, |c| c.redirected_out), both.nodes[1][0].held()),
        (2, 0)
    );
    both.frame(1, port, &pieces[2]);
    assert_eq!(
        (both.sum(1, |c| c.redirected_out), both.sum(0, |c| c.given_back)),
        (3, 3)
    );
    // Without a first one, as soon as 5 ms are over, and not before.
    let mut both = Both::new(OUT);
    let (port, pieces) = datagram(&mut both, Session::At(0, true), false);
    both.frame(1, port, &pieces[1]);
    both.wait(Nanos(4_999_999));
    assert_eq!(both.sum(1, |c| c.redirected_out), 0);
    both.wait(Nanos(1));
    assert_eq!(
        (both.sum(1, |c| c.redirected_out), both.nodes[0][0].held()),
        (1, 1)
    );
    // What waits there is over after its time, there.
    both.wait(Nanos::from_secs(60));
    assert_eq!(both.done.take_drops(), [vec![("fragment_timeout", 1)], vec![]]);
}

/// Both wait for a first fragment: each gets back what it offered, and that is all.
#[test]
fn fragments_that_cross_each_other_come_back_and_stay() {
    let mut both = Both::new(OUT);
    let (port, pieces) = datagram(&mut both, Session::At(0, true), false);
    both.frame(0, port, &pieces[1]);
    both.frame(1, port, &pieces[2]);
    both.wait(LONG);
    for node in 0..2 {
        assert_eq!(
            (
                both.sum(node, |c| c.redirected_out),
                both.sum(node, |c| c.sent_back)
            ),
            (1, 1)
        );
        assert_eq!(both.nodes[node][0].held(), 1);
    }
    both.wait(LONG);
    both.wait(Nanos::from_secs(60));
    assert_eq!(
        both.done.take_drops(),
        [vec![("fragment_timeout", 1)], vec![("fragment_timeout", 1)]]
    );
    assert_eq!(
        both.sum(0, |c| c.redirected_out) + both.sum(1, |c| c.redirected_out),
        2
    );
}

/// Overlaps are found where fragments meet.
#[test]
fn an_overlap_across_the_nodes_is_dropped() {
    let mut both = Both::new(OUT);
    let (port, pieces) = datagram(&mut both, Session::At(0, true), false);
    let mut other = Cut::udp(false, (53, 5), 60);
    other.back = true;
    both.frame(0, port, &pieces[0]);
    both.frame(1, port, &other.part(16, 40));
    both.wait(LONG);
    assert_eq!(both.done.take_drops(), [vec![("fragment_overlap", 2)], vec![]]);
    both.frame(0, port, &pieces[1]);
    both.frame(1, port, &pieces[2]);
    assert_eq!(both.done.take_drops(), [vec![("fragment_overlap", 2)], vec![]]);
    assert_eq!(both.done.left.len(), 1, "the packet that opened the session");
}

/// A datagram that rules refuse on both nodes: dropped, and answered where its first fragment came in.
#[test]
fn what_both_refuse() {
    let rules = "[[rule]]\nname = \"no\"\naction = \"reject\"\n";
    for workers in [[1, 1], [2, 2]] {
        for ways in 0..8 {
            let mut both = Both::with_workers(rules, workers);
            let (port, pieces) = datagram(&mut both, Session::New, false);
            for (piece, frame) in pieces.iter().enumerate() {
                both.frame((ways >> piece) & 1, port, frame);
            }
            both.wait(LONG);
            both.wait(LONG);
            assert_eq!(both.done.left, []);
            let drops = both.done.take_drops();
            let all: u64 = drops.iter().flatten().map(|(_, n)| n).sum();
            assert_eq!(all, 3, "nodes {ways:03b}: {drops:?}");
            assert_eq!(both.done.made.len(), 1, "nodes {ways:03b}: {drops:?}");
            assert_eq!((both.done.made[0].0, both.done.made[0].1), (ways & 1, port));
        }
    }
}

/// The budget is too small: what nobody knows waits on, what is known to be the other's is dropped.
#[test]
fn without_a_budget_fragments_stay_where_they_are() {
    let mut both = Both::new(OUT);
    let (port, pieces) = datagram(&mut both, Session::At(0, true), false);
    both.nodes[1][0].set_redirect(1);
    both.frame(1, port, &pieces[1]);
    both.frame(1, port, &pieces[2]);
    both.wait(LONG);
    assert_eq!(both.nodes[1][0].held(), 2);
    both.nodes[1][0].set_redirect(0);
    both.frame(1, port, &pieces[0]);
    assert_eq!(both.done.take_drops(), [vec![], vec![("redirect_limit", 3)]]);
}

/// The other node dies: fragments of a datagram that was offered there are held here again.
#[test]
fn after_the_other_nodes_death_fragments_meet_here() {
    let mut both = Both::new(OUT);
    let (port, pieces) = datagram(&mut both, Session::At(0, true), false);
    both.frame(1, port, &pieces[1]);
    both.wait(LONG);
    assert_eq!(both.sum(1, |c| c.redirected_out), 1);
    both.die(0);
    both.done.left.clear();
    // Its sender sends all of it again, as it is.
    for piece in &pieces {
        both.frame(1, port, piece);
    }
    let expected: Vec<_> = pieces.iter().map(|piece| (1, LAN, piece.clone())).collect();
    assert_eq!(both.done.left, expected);
}

/// An ICMP error about a fragmented packet, and one that is itself in pieces.
#[test]
fn an_icmp_error_in_pieces() {
    let udp = "udp 10.0.0.5:5 > 192.0.2.7:53 len=60";
    let whole = error("192.0.2.7", "10.0.0.5", (3, 4), udp);
    let mut cut = Cut::udp(false, (0, 0), 0);
    (cut.protocol, cut.back) = (1, true);
    cut.body = whole[34..].to_vec();
    cut.body.extend([0; 12]);
    // Its checksum, over what was added, too: zeros.
    let pieces = cut.pieces(40);
    assert_eq!(pieces.len(), 2);
    for synced in [true, false] {
        for ways in 0..4 {
            let mut both = Both::new(OUT);
            assert!(both.passes(0, LAN, udp));
            if synced {
                both.sync();
            }
            both.done.left.clear();
            for (piece, frame) in pieces.iter().enumerate() {
                both.frame((ways >> piece) & 1, WAN, frame);
            }
            both.wait(LONG);
            both.wait(LONG);
            let mut left = both.done.left.clone();
            left.sort();
            let mut expected: Vec<_> = pieces
                .iter()
                .enumerate()
                .map(|(piece, frame)| ((ways >> piece) & 1, LAN, frame.clone()))
                .collect();
            expected.sort();
            assert_eq!(
                left, expected,
                "nodes {ways:02b}, synced {synced}: {:?}",
                both.done.drops
            );
        }
    }
}
