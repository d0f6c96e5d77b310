//! IP fragments through the node over AF_XDP, which shows them as they are: real hosts' large datagrams, and raw frames that no
//! honest host sends. The node's counters and the far end's capture both tell what crossed.
#![cfg(feature = "dpdk")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's way to fail"
)]

mod lab;

use std::net::{IpAddr, SocketAddr};

use lab::fragments::{Fragmented, is_fragment};
use lab::frames::Ends;
use lab::{Config, Host, Lab, Node, wait_for};

const RULES: &str = r#"
[[rule]]
name = "ping"
from = "lan"
service = ["icmp/echo-request", "icmpv6/128"]
action = "allow"
[[rule]]
name = "dns"
from = "lan"
service = ["udp/53"]
action = "allow"
"#;

/// Of both captures' filters: fragments alone (of IPv6, by the next header).
const FRAGMENTS: &str = "(ip and ip[6:2] & 0x3fff != 0) or (ip6 and ip6[6] == 44)";

/// In how many fragments a kernel with an MTU of 1500 sends an IP payload of so many bytes.
fn fragments_of(to: IpAddr, payload: usize) -> usize {
    payload.div_ceil(if to.is_ipv4() { 1480 } else { 1448 })
}

/// Fragments and whole datagrams that the node counted since.
fn counted_since(node: &Node, before: &lab::api::Counters) -> (u64, u64) {
    let after = node.balance();
    assert_eq!(after.drops, before.drops, "none is dropped");
    (
        after.fragments - before.fragments,
        after.fragments_reassembled - before.fragments_reassembled,
    )
}

#[test]
fn pings_of_64_kib_cross_in_fragments() {
    const PINGS: usize = 5;
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    // The largest that there are: 65,535 bytes with the IPv4 header, or behind the IPv6 header.
    for (to, size) in [(server.v4, 65_507), (server.v6, 65_527)] {
        client.ping(to, 1);
        let mut captures = [client.capture_of(FRAGMENTS), server.capture_of(FRAGMENTS)];
        let before = node.balance();
        let said = client
            .ns
            .exec(&format!("ping -n -c {PINGS} -i 0.05 -W 5 -s {size} {to}"));
        assert!(
            said.contains(&format!("{PINGS} received")) && said.contains(&format!("{} bytes from", size + 8)),
            "{said}"
        );
        let each = fragments_of(to, size + 8);
        for capture in &mut captures {
            let frames = capture.collect(PINGS * each);
            assert!(
                frames.iter().all(|frame| is_fragment(frame)),
                "fragments stay fragments"
            );
            assert_eq!((frames.len(), capture.drain().len()), (PINGS * each, 0));
        }
        assert_eq!(
            counted_since(&node, &before),
            ((2 * PINGS * each) as u64, 2 * PINGS as u64),
            "{to}: requests and replies"
        );
        println!("{to}: {PINGS} pings of {size} bytes and their replies, {each} fragments each");
    }
}

#[test]
fn large_udp_answers_arrive() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    let service = server.udp(53);
    let mut buffer = vec![0; 70_000];
    for to in [server.v4, server.v6] {
        client.ping(to, 1);
        let before = node.balance();
        let mut capture = client.capture_of(FRAGMENTS);
        let socket = client.udp(0);
        let mut expected = 0;
        for length in [1473, 4096, 60_000] {
            socket.send_to(b"how much?", SocketAddr::new(to, 53)).unwrap();
            let (asked, whom) = service.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..asked], b"how much?");
            let answer: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            service.send_to(&answer, whom).unwrap();
            let (received, _) = socket.recv_from(&mut buffer).unwrap();
            assert!(buffer[..received] == answer, "{length} bytes from {to}");
            expected += fragments_of(to, length + 8);
        }
        assert_eq!(capture.collect(expected).len(), expected);
        assert_eq!(counted_since(&node, &before), (expected as u64, 3), "{to}");
        println!("{to}: answers of up to 60000 bytes in {expected} fragments");
    }
    // The other way there is no rule: the first packet of a flow may come in fragments, too.
    let inside = client.udp(53);
    let outside = server.udp(0);
    let before = node.counters();
    outside
        .send_to(&[0; 4000], SocketAddr::new(client.v4, 53))
        .unwrap();
    node.wait_drops(&before, "policy", 3);
    inside.set_nonblocking(true).unwrap();
    assert!(inside.recv(&mut buffer).is_err());
}

/// The frames of a UDP datagram of 100 bytes to port 53.
fn query(ends: &Ends, id: u32) -> Fragmented {
    let payload: Vec<u8> = (0..92).collect();
    Fragmented::new(ends.udp(1000, 53, &payload), id)
}

fn send_all(from: &Host, frames: &[Vec<u8>]) {
    frames.iter().for_each(|frame| from.send(frame));
}

#[test]
fn fragments_in_any_order_leave_in_that_order_as_they_came() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    let mut at_b = b.capture();
    let before = node.counters();
    let mut id = 0;
    for ends in [Ends::v4(&a, &b), Ends::v6(&a, &b)] {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [3, 0, 1, 2]] {
            id += 1;
            let pieces = query(&ends, id).pieces(32);
            let shuffled = order.map(|place: usize| pieces[place].clone());
            // All but one wait.
            send_all(&a, &shuffled[..3]);
            wait_for("three fragments are held", || {
                let now = node.counters();
                if (now.fragments_held, now.held) == (3, 3) {
                    Ok(())
                } else {
                    Err(format!("{now:?}"))
                }
            });
            assert_eq!(at_b.drain().len(), 0, "nothing leaves before the whole is known");
            a.send(&shuffled[3]);
            assert_eq!(at_b.collect(4), shuffled);
        }
    }
    assert_eq!(counted_since(&node, &before), (4 * 8, 8));
    assert_eq!(at_b.drain().len(), 0);
}

/// Each hostile case by the counter that moves; none of its frames comes out.
#[test]
fn hostile_fragments_are_dropped_for_their_reason() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let conntrack = "max_sessions = 4096\n[conntrack.fragments]\ntimeout = \"1s\"\n";
    let node = lab.start(Config::new(RULES).conntrack(conntrack));
    let mut at_b = b.capture();
    for ends in [Ends::v4(&a, &b), Ends::v6(&a, &b)] {
        let cut = query(&ends, 77);
        let syn = Fragmented::new(ends.tcp((1000, 80), 2, 1, 0, &[0; 12]), 78);
        let part = |start, end| cut.part(start, end);
        for (what, frames, reason, dropped) in [
            (
                "overlap",
                vec![part(0, 64), part(56, 100), part(64, 100)],
                "fragment_overlap",
                3,
            ),
            (
                "other bytes in the same place",
                vec![part(0, 64), cut.piece(0, true, &[0xee; 64]), part(64, 100)],
                "fragment_overlap",
                3,
            ),
            (
                "two ends",
                vec![part(64, 100), cut.piece(120, false, &[0; 8]), part(0, 64)],
                "malformed",
                3,
            ),
            (
                "longer than can be",
                vec![cut.piece(65_528, false, &[0; 64])],
                "malformed",
                1,
            ),
            (
                "tiny first fragment",
                vec![syn.part(0, 8), syn.part(8, 16)],
                "malformed",
                2,
            ),
            (
                "never complete",
                vec![part(0, 64), part(64, 96)],
                "fragment_timeout",
                2,
            ),
            ("without a first", vec![part(64, 100)], "fragment_timeout", 1),
        ] {
            let before = node.balance();
            send_all(&a, &frames);
            node.wait_drops(&before, reason, dropped);
            let mut expected = before.drops.clone();
            *expected.entry(reason.into()).or_default() += dropped;
            let after = node.balance();
            assert_eq!(after.drops, expected, "{what}");
            assert_eq!(at_b.drain().len(), 0, "{what}");
            // A refused datagram is remembered for a while; wait until it is forgotten: a good one with its identification passes.
            wait_for("the identification is free again", || {
                let before = node.counters();
                send_all(&a, &cut.pieces(64));
                let after = node.settled_after_holding(&before, 2);
                if after.fragments_reassembled > before.fragments_reassembled {
                    Ok(())
                } else {
                    Err(format!("{after:?}"))
                }
            });
            assert_eq!(at_b.collect(2), cut.pieces(64), "{what}");
        }
        // A repeated fragment alone is dropped, the datagram passes.
        let before = node.balance();
        let frames = [part(0, 64), part(0, 64), part(64, 100)];
        send_all(&a, &frames);
        assert_eq!(at_b.collect(2), [part(0, 64), part(64, 100)]);
        node.wait_drops(&before, "fragment_duplicate", 1);
    }
    assert_eq!(at_b.drain().len(), 0);
}

#[test]
fn the_oldest_incomplete_datagram_makes_room() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let conntrack = "max_sessions = 4096\n[conntrack.fragments]\nmax_datagrams = 8\ntimeout = \"1m\"\n";
    // Each of several workers keeps the newest of its own.
    let config = Config::new(RULES).node("workers", "\"1\"");
    let node = lab.start(config.conntrack(conntrack));
    let mut at_b = b.capture();
    let ends = Ends::v4(&a, &b);
    let before = node.counters();
    for id in 0..100 {
        a.send(&query(&ends, id).part(0, 64));
    }
    node.wait_drops(&before, "fragment_evicted", 92);
    assert_eq!(node.counters().fragments_held, 8);
    // The newest eight are still there.
    for id in 92..100 {
        a.send(&query(&ends, id).part(64, 100));
    }
    let expected: Vec<_> = (92..100).flat_map(|id| query(&ends, id).pieces(64)).collect();
    assert_eq!(at_b.collect(16), expected);
    node.balance();
}

#[test]
fn a_node_that_stops_drops_and_counts_what_it_holds() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    for ends in [Ends::v4(&a, &b), Ends::v6(&a, &b)] {
        a.send(&query(&ends, 5).part(0, 64));
    }
    wait_for("two fragments are held", || {
        let now = node.counters();
        if now.fragments_held == 2 && now.imbalance() == 0 {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    let shown = node.cli("show counters");
    assert!(shown.contains("fragments"), "{shown}");
    let said = node.stop();
    assert!(
        said.contains(
            "packets in 2, made 0, out 0, dropped 2 (fragment_timeout 2), sessions 0, mbufs in use 0"
        ),
        "{said}"
    );
}
