//! `defer`: the first packet of a session waits until the other node knows the session.

use haechi::base::Nanos;
use haechi::engine::DEFERRED;
use haechi::engine::{EndReason, Event};
use haechi::flow::table::News;
use haechi::policy::RuleLog;

use super::flows::OUT;
use crate::both::Both;
use crate::node::frame;

const LAN: u16 = 0;
const WAN: u16 = 1;
const UDP: &str = "udp 10.0.0.5:5 > 192.0.2.7:53 len=10";
const UDP_REPLY: &str = "udp 192.0.2.7:53 > 10.0.0.5:5 len=10";
const TIMEOUT: Nanos = Nanos(50_000_000);

fn deferring(opens: bool) -> Both {
    let mut both = Both::make(OUT, [1, 1], |policy| {
        policy.rules[0].defer = true;
        policy.rules[0].log = RuleLog::End;
    });
    for node in 0..2 {
        both.nodes[node][0].set_defer(TIMEOUT, opens);
    }
    both
}

/// The names of the sessions that are on their way to a node.
fn names(both: &Both, node: usize) -> Vec<u64> {
    let name = |news: &News| match news {
        News::Session(_, name) => Some(*name),
        _ => None,
    };
    both.news[node].iter().filter_map(name).collect()
}

#[test]
fn the_first_packet_leaves_when_the_other_node_knows_its_session() {
    for opens in [true, false] {
        let mut both = deferring(opens);
        assert!(!both.passes(0, LAN, UDP), "it waits");
        assert!(both.nodes[0][0].has_deferred());
        assert_eq!(
            (both.nodes[0][0].held(), both.done.take_drops()),
            (1, [vec![], vec![]])
        );
        assert_eq!(both.sessions(0), ["udp_new own"]);
        both.tell(0);
        let [name] = names(&both, 1)[..] else {
            panic!("one session")
        };
        assert!(both.nodes[0][0].is_awaited(name) && !both.nodes[0][0].is_awaited(name + 1));
        both.sync();
        assert_eq!(both.done.left, []);
        // Another session is known: that says nothing.
        both.told(0, 0, name + 1);
        assert_eq!(both.done.left, []);
        both.told(0, 0, name);
        assert_eq!(both.done.left, [(0, WAN, frame(UDP))]);
        assert!(!both.nodes[0][0].has_deferred() && !both.nodes[0][0].is_awaited(name));
        assert!(both.passes(1, WAN, UDP_REPLY) && both.passes(0, LAN, UDP));
        both.told(0, 0, name);
        both.wait(TIMEOUT);
        assert_eq!(
            (both.sum(0, |c| c.deferred), both.sum(0, |c| c.deferred_late)),
            (1, 0)
        );
        assert_eq!(both.done.take_drops(), [vec![], vec![]]);
    }
}

#[test]
fn one_that_waits_too_long_leaves_or_ends_with_its_session() {
    for opens in [true, false] {
        let mut both = deferring(opens);
        assert!(!both.passes(0, LAN, UDP));
        both.wait(Nanos(TIMEOUT.0 - 1));
        assert_eq!((both.done.left.len(), both.nodes[0][0].held()), (0, 1));
        both.wait(Nanos(1));
        let (left, sessions, drops) = if opens {
            (
                vec![(0, WAN, frame(UDP))],
                vec![String::from("udp_new own")],
                vec![],
            )
        } else {
            (vec![], vec![], vec![("deferred", 1)])
        };
        assert_eq!((&both.done.left, both.sessions(0)), (&left, sessions));
        assert_eq!(both.done.take_drops(), [drops, vec![]]);
        assert_eq!(
            (both.sum(0, |c| c.deferred), both.sum(0, |c| c.deferred_late)),
            (1, 1)
        );
        let ends: Vec<_> = both.records(0).into_iter().map(|record| record.event).collect();
        assert_eq!(ends.len(), usize::from(!opens));
        assert!(
            ends.iter()
                .all(|end| matches!(end, Event::End(EndReason::Deferred, _))),
            "{ends:?}"
        );
        // What was told of it is untold.
        both.sync();
        both.assert_equal();
        assert_eq!(both.sessions(1).len(), usize::from(opens));
    }
}

#[test]
fn later_packets_of_the_session_do_not_wait() {
    let mut both = deferring(false);
    let syn = "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100";
    assert!(!both.passes(0, LAN, syn));
    assert!(both.passes(0, LAN, syn), "sent again");
    assert!(both.passes(1, WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn,ack seq=500 ack=101"));
    both.tell(0);
    let [name] = names(&both, 1)[..] else {
        panic!("one session")
    };
    both.told(0, 0, name);
    assert_eq!(both.done.left.last(), Some(&(0, WAN, frame(syn))));
    assert_eq!(both.sum(0, |c| c.deferred), 1);
}

#[test]
fn without_a_peer_that_is_told_nothing_waits() {
    let mut both = deferring(false);
    assert!(!both.passes(0, LAN, UDP));
    both.die(1);
    both.wait(Nanos(0));
    assert_eq!(both.done.left, [(0, WAN, frame(UDP))], "what waited leaves");
    assert!(both.passes(0, LAN, "udp 10.0.0.6:5 > 192.0.2.7:53 len=10"));
    assert_eq!(
        (both.sum(0, |c| c.deferred), both.sum(0, |c| c.deferred_late)),
        (1, 0)
    );
    assert_eq!(both.done.take_drops(), [vec![], vec![]]);
}

#[test]
fn no_more_wait_than_there_is_room_for() {
    for opens in [true, false] {
        let mut both = deferring(opens);
        let flow = |n: usize| format!("udp 10.0.0.5:{} > 192.0.2.7:53 len=10", n + 1);
        for n in 0..DEFERRED {
            assert!(!both.passes(0, LAN, &flow(n)));
        }
        assert_eq!(both.passes(0, LAN, &flow(DEFERRED)), opens);
        assert_eq!(both.sessions(0).len(), DEFERRED + usize::from(opens));
        assert_eq!(
            (both.sum(0, |c| c.deferred), both.sum(0, |c| c.deferred_late)),
            (DEFERRED as u64, 1)
        );
        assert_eq!(both.nodes[0][0].held(), DEFERRED as u64);
        // The oldest is known first: there is room again.
        both.tell(0);
        let name = names(&both, 1)[0];
        both.told(0, 0, name);
        assert!(!both.passes(0, LAN, &flow(DEFERRED + 1)));
    }
}

/// The session has ended, or has become the other node's, before that was told.
#[test]
fn a_session_that_is_not_what_it_was() {
    let mut both = deferring(true);
    assert!(!both.passes(0, LAN, UDP));
    let now = both.now;
    both.nodes[0][0].kill_where(now, 0, 1000, |_| true);
    both.wait(TIMEOUT);
    assert_eq!(both.done.left, []);
    assert_eq!(both.done.take_drops(), [vec![("no_session", 1)], vec![]]);
    let mut both = deferring(true);
    assert!(!both.passes(0, LAN, UDP) && !both.passes(1, LAN, UDP));
    // The second node's yields: the first one has it, so that its packet may leave.
    both.tell(0);
    while both.hear(1) {}
    assert_eq!(both.done.left, [(1, WAN, frame(UDP))]);
    assert_eq!(both.sessions(1), ["udp_new peer's"]);
}

#[test]
fn a_datagram_in_pieces_waits_as_a_whole() {
    for opens in [true, false] {
        let mut both = deferring(opens);
        let pieces = crate::fragments::cut::Cut::udp(false, (5, 53), 60).pieces(24);
        for piece in &pieces {
            assert_eq!(both.frame(0, LAN, piece), []);
        }
        assert_eq!((both.nodes[0][0].held(), both.sum(0, |c| c.deferred)), (3, 3));
        both.tell(0);
        let [name] = names(&both, 1)[..] else {
            panic!("one session")
        };
        both.told(0, 0, name);
        let expected: Vec<_> = pieces.iter().map(|piece| (0, WAN, piece.clone())).collect();
        assert_eq!(both.done.left, expected);
    }
}
