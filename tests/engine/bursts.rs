//! Bursts: packets that depend on each other, full tables, order.

use haechi::packet::VecPacket;

use crate::node::{ALLOW_ALL, Node, frame};

const SYN: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100";
const SYN_ACK: &str = "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn,ack seq=500 ack=101";
const ACK: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501";

#[test]
fn two_packets_of_a_new_flow_in_one_burst_make_one_session() {
    let mut node = Node::new(ALLOW_ALL);
    let query = ("lan", "udp 10.0.0.5:1234 > 192.0.2.7:53");
    let verdicts = node.send_all(&[query, query, ("wan", "udp 192.0.2.7:53 > 10.0.0.5:1234"), query]);
    assert_eq!(
        verdicts,
        [
            "to wan: new session by all",
            "to wan: session",
            "to lan: session",
            "to wan: session"
        ]
    );
    assert_eq!(
        node.sessions(),
        ["udp 10.0.0.5:1234 > 192.0.2.7:53 udp_replied by all lan>wan packets [3, 1] bytes [84, 28]"]
    );
    node.counted(&[
        ("received", 4),
        ("forwarded", 4),
        ("sessions_created", 1),
        ("all sessions", 1),
        ("all packets", 4),
        ("all bytes", 112),
    ]);
}

#[test]
fn a_whole_handshake_in_one_burst() {
    let mut node = Node::new(ALLOW_ALL);
    let verdicts = node.send_all(&[("wan", SYN_ACK), ("lan", SYN), ("wan", SYN_ACK), ("lan", ACK)]);
    let expected = [
        "no_session: no rule",
        "to wan: new session by all",
        "to lan: session",
        "to wan: session",
    ];
    assert_eq!(verdicts, expected);
    assert!(node.sessions()[0].contains("established by all lan>wan packets [2, 1]"));
}

#[test]
fn a_burst_is_what_its_packets_are_one_by_one() {
    // New flows, replies, resets, reopening, refused packets, broken ones; in every order of arrival within their flow.
    let reset = "tcp 192.0.2.7:80 > 10.0.0.5:1234 rst seq=501";
    let packets = [
        ("lan", SYN),
        ("lan", "udp 10.0.0.5:1234 > 192.0.2.7:53"),
        ("wan", SYN_ACK),
        ("lan", ACK),
        ("wan", "udp 192.0.2.7:53 > 10.0.0.5:1234"),
        ("wan", reset),
        ("lan", "icmp 10.0.0.5 > 192.0.2.7 echo-request"),
        ("lan", SYN),
        ("wan", "tcp 192.0.2.7:80 > 10.0.0.5:1234 ack"),
        ("lan", "icmp 10.0.0.5 > 192.0.2.7 3/3"),
        ("wan", reset),
        ("lan", SYN),
        ("lan", "udp 10.0.0.5:1234 > 192.0.2.7:54 len=100"),
        ("dmz", SYN),
        ("lan", "tcp 192.0.2.7:80 > 10.0.0.5:1234 ack"),
    ];
    let mut one_by_one = Node::new(ALLOW_ALL);
    let singly: Vec<_> = packets
        .iter()
        .map(|(port, packet)| one_by_one.send(port, packet))
        .collect();
    for split in 0..=packets.len() {
        let mut node = Node::new(ALLOW_ALL);
        let mut verdicts = vec![];
        for burst in [&packets[..split], &packets[split..]] {
            if !burst.is_empty() {
                verdicts.extend(node.send_all(burst));
            }
        }
        assert_eq!(verdicts, singly, "split at {split}");
        assert_eq!(node.sessions(), one_by_one.sessions(), "split at {split}");
        assert_eq!(node.counters(), one_by_one.counters(), "split at {split}");
    }
}

#[test]
fn a_full_burst_of_new_flows() {
    let mut node = Node::new(ALLOW_ALL);
    let packets: Vec<_> = (0..64)
        .map(|n| {
            (
                "lan",
                VecPacket::new(frame(&format!("udp 10.0.0.5:{} > 192.0.2.7:53", 1000 + n))),
            )
        })
        .collect();
    assert!(
        node.burst(&packets)
            .iter()
            .all(|v| v == "to wan: new session by all")
    );
    assert!(node.burst(&packets).iter().all(|v| v == "to wan: session"));
    assert_eq!(node.engine.table().len(), 64);
}

#[test]
fn an_empty_burst_is_nothing() {
    let mut node = Node::new(ALLOW_ALL);
    assert!(node.burst(&[]).is_empty());
    node.counted(&[]);
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old_ones() {
    let flow = |n: u16| format!("udp 10.0.0.5:{n} > 192.0.2.7:53");
    let reply = |n: u16| format!("udp 192.0.2.7:53 > 10.0.0.5:{n}");
    let mut node = Node::with_table(ALLOW_ALL, 4);
    let mut made = vec![];
    for n in 1..=8 {
        let verdict = node.send("lan", &flow(n));
        made.push((n, verdict == "to wan: new session by all"));
        assert!(
            verdict == "to wan: new session by all" || verdict == "table_full: rule all",
            "{verdict}"
        );
        // With packets both ways it is none that gives way.
        if verdict.starts_with("to wan") {
            assert_eq!(node.send("wan", &reply(n)), "to lan: session");
        }
    }
    let held = made.iter().filter(|(_, made)| *made).count() as u64;
    assert_eq!((held, node.engine.table().len()), (4, 4), "all of its capacity");
    node.counted(&[
        ("received", 8 + held),
        ("forwarded", 2 * held),
        ("table_full", 8 - held),
        ("sessions_created", held),
        ("all sessions", held),
        ("all packets", 2 * held),
        ("all bytes", 2 * 28 * held),
    ]);
    for (n, made) in &made {
        let expected = if *made {
            "to wan: session"
        } else {
            "table_full: rule all"
        };
        assert_eq!(node.send("lan", &flow(*n)), expected);
    }
    // When one goes there is room for one.
    node.wait_secs(301);
    assert_eq!(node.engine.table().len(), 0);
    assert_eq!(node.send("lan", &flow(8)), "to wan: new session by all");
}

#[test]
fn order_within_a_flow_is_kept() {
    let mut node = Node::new(ALLOW_ALL);
    let packets: Vec<_> = (0..60)
        .map(|n| {
            let packet = format!("udp 10.0.0.5:{} > 192.0.2.7:53 len={}", 1 + n % 3, n);
            ("lan", VecPacket::new(frame(&packet)))
        })
        .collect();
    node.burst(&packets);
    let left: Vec<_> = node.forwarded.iter().map(|(_, frame)| frame.clone()).collect();
    let came: Vec<_> = packets.iter().map(|(_, packet)| packet.frame.clone()).collect();
    assert_eq!(left, came);
}
