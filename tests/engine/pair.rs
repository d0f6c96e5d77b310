//! The engine's side of an HA pair: what one node tells of its sessions the other one takes in; both have the same then, and the
//! follower can go on when the leader is gone.

use haechi::base::Nanos;
use haechi::engine::{Adoption, PairSetup};
use haechi::flow::image::{BUCKETS, Bucket, BucketSet, DigestKey};
use haechi::flow::table::{News, Standing};
use proptest::prelude::*;

use crate::node::{ALLOW_ALL, Node, frame};

const TOLERANCE: u32 = 64 << 20;
const SETUP: PairSetup = PairSetup {
    key: DigestKey([11, 12]),
    adoption: Adoption {
        bytes: TOLERANCE,
        time: Nanos(10_000_000_000),
    },
    ends: 256,
};

/// Two nodes of one policy; the first leads.
struct Pair {
    a: Node,
    b: Node,
}

impl Pair {
    fn new(rules: &str) -> Self {
        let mut a = Node::new(rules).paired(&SETUP);
        let mut b = Node::new(rules).paired(&SETUP);
        a.engine.stand(a.now, Standing::Own, true);
        a.engine.begin_telling();
        b.engine.begin_telling();
        settle(&mut a);
        settle(&mut b);
        Self { a, b }
    }

    /// Everything that is to be told is told, and heard; returns how much that was.
    fn sync(&mut self) -> usize {
        let news = told(&mut self.a);
        for news in &news {
            self.b.hear(news, true);
        }
        news.len()
    }

    #[track_caller]
    fn assert_equal(&self) {
        assert_eq!(
            self.a.engine.digests().unwrap().0,
            self.b.engine.digests().unwrap().1
        );
    }

    /// The first node is gone.
    fn fail_over(&mut self) {
        let b = &mut self.b;
        b.now = b.now.max(self.a.now);
        b.engine.end_telling();
        b.engine.stand(b.now, Standing::Own, true);
        settle(b);
    }
}

fn settle(node: &mut Node) {
    while node.engine.is_settling() {
        node.engine.step_pair(node.now, 7);
    }
}

fn told(node: &mut Node) -> Vec<News> {
    let mut news = vec![];
    loop {
        let mut budget = 3;
        let change = node.engine.next_change(node.now, &mut budget);
        match change.or_else(|| node.engine.next_untold(node.now, &mut budget)) {
            Some(one) => news.push(one),
            None if node.engine.is_telling_all() || node.engine.news() > 0 => {}
            None => return news,
        }
    }
}

const SYN: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100";
const SYN_ACK: &str = "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn,ack seq=500 ack=101";
const ACK: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501";
const UDP: &str = "udp 10.0.0.5:5 > 192.0.2.7:53 len=10";
const UDP_REPLY: &str = "udp 192.0.2.7:53 > 10.0.0.5:5 len=10";

#[track_caller]
fn passes(node: &mut Node, packets: &[(&str, &str)]) {
    for (port, packet) in packets {
        assert!(node.send(port, packet).starts_with("to "), "{packet}");
    }
}

fn establish(node: &mut Node) {
    passes(node, &[("lan", SYN), ("wan", SYN_ACK), ("lan", ACK)]);
}

fn client(seq: u32, ack: u32, len: u32) -> String {
    format!("tcp 10.0.0.5:1234 > 192.0.2.7:80 seq={seq} ack={ack} len={len}")
}

fn server(seq: u32, ack: u32, len: u32) -> String {
    format!("tcp 192.0.2.7:80 > 10.0.0.5:1234 seq={seq} ack={ack} len={len}")
}

#[test]
fn the_follower_has_the_same_sessions_and_drops_every_packet() {
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    passes(
        &mut pair.a,
        &[
            ("lan", UDP),
            ("wan", UDP_REPLY),
            ("lan", "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7 seq=1"),
        ],
    );
    // Three changes of the connection, two of the datagrams: one update each; and one of the host.
    assert_eq!(pair.sync(), 4);
    assert_eq!(pair.a.sessions(), pair.b.sessions());
    pair.assert_equal();
    assert_ne!(pair.b.engine.digests().unwrap().1, &[0; BUCKETS]);
    pair.b.counted(&[("all sessions", 3), ("sessions_synced_in", 3)]);
    for packet in [
        SYN,
        ACK,
        UDP,
        "udp 10.9.9.9:1 > 192.0.2.7:1",
        "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7 seq=2",
    ] {
        assert_eq!(pair.b.send("lan", packet), "ha_standby: layer 2", "{packet}");
    }
    assert_eq!(pair.a.sessions(), pair.b.sessions());
    assert_eq!(pair.sync(), 0);
}

#[test]
fn packets_that_change_nothing_are_not_told_but_how_far_a_session_has_come_is() {
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    pair.sync();
    let mut seq = 101;
    let mut updates = 0;
    for _ in 0..2 * 4096 {
        passes(
            &mut pair.a,
            &[
                ("lan", &client(seq, 501, 100)),
                ("wan", &server(501, seq + 100, 0)),
            ],
        );
        seq += 100;
        updates += pair.sync();
    }
    // Each direction says so every 4,096 packets.
    assert_eq!(updates, 4);
    pair.assert_equal();
}

#[test]
fn ends_are_told_of_what_is_known_and_nothing_else() {
    let mut pair = Pair::new(ALLOW_ALL);
    passes(&mut pair.a, &[("lan", UDP)]);
    pair.sync();
    passes(&mut pair.a, &[("lan", "udp 10.0.0.6:6 > 192.0.2.7:53 len=10")]);
    // The second one was never told of.
    pair.a.wait_secs(100);
    assert_eq!(pair.a.sessions().len(), 0);
    assert_eq!(pair.sync(), 1);
    assert_eq!(pair.b.sessions().len(), 0);
    pair.assert_equal();
    assert_eq!(pair.b.engine.digests().unwrap().1, &[0; BUCKETS]);
    pair.b
        .counted(&[("sessions_synced_in", 1), ("sessions_synced_out", 1)]);
}

#[test]
fn late_and_repeated_news_move_nothing_backwards() {
    let mut pair = Pair::new(ALLOW_ALL);
    passes(&mut pair.a, &[("lan", SYN)]);
    let first = told(&mut pair.a);
    passes(&mut pair.a, &[("wan", SYN_ACK), ("lan", ACK)]);
    let second = told(&mut pair.a);
    for news in second.iter().chain(&first).chain(&second).chain(&first) {
        pair.b.hear(news, true);
    }
    assert_eq!(pair.a.sessions(), pair.b.sessions());
    pair.assert_equal();
    pair.b.counted(&[("all sessions", 1), ("sessions_synced_in", 1)]);
    // The end of an earlier connection of the same ports comes late.
    passes(
        &mut pair.a,
        &[("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 rst seq=101")],
    );
    pair.sync();
    passes(
        &mut pair.a,
        &[("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=90000")],
    );
    let news = told(&mut pair.a);
    assert!(
        matches!(news[..], [News::Gone(..), News::Session(..)]),
        "{news:?}"
    );
    for news in news.iter().rev() {
        pair.b.hear(news, true);
    }
    assert_eq!(pair.a.sessions(), pair.b.sessions());
    pair.assert_equal();
}

#[test]
fn sessions_of_the_follower_do_not_idle_out_until_their_owner_is_gone() {
    let mut pair = Pair::new(ALLOW_ALL);
    passes(&mut pair.a, &[("lan", UDP)]);
    pair.sync();
    assert_eq!(pair.b.wait_secs(3600), 0);
    assert_eq!(pair.b.sessions().len(), 1);
    pair.fail_over();
    // Since then it idles as every other: 30 s.
    assert_eq!(pair.b.wait_secs(29), 0);
    assert_eq!(pair.b.wait_secs(2), 1);
    assert_eq!(pair.b.sessions().len(), 0);
}

#[test]
fn connections_go_on_at_the_survivor() {
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    pair.sync();
    pair.fail_over();
    passes(
        &mut pair.b,
        &[
            ("lan", &client(101, 501, 100)),
            ("wan", &server(501, 201, 1000)),
            ("lan", &client(201, 1501, 0)),
        ],
    );
    // All numbers are known again: windows count.
    assert_eq!(
        pair.b.send("wan", &server(80_000_000, 201, 10)),
        "tcp_out_of_window: session"
    );
    assert!(pair.b.sessions()[0].contains("established by all lan>wan"));
}

#[test]
fn numbers_that_the_survivor_does_not_know_are_learnt_from_both_ends() {
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    pair.sync();
    pair.fail_over();
    let b = &mut pair.b;
    // 30 MB later, in the middle of a download.
    let far = 501 + 30_000_000;
    passes(
        b,
        &[
            ("wan", &server(far, 101, 1400)),
            ("wan", &server(far + 1400, 101, 1400)),
        ],
    );
    // Somebody guesses: it passes, for a while, and moves nothing.
    passes(b, &[("wan", &server(far + 20_000_000, 101, 1))]);
    passes(
        b,
        &[
            ("wan", &server(far + 2800, 101, 1400)),
            ("lan", &client(101, far + 1400, 0)),
            ("lan", &client(101, far + 4200, 0)),
        ],
    );
    passes(
        b,
        &[
            ("wan", &server(far + 4200, 101, 1400)),
            ("lan", &client(101, far + 5600, 0)),
        ],
    );
    // Both ends are known.
    for (port, packet) in [
        ("wan", server(far + 20_000_000, 101, 1)),
        ("wan", server(501, 101, 1)),
        ("lan", client(101, far + 20_000_000, 0)),
        ("lan", client(101, 501, 0)),
    ] {
        assert_eq!(b.send(port, &packet), "tcp_out_of_window: session", "{packet}");
    }
    passes(
        b,
        &[
            ("wan", &server(far + 5600, 101, 1400)),
            ("lan", &client(101, far + 7000, 20)),
            ("wan", &server(far + 7000, 121, 0)),
        ],
    );
}

/// The owner dies with a hole in what the client has: the retransmission and an old acknowledgement are within what the survivor knows,
/// what the client has beyond the hole is not.
#[test]
fn a_retransmission_ends_no_learning() {
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    pair.sync();
    pair.fail_over();
    let far = 501 + 5_000_000;
    passes(
        &mut pair.b,
        &[
            ("wan", &server(501, 101, 1400)),
            ("lan", &client(101, 501, 0)),
            ("lan", &client(101, far, 0)),
            ("wan", &server(far, 101, 1400)),
            ("lan", &client(101, far + 1400, 0)),
            ("wan", &server(far + 1400, 101, 1400)),
        ],
    );
}

/// An ICMP error is a connection's first packet at the survivor: its numbers are learnt nevertheless.
#[test]
fn an_icmp_error_keeps_no_numbers_from_being_learnt() {
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    passes(&mut pair.a, &[("lan", &client(101, 501, 50))]);
    pair.sync();
    pair.fail_over();
    let error = crate::both::error("198.51.100.1", "10.0.0.5", (3, 4), &client(101, 501, 50));
    assert_eq!(pair.b.frame("wan", &error), "to lan: related");
    let far = 501 + 30_000_000;
    passes(
        &mut pair.b,
        &[
            ("wan", &server(far, 151, 1400)),
            ("lan", &client(151, far + 1400, 0)),
            ("wan", &server(far + 1400, 151, 1400)),
            ("lan", &client(151, far + 2800, 0)),
        ],
    );
    assert_eq!(
        pair.b.send("wan", &server(501, 151, 1)),
        "tcp_out_of_window: session"
    );
}

#[test]
fn what_is_further_away_than_the_tolerance_is_dropped_and_so_is_all_of_it_later() {
    // No two of them agree.
    let blind = |ahead: u32| {
        [
            ("wan", server(ahead.wrapping_add(501), 101, 1)),
            ("lan", client(ahead.wrapping_add(101), 501, 1)),
            ("lan", client(101, ahead.wrapping_add(503), 0)),
        ]
    };
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    pair.sync();
    pair.fail_over();
    for (port, packet) in blind(TOLERANCE + 1)
        .iter()
        .chain(&blind(0u32.wrapping_sub(TOLERANCE + 10)))
    {
        assert_eq!(
            pair.b.send(port, packet),
            "tcp_out_of_window: session",
            "{packet}"
        );
    }
    let rst = "tcp 192.0.2.7:80 > 10.0.0.5:1234 rst seq=1000501";
    assert_eq!(pair.b.send("wan", rst), "tcp_out_of_window: session");
    for (port, packet) in blind(TOLERANCE - 4) {
        assert!(pair.b.send(port, &packet).starts_with("to "), "{packet}");
    }
    // Nothing of that counts: the connection is where it was.
    pair.b.wait_secs(11);
    for (port, packet) in blind(TOLERANCE - 4) {
        assert_eq!(
            pair.b.send(port, &packet),
            "tcp_out_of_window: session",
            "{packet}"
        );
    }
    passes(
        &mut pair.b,
        &[("wan", &server(501, 101, 100)), ("lan", &client(101, 601, 0))],
    );
}

/// Who leads from now on says so in the name of all hosts, to the switches on the other side of them.
#[test]
fn hosts_are_announced_where_they_are_not() {
    let mut pair = Pair::new(ALLOW_ALL);
    let tagged = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    let syn = frame(SYN);
    // In a frame's description both ends have one address.
    let mut syn_ack = frame(SYN_ACK);
    syn_ack[..12].rotate_left(6);
    assert!(pair.a.frame("lan", &syn).starts_with("to wan"));
    assert!(pair.a.frame("wan", &syn_ack).starts_with("to lan"));
    assert!(pair.a.frame("lan", &tagged(frame(UDP))).starts_with("to wan"));
    // Two sessions, three hosts: one of them on a VLAN, too. What is known is not told again.
    assert_eq!(pair.sync(), 5);
    assert!(
        pair.a
            .frame("lan", &frame("udp 10.0.0.5:9 > 192.0.2.7:53 len=10"))
            .starts_with("to wan")
    );
    assert_eq!(pair.sync(), 1);
    assert!(!pair.b.engine.is_announcing());
    pair.fail_over();
    let announced = pair.b.announce();
    let mut said: Vec<_> = announced
        .iter()
        .map(|(port, frame)| {
            assert!(frame.len() == 60 && frame[..6] == [0xff; 6], "{frame:02x?}");
            let tags = if frame[12..14] == [0x81, 0] { 4 } else { 0 };
            assert_eq!(frame[12 + tags..14 + tags], [0x80, 0x35]);
            assert_eq!(
                (&frame[22 + tags..28 + tags], &frame[32 + tags..38 + tags]),
                (&frame[6..12], &frame[6..12])
            );
            (port.as_str(), frame[6..12].to_vec(), tags)
        })
        .collect();
    said.sort();
    let (client, server) = (syn[6..12].to_vec(), syn[..6].to_vec());
    let mut expected = vec![("wan", client.clone(), 0), ("wan", client, 4), ("lan", server, 0)];
    expected.sort();
    assert_eq!(said, expected);
    assert_eq!(pair.b.engine.counters().stations_announced, 3);
    assert!(pair.b.announce().is_empty());
}

#[test]
fn the_survivor_asks_its_own_policy() {
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    passes(&mut pair.a, &[("lan", UDP)]);
    pair.sync();
    pair.b
        .apply("[[rule]]\nname = \"udp-only\"\nservice = [\"udp\"]\naction = \"allow\"\n");
    pair.fail_over();
    assert_eq!(pair.b.send("lan", &client(101, 501, 10)), "policy: no rule");
    passes(&mut pair.b, &[("lan", UDP)]);
    let sessions = pair.b.sessions();
    assert!(
        sessions.len() == 1 && sessions[0].contains("udp_new by udp-only"),
        "{sessions:?}"
    );
}

#[test]
fn a_resync_ends_what_it_does_not_name_and_only_in_its_buckets() {
    let mut pair = Pair::new(ALLOW_ALL);
    let flow = |n: u32| format!("udp 10.0.0.5:{n} > 192.0.2.7:53 len=10");
    for n in 1..=200 {
        passes(&mut pair.a, &[("lan", &flow(n))]);
    }
    pair.sync();
    // The first hundred end, and nobody hears of it.
    pair.a.wait_secs(20);
    for n in 101..=200 {
        passes(&mut pair.a, &[("lan", &flow(n))]);
    }
    pair.a.wait_secs(20);
    let lost = told(&mut pair.a);
    assert_eq!(
        (lost.len(), pair.a.sessions().len(), pair.b.sessions().len()),
        (100, 100, 200)
    );
    let differ: Vec<Bucket> = (0..BUCKETS as u16)
        .map(Bucket)
        .filter(|Bucket(n)| {
            let n = usize::from(*n);
            pair.a.engine.digests().unwrap().0[n] != pair.b.engine.digests().unwrap().1[n]
        })
        .collect();
    assert!(differ.len() > 50 && differ.len() <= 100, "{}", differ.len());
    let some = BucketSet::from_iter(differ[..10].iter().copied());
    for buckets in [some, BucketSet::ALL] {
        pair.b.engine.begin_resync();
        pair.a.engine.tell_all(&buckets);
        pair.sync();
        pair.b.engine.end_resync(&buckets);
        settle(&mut pair.b);
        let (a, b) = (
            pair.a.engine.digests().unwrap().0,
            pair.b.engine.digests().unwrap().1,
        );
        assert!(
            differ[..10]
                .iter()
                .all(|Bucket(n)| a[usize::from(*n)] == b[usize::from(*n)])
        );
        assert_eq!(a == b, buckets == BucketSet::ALL);
    }
    assert_eq!(pair.a.sessions(), pair.b.sessions());
}

#[test]
fn a_leader_that_follows_gives_way_to_what_the_other_one_says() {
    let mut pair = Pair::new(ALLOW_ALL);
    establish(&mut pair.a);
    pair.sync();
    pair.fail_over();
    // The link was cut: both led. The first one has sessions of its own, too, and gives way.
    passes(&mut pair.b, &[("lan", &client(101, 501, 100)), ("lan", UDP)]);
    passes(
        &mut pair.a,
        &[("lan", "udp 10.0.0.9:9 > 192.0.2.7:53 len=10"), ("lan", UDP)],
    );
    let Pair { mut a, mut b } = pair;
    a.engine.stand(a.now, Standing::Follow, false);
    settle(&mut a);
    let mut pair = Pair { a: b, b: a };
    pair.a.engine.begin_telling();
    pair.b.engine.begin_telling();
    pair.b.engine.begin_resync();
    pair.a.engine.tell_all(&BucketSet::ALL);
    pair.sync();
    pair.b.engine.end_resync(&BucketSet::ALL);
    settle(&mut pair.b);
    assert_eq!(pair.a.sessions(), pair.b.sessions());
    assert_eq!(pair.b.sessions().len(), 2);
    pair.assert_equal();
    b = pair.b;
    assert_eq!(b.send("lan", UDP), "ha_standby: layer 2");
}

#[test]
fn with_both_forwarding_one_keeps_a_session_that_both_have_made() {
    let both = || {
        let mut node = Node::new(ALLOW_ALL).paired(&SETUP);
        node.engine.stand(node.now, Standing::Both, true);
        node.engine.begin_telling();
        settle(&mut node);
        node
    };
    let mut pair = Pair { a: both(), b: both() };
    for node in [&mut pair.a, &mut pair.b] {
        passes(node, &[("lan", UDP)]);
    }
    let (of_a, of_b) = (told(&mut pair.a), told(&mut pair.b));
    // The lower node's stays.
    of_b.iter().for_each(|news| pair.a.hear(news, false));
    of_a.iter().for_each(|news| pair.b.hear(news, true));
    assert_eq!((pair.a.sessions().len(), pair.b.sessions().len()), (1, 1));
    let sums = |node: &Node| {
        let (told, heard) = node.engine.digests().unwrap();
        [told, heard].map(|sums| sums.iter().fold(0_u64, |sum, of| sum.wrapping_add(*of)))
    };
    let [[of_a, by_a], [of_b, by_b]] = [sums(&pair.a), sums(&pair.b)];
    assert_eq!((of_a, by_a, of_b), (by_b, 0, 0));
    assert_ne!(of_a, 0);
    // What the loser's own end would have said is not said any more.
    assert!(told(&mut pair.b).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever gets lost and is told again, in the end both have the same.
    #[test]
    fn both_have_the_same_whatever_got_lost(
        steps in prop::collection::vec((0_u8..12, 0_u8..8, prop::bool::weighted(0.3)), 1..200)
    ) {
        let mut pair = Pair::new(ALLOW_ALL);
        let mut gone = vec![];
        for (flow, what, lost) in steps {
            let (client, server) = (format!("10.0.0.5:{}", 1000 + u16::from(flow)), "192.0.2.7:80");
            match what {
                0 => { pair.a.send("lan", &format!("tcp {client} > {server} syn seq=100")); }
                1 => { pair.a.send("wan", &format!("tcp {server} > {client} syn,ack seq=500 ack=101")); }
                2 => { pair.a.send("lan", &format!("tcp {client} > {server} seq=101 ack=501")); }
                3 => { pair.a.send("lan", &format!("tcp {client} > {server} rst seq=101")); }
                4 => { pair.a.send("lan", &format!("udp {client} > {server} len=1")); }
                5 => { pair.a.send("wan", &format!("udp {server} > {client} len=1")); }
                6 => { pair.a.wait_secs(7); pair.b.now = pair.a.now; }
                _ => {
                    for news in told(&mut pair.a) {
                        match news {
                            News::Session(_, name) if lost => pair.a.engine.tell_again(name),
                            News::Gone(..) if lost => gone.push(news),
                            news => pair.b.hear(&news, true),
                        }
                    }
                    // Ends are told again as they are.
                    gone.drain(..).for_each(|news| pair.b.hear(&news, true));
                }
            }
        }
        pair.sync();
        prop_assert_eq!(pair.a.engine.digests().unwrap().0, pair.b.engine.digests().unwrap().1);
        let states = |node: &Node| -> Vec<String> {
            let cut = |text: String| text.split(" packets").next().unwrap_or_default().to_owned();
            node.sessions().into_iter().map(cut).collect()
        };
        prop_assert_eq!(states(&pair.a), states(&pair.b));
    }
}
