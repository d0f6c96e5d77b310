//! Conversations whose directions cross different nodes.

use haechi::base::Nanos;
use haechi::flow::table::Standing;
use haechi::packet::VecPacket;

use crate::both::Both;
use crate::node::{ALLOW_ALL, frame};

const LAN: u16 = 0;
const WAN: u16 = 1;
/// Only `lan` opens.
pub(super) const OUT: &str = "[[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n";

const SYN: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100";
const SYN_ACK: &str = "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn,ack seq=500 ack=101";
const ACK: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501";
const UDP: &str = "udp 10.0.0.5:5 > 192.0.2.7:53 len=10";
const UDP_REPLY: &str = "udp 192.0.2.7:53 > 10.0.0.5:5 len=10";
const ECHO: &str = "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7 seq=1";
const ECHO_REPLY: &str = "icmp 192.0.2.7 > 10.0.0.5 echo-reply id=7 seq=1";

/// A conversation of each kind: packets of the client's and the server's.
const TALKS: [(&str, &[(u16, &str)]); 3] = [
    (
        "tcp",
        &[
            (LAN, SYN),
            (WAN, SYN_ACK),
            (LAN, ACK),
            (LAN, "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501 len=50"),
            (WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=501 ack=151 len=900"),
            (LAN, "tcp 10.0.0.5:1234 > 192.0.2.7:80 fin,ack seq=151 ack=1401"),
            (WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1234 fin,ack seq=1401 ack=152"),
            (LAN, "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=152 ack=1402"),
        ],
    ),
    (
        "udp",
        &[(LAN, UDP), (WAN, UDP_REPLY), (LAN, UDP), (WAN, UDP_REPLY)],
    ),
    ("icmp", &[(LAN, ECHO), (WAN, ECHO_REPLY)]),
];

/// Each direction by a node of its own, and the news of the session before or behind the reply.
#[test]
fn each_direction_by_its_own_node_in_both_orders_of_sync_and_reply() {
    for workers in [[1, 1], [3, 2]] {
        for (kind, talk) in TALKS {
            for (out, back) in [(0, 1), (1, 0)] {
                for synced in [true, false] {
                    let mut both = Both::with_workers(OUT, workers);
                    for (port, packet) in talk {
                        let node = if *port == LAN { out } else { back };
                        let case = format!("{kind} out by {out}, synced {synced}: {packet}");
                        assert!(both.passes(node, *port, packet), "{case}");
                        if synced {
                            both.sync();
                        }
                    }
                    let replies = talk.iter().filter(|(port, _)| *port == WAN).count() as u64;
                    assert_eq!(both.sum(back, |c| c.redirected_out), replies);
                    assert_eq!(both.sum(out, |c| c.given_back), replies);
                    assert_eq!(both.sum(back, |c| c.forwarded), 0);
                    assert_eq!(both.sum(out, |c| c.redirected_out), 0);
                    both.sync();
                    both.assert_equal();
                    let state = ["udp_replied", "icmp", "time_wait"];
                    let state = state[["udp", "icmp", "tcp"].iter().position(|of| *of == kind).unwrap()];
                    assert_eq!(both.sessions(out), [format!("{state} own")]);
                    assert_eq!(both.sessions(back), [format!("{state} peer's")]);
                }
            }
        }
    }
}

/// With rules that would let either end open a session, the reply opens one of its own before the news come; they become one.
#[test]
fn both_ends_may_open() {
    let mut both = Both::new(ALLOW_ALL);
    assert!(both.passes(1, LAN, UDP));
    assert!(both.passes(0, WAN, UDP_REPLY));
    assert_eq!(both.sessions(0), ["udp_new own"]);
    assert_eq!(both.sessions(1), ["udp_new own"]);
    both.sync();
    // The lower node's has stayed.
    assert_eq!(both.sessions(0), ["udp_new own"]);
    assert_eq!(both.sessions(1), ["udp_new peer's"]);
    both.assert_equal();
    assert!(both.passes(1, LAN, UDP) && both.passes(0, WAN, UDP_REPLY));
    assert_eq!(both.sum(1, |c| c.redirected_out), 1);
    both.sync();
    assert_eq!(
        (both.sessions(0), both.sessions(1)),
        (vec!["udp_replied own".into()], vec!["udp_replied peer's".into()])
    );
}

#[test]
fn a_retransmitted_syn_through_the_other_node_makes_two_sessions_that_become_one() {
    for workers in [[1, 1], [2, 3]] {
        let rules = "[log]\nsessions = \"/dev/null\"\n[[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\nlog = \"both\"\nmax_sessions_per_source = 10\n";
        let mut both = Both::with_workers(rules, workers);
        assert!(both.passes(0, LAN, SYN));
        assert!(both.passes(1, LAN, SYN));
        assert_eq!(
            (both.sessions(0), both.sessions(1)),
            (vec!["syn_sent own".into()], vec!["syn_sent own".into()])
        );
        both.sync();
        both.assert_equal();
        assert_eq!(
            (both.sessions(0), both.sessions(1)),
            (vec!["syn_sent own".into()], vec!["syn_sent peer's".into()])
        );
        // From now on the loser's packets are offered, whatever they are.
        for (node, port, packet) in [(1, WAN, SYN_ACK), (1, LAN, SYN), (1, WAN, SYN_ACK), (0, LAN, ACK)] {
            assert!(both.passes(node, port, packet), "{packet}");
        }
        assert_eq!(both.sum(1, |c| c.redirected_out), 3);
        both.sync();
        assert_eq!(
            (both.sessions(0), both.sessions(1)),
            (vec!["established own".into()], vec!["established peer's".into()])
        );
        assert!(both.passes(1, LAN, "tcp 10.0.0.5:1234 > 192.0.2.7:80 rst seq=101"));
        both.wait(Nanos::from_secs(20));
        both.sync();
        assert_eq!((both.sessions(0).len(), both.sessions(1).len()), (0, 0));
        both.assert_equal();
        // Both began; one of them ended.
        let events = |both: &mut Both, node| {
            both.records(node)
                .iter()
                .map(|r| format!("{:?}", r.event))
                .collect::<Vec<_>>()
        };
        let (of_0, of_1) = (events(&mut both, 0), events(&mut both, 1));
        assert_eq!((of_0.len(), of_1.len()), (2, 1), "{of_0:?} {of_1:?}");
        assert!(of_0[1].starts_with("End") && of_1[0].starts_with("Start"));
        // Nothing of it is counted any more.
        for node in 0..2 {
            let sources: usize = both.nodes[node].iter().map(|engine| engine.sources()[0]).sum();
            assert_eq!(sources, 0);
        }
    }
}

/// The SYN+ACK meets the loser's session before the nodes know of each other's.
#[test]
fn a_connection_that_both_have_opened_goes_on_although_its_handshake_was_split() {
    let mut both = Both::new(OUT);
    assert!(both.passes(0, LAN, SYN) && both.passes(1, LAN, SYN));
    assert!(
        both.passes(1, WAN, SYN_ACK),
        "by the session that is going to yield"
    );
    assert!(!both.passes(0, LAN, ACK), "which the lower node does not know of");
    both.sync();
    // The server sends its SYN+ACK again, and the client answers again.
    for (node, port, packet) in [(1, WAN, SYN_ACK), (0, LAN, ACK)] {
        assert!(both.passes(node, port, packet), "{packet}");
    }
    both.sync();
    assert_eq!(both.sessions(1), ["established peer's"]);
    both.assert_equal();
}

#[test]
fn what_both_refuse_is_dropped_once_and_answered_where_it_came_in() {
    let rules = "[[rule]]\nname = \"no\"\nto = \"lan\"\nservice = [\"tcp\"]\naction = \"reject\"\n\
                 [[rule]]\nname = \"never\"\nto = \"lan\"\nservice = [\"udp/9\"]\naction = \"drop\"\n\
                 [[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n";
    let mut both = Both::new(rules);
    let left = both.send(1, WAN, "tcp 192.0.2.7:999 > 10.0.0.5:22 syn seq=7");
    let [(node, port, rst)] = &left[..] else {
        panic!("{left:?}")
    };
    assert_eq!((*node, *port), (1, WAN));
    assert_eq!(rst[47] & 0x14, 0x14, "RST and ACK");
    assert_eq!(both.done.take_drops(), [vec![("policy", 1)], vec![]]);
    for packet in [
        "udp 192.0.2.7:1 > 10.0.0.5:9 len=1",
        "udp 192.0.2.7:1 > 10.0.0.5:10 len=1",
    ] {
        assert_eq!(both.send(1, WAN, packet), []);
        assert_eq!(both.done.take_drops(), [vec![("policy", 1)], vec![]], "{packet}");
    }
    // What neither knows.
    for (port, packet, reason) in [
        (LAN, ACK, "no_session"),
        (WAN, ECHO_REPLY, "no_session"),
        (WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1234 rst seq=5", "policy"),
    ] {
        both.send(0, port, packet);
        assert_eq!(both.done.take_drops(), [vec![], vec![(reason, 1)]], "{packet}");
    }
    let rules = |node: usize| -> Vec<u64> {
        both.nodes[node][0].rules()[..2]
            .iter()
            .map(|rule| rule.packets)
            .collect()
    };
    assert_eq!(
        (rules(0), rules(1)),
        (vec![1, 1], vec![1, 0]),
        "counted where they were judged"
    );
    assert_eq!(
        both.sum(0, |c| c.redirected_out) + both.sum(1, |c| c.redirected_out),
        6
    );
}

/// What cannot be another node's business stays here.
#[test]
fn what_is_wrong_wherever_it_is_judged_is_not_offered() {
    let mut both = Both::new(OUT);
    assert!(both.passes(0, LAN, UDP));
    both.sync();
    let mut bad = frame(UDP_REPLY);
    bad[40] ^= 1;
    for (node, port, bytes, reason) in [
        (1, WAN, bad, "bad_checksum"),
        (1, WAN, frame(UDP)[..20].to_vec(), "malformed"),
        (1, LAN, frame("udp 127.0.0.1:5 > 192.0.2.7:53"), "spoofed_source"),
        (1, WAN, frame(UDP), "wrong_port"),
        (0, WAN, frame(UDP), "wrong_port"),
        (
            1,
            LAN,
            frame("tcp 10.0.0.5:1 > 192.0.2.7:2 syn,fin seq=1"),
            "tcp_bad_flags",
        ),
    ] {
        assert_eq!(both.frame(node, port, &bytes), []);
        let mut expected = [vec![], vec![]];
        expected[node].push((reason, 1));
        assert_eq!(both.done.take_drops(), expected);
    }
    assert_eq!(both.sum(1, |c| c.redirected_out), 0);
}

#[test]
fn the_survivor_adopts_the_dead_nodes_sessions() {
    for workers in [[1, 1], [2, 2]] {
        let mut both = Both::with_workers(OUT, workers);
        for (node, port, packet) in [(0, LAN, SYN), (1, WAN, SYN_ACK), (0, LAN, ACK), (0, LAN, UDP)] {
            assert!(both.passes(node, port, packet));
        }
        both.sync();
        assert_eq!(both.sessions(1), ["established peer's", "udp_new peer's"]);
        // As long as it lives its sessions do not idle out here.
        both.now = both.now.plus(Nanos::from_secs(100));
        for engine in &mut both.nodes[1] {
            engine.upkeep(both.now, 10_000, &mut Nowhere);
        }
        assert_eq!(both.sessions(1).len(), 2);
        both.die(0);
        for (port, packet) in [
            (LAN, "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501 len=50"),
            (WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=501 ack=151 len=900"),
            (WAN, UDP_REPLY),
        ] {
            assert!(both.passes(1, port, packet), "{packet}");
        }
        assert_eq!(both.sum(1, |c| c.redirected_out), 1, "before it died");
        assert_eq!(both.sessions(1), ["established own", "udp_replied own"]);
        // The tracker is strict again.
        assert!(!both.passes(
            1,
            WAN,
            "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=90000000 ack=151 len=1"
        ));
        assert_eq!(both.done.take_drops()[1], [("tcp_out_of_window", 1)]);
    }
}

/// An end by timeout, by RST, by `sessions kill`, by an apply: the owner's alone, and told.
#[test]
fn only_the_owner_ends_a_session() {
    let mut both = Both::new(OUT);
    assert!(both.passes(0, LAN, UDP));
    both.sync();
    let replica = both.nodes[1][0].table().len();
    assert_eq!(replica, 1);
    let now = both.now;
    let (_, killed) = both.nodes[1][0].kill_where(now, 0, 1000, |_| true);
    both.nodes[1][0].kill(now, haechi::base::SessionIx(0));
    assert_eq!((killed, both.sessions(1).len()), (0, 1));
    // An apply at the other node alone: it does not judge the session anew.
    both.apply(1, "");
    assert!(both.passes(1, WAN, UDP_REPLY));
    assert_eq!(both.sessions(1).len(), 1);
    // The owner's apply ends it.
    both.apply(0, "");
    assert!(!both.passes(1, WAN, UDP_REPLY));
    assert_eq!(both.done.take_drops(), [vec![("policy", 1)], vec![]]);
    both.sync();
    assert_eq!((both.sessions(0).len(), both.sessions(1).len()), (0, 0));
    both.assert_equal();
}

/// A connection that takes an old one's place, seen by the node that does not own that.
#[test]
fn a_port_is_used_again_through_the_other_node() {
    let mut both = Both::new(OUT);
    let [(_, talk), ..] = TALKS;
    for (port, packet) in talk {
        assert!(both.passes(0, *port, packet));
    }
    both.sync();
    assert_eq!(both.sessions(1), ["time_wait peer's"]);
    assert!(both.passes(1, LAN, "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=90000"));
    assert_eq!(both.sessions(0), ["syn_sent own"]);
    both.sync();
    assert_eq!(both.sessions(1), ["syn_sent peer's"]);
    both.assert_equal();
}

#[test]
fn icmp_errors_come_by_the_other_way() {
    let about = |text: &str| crate::both::error("198.51.100.1", "10.0.0.5", (3, 4), text);
    let data = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501 len=10";
    for workers in [[1, 1], [3, 4]] {
        for synced in [true, false] {
            let mut both = Both::with_workers(OUT, workers);
            for (node, port, packet) in [
                (0, LAN, SYN),
                (0, WAN, SYN_ACK),
                (0, LAN, ACK),
                (0, LAN, data),
                (0, LAN, UDP),
            ] {
                assert!(both.passes(node, port, packet));
            }
            if synced {
                both.sync();
            }
            for packet in [data, UDP] {
                let error = about(packet);
                assert_eq!(both.frame(1, WAN, &error), [(1, LAN, error.clone())], "{packet}");
            }
            assert_eq!(both.sum(1, |c| c.redirected_out), 2);
            // About a packet that was never sent, and about none that anybody knows.
            for (packet, reason) in [
                (
                    "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=9000000 ack=501",
                    "icmp_error_unrelated",
                ),
                ("udp 10.0.0.5:77 > 192.0.2.7:53 len=10", "icmp_error_unrelated"),
            ] {
                assert_eq!(both.frame(1, WAN, &about(packet)), []);
                assert_eq!(both.done.take_drops(), [vec![(reason, 1)], vec![]], "{packet}");
            }
        }
    }
}

/// The budget of packets is one of bytes, too, and half of it is for sessions that the other node is known to have.
#[test]
fn a_flood_of_nonsense_leaves_known_sessions_half_of_the_budget() {
    let mut both = Both::new(OUT);
    assert!(both.passes(0, LAN, UDP));
    both.sync();
    both.nodes[1][0].set_redirect(0);
    both.nodes[1][0].set_redirect(100);
    for _ in 0..200 {
        both.send(1, WAN, "udp 192.0.2.7:1 > 10.0.0.5:9 len=1");
    }
    assert_eq!(
        both.done.take_drops(),
        [vec![("policy", 50)], vec![("policy", 150)]]
    );
    let passed = (0..80).filter(|_| both.passes(1, WAN, UDP_REPLY)).count();
    assert_eq!(passed, 50);
    assert_eq!(both.done.take_drops(), [vec![], vec![("redirect_limit", 30)]]);
    // A tenth of a second is good for ten, of which nonsense may have five.
    both.wait(Nanos::from_millis(100));
    for _ in 0..20 {
        both.send(1, WAN, "udp 192.0.2.7:1 > 10.0.0.5:9 len=1");
    }
    assert_eq!(
        both.done.take_drops(),
        [vec![("policy", 5)], vec![("policy", 15)]]
    );
    assert_eq!((0..20).filter(|_| both.passes(1, WAN, UDP_REPLY)).count(), 5);
    both.done.take_drops();
    // Of packets with 1,000 bytes a second is good for 50 of them.
    both.wait(Nanos::from_secs(2));
    let large = "udp 192.0.2.7:53 > 10.0.0.5:5 len=982";
    assert_eq!(frame(large).len(), 1024);
    assert_eq!((0..100).filter(|_| both.passes(1, WAN, large)).count(), 50);
    both.wait(Nanos::from_secs(2));
    both.nodes[1][0].set_redirect(0);
    assert!(!both.passes(1, WAN, UDP_REPLY));
}

/// A link that takes nothing: as if the other node knew nothing; but what is known to be its own is dropped for that reason.
#[test]
fn without_room_on_the_link_packets_are_judged_here() {
    let rules = "[[rule]]\nname = \"no\"\nto = \"lan\"\nservice = [\"tcp\"]\naction = \"reject\"\n\
                 [[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n";
    let mut both = Both::new(rules);
    assert!(both.passes(0, LAN, UDP));
    both.sync();
    both.room = 0;
    let left = both.send(1, WAN, "tcp 192.0.2.7:999 > 10.0.0.5:22 syn seq=7");
    assert!(matches!(left[..], [(1, WAN, _)]), "{left:?}");
    for (packet, reason) in [
        (UDP_REPLY, "redirect_limit"),
        (ECHO_REPLY, "no_session"),
        ("udp 192.0.2.9:1 > 10.0.0.5:9", "policy"),
    ] {
        both.done.take_drops();
        assert!(!both.passes(1, WAN, packet));
        assert_eq!(both.done.take_drops(), [vec![], vec![(reason, 1)]], "{packet}");
    }
    assert_eq!(both.sum(1, |c| c.redirected_out), 0);
    let rule = |both: &Both, node: usize| both.nodes[node][0].rules()[0].packets;
    assert_eq!((rule(&both, 0), rule(&both, 1)), (0, 1));
}

/// Packets of both kinds in one burst keep their order, and a burst of what the other node offered opens nothing.
#[test]
fn bursts_of_many_kinds() {
    let mut both = Both::with_workers(OUT, [2, 2]);
    let flow = |n: u16, back: bool| {
        let ends = [format!("10.0.0.5:{n}"), String::from("192.0.2.7:53")];
        frame(&format!(
            "udp {} > {} len=9",
            ends[usize::from(back)],
            ends[usize::from(!back)]
        ))
    };
    let out: Vec<_> = (0..60).map(|n| (LAN, flow(n, false))).collect();
    both.burst(0, &out);
    let more: Vec<_> = (60..120).map(|n| (LAN, flow(n, false))).collect();
    both.burst(1, &more);
    // Replies of both halves at both nodes, half of them before the news.
    let back: Vec<_> = (30..90).map(|n| (WAN, flow(n, true))).collect();
    for node in [0, 1] {
        let mut left = both.burst(node, &back);
        left.sort();
        let mut expected: Vec<_> = back.iter().map(|(_, frame)| (node, LAN, frame.clone())).collect();
        expected.sort();
        assert_eq!(left, expected);
        both.sync();
    }
    both.assert_equal();
    assert_eq!((both.sessions(0).len(), both.sessions(1).len()), (120, 120));
    assert_eq!(both.done.take_drops(), [vec![], vec![]]);
}

/// For upkeep that has nothing to say.
struct Nowhere;

impl haechi::engine::Outputs<VecPacket> for Nowhere {
    fn forward(&mut self, _: VecPacket, _: haechi::base::PortId, _: haechi::engine::Note) {}
    fn drop(&mut self, _: VecPacket, _: haechi::engine::DropReason, _: haechi::engine::Note) {}
    fn answer(
        &mut self,
        _: VecPacket,
        _: haechi::base::PortId,
        _: haechi::engine::DropReason,
        _: haechi::engine::Note,
    ) {
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        None
    }
    fn originate(&mut self, _: VecPacket, _: haechi::base::PortId) {}
}

/// A node whose peer came later: its sessions are its own, and go on.
#[test]
fn a_peer_that_joins_takes_nothing_away() {
    let mut both = Both::new(OUT);
    both.stand(0, Standing::Own);
    for (port, packet) in [(LAN, SYN), (WAN, SYN_ACK), (LAN, ACK)] {
        assert!(both.passes(0, port, packet));
    }
    both.stand(0, Standing::Both);
    both.sync();
    assert_eq!(
        (both.sessions(0), both.sessions(1)),
        (vec!["established own".into()], vec!["established peer's".into()])
    );
    assert!(both.passes(0, LAN, ACK) && both.passes(1, LAN, ACK));
    assert_eq!(both.sum(0, |c| c.redirected_out), 0);
}

/// A node whose table is full lets a session of the other node's go: its packets are offered as unknown, or open one of this node's, which
/// yields to the owner's as soon as that hears of it.
#[test]
fn a_replica_that_gave_way_comes_back() {
    let rules = format!("[log]\nsessions = \"/dev/null\"\n{}log = \"end\"\n", OUT);
    let mut both = Both::new(&rules);
    let flow = |n: usize| format!("udp 10.0.0.5:{} > 192.0.2.7:53 len=10", n + 1);
    let reply = |n: usize| format!("udp 192.0.2.7:53 > 10.0.0.5:{} len=10", n + 1);
    let full = both.nodes[1][0].table().capacity() as usize;
    for n in 0..full {
        assert!(both.passes(0, LAN, &flow(n)));
    }
    both.sync();
    assert_eq!(both.sessions(1).len(), full);
    assert!(both.passes(1, LAN, "udp 10.0.0.6:1 > 192.0.2.7:53 len=10"));
    assert_eq!(
        (both.sessions(1).len(), both.sum(1, |c| c.sessions_evicted)),
        (full, 1)
    );
    assert_eq!(both.records(1).len(), 0, "its end is not this node's to log");
    // The oldest.
    assert!(both.passes(1, WAN, &reply(0)));
    assert_eq!(both.sum(1, |c| c.redirected_out), 1);
    assert!(both.passes(1, LAN, &flow(0)));
    assert_eq!(
        both.sessions(1)
            .iter()
            .filter(|text| text.ends_with("own"))
            .count(),
        2
    );
    let own = |both: &Both, node: usize| {
        both.sessions(node)
            .iter()
            .filter(|text| text.ends_with("own"))
            .count()
    };
    both.tell(1);
    while both.hear(0) {}
    both.tell(0);
    while both.hear(1) {}
    assert_eq!(own(&both, 1), 1, "the owner's has come back");
    assert!(both.passes(1, LAN, &flow(0)));
    assert_eq!(both.sum(1, |c| c.redirected_out), 2);
}

/// The server's answers to a handshake that haechi proxies come by the other node.
#[test]
fn a_proxied_handshake_by_two_nodes() {
    let rules = "[[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\nsyn_protection = \"always\"\n";
    let number = |frame: &[u8]| u32::from_be_bytes(frame[38..42].try_into().unwrap());
    let mut both = Both::new(rules);
    let left = both.send(0, LAN, SYN);
    let [(0, LAN, cookie)] = &left[..] else {
        panic!("{left:?}")
    };
    let cookie = number(cookie);
    let ack = format!(
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack={}",
        cookie.wrapping_add(1)
    );
    let left = both.send(0, LAN, &ack);
    let [(0, WAN, syn)] = &left[..] else {
        panic!("{left:?}")
    };
    assert_eq!((number(syn), syn[47]), (100, 2));
    // By the other node: an ACK goes back to the server, one on to the client, both where the server's packet came in.
    let mut left = both.send(1, WAN, SYN_ACK);
    left.sort();
    let [(1, LAN, opens), (1, WAN, third)] = &left[..] else {
        panic!("{left:?}")
    };
    assert_eq!((number(opens), opens[47]), (cookie.wrapping_add(1), 0x10));
    assert_eq!((number(third), third[47]), (101, 0x10));
    // Its data are translated by the owner.
    let left = both.send(1, WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=501 ack=101 len=50");
    let [(1, LAN, data)] = &left[..] else {
        panic!("{left:?}")
    };
    assert_eq!(number(data), cookie.wrapping_add(1));
    both.sync();
    both.assert_equal();
    assert_eq!(both.sessions(1), ["established peer's"]);
    let left = both.send(1, WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=551 ack=101 len=50");
    assert!(matches!(&left[..], [(1, LAN, data)] if number(data) == cookie.wrapping_add(51)));
}
