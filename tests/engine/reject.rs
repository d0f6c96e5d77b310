//! Rejected packets are answered, by the port that they came in by, within `reject_rate`.

use haechi::base::Nanos;
use haechi::packet::VecPacket;

use crate::checked::{checked, checked_tcp};
use crate::frames::*;
use crate::node::{Node, frame};

const REJECT: &str = "[[rule]]\nname = \"no\"\naction = \"reject\"\n";

fn rate(rate: &str) -> String {
    format!("[policy]\nreject_rate = \"{rate}\"\n{REJECT}")
}

#[test]
fn answers_leave_by_the_port_of_the_refused_packet() {
    for (port, packet) in [
        ("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100"),
        (
            "net",
            "tcp [2001:db8::5]:1234 > [2001:db8::7]:80 syn seq=100 vlan=7",
        ),
        ("wan", "udp 10.0.0.5:1234 > 192.0.2.7:53 len=10 vlan=5 vlan=6"),
        ("dmz", "icmpv6 2001:db8::5 > 2001:db8::7 echo-request len=50"),
    ] {
        let mut node = Node::new(REJECT);
        assert_eq!(node.send(port, packet), "policy: rule no");
        let [(from, answer)] = &node.originated[..] else {
            panic!("one answer to {packet}");
        };
        let refused = frame(packet);
        assert_eq!(from, port);
        checked(answer);
        assert_eq!((&answer[0..6], &answer[6..12]), (&refused[6..12], &refused[0..6]));
        assert_eq!(node.sessions(), [""; 0], "no session for it");
    }
}

#[test]
fn a_refused_connection_is_reset_with_the_right_numbers() {
    let mut node = Node::new(REJECT);
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100");
    let tcp = checked_tcp(&node.originated[0].1);
    assert_eq!((tcp.source_port, tcp.destination_port), (80, 1234));
    assert_eq!(
        (tcp.rst, tcp.ack, tcp.sequence_number, tcp.acknowledgment_number),
        (true, true, 0, 101)
    );
}

#[test]
fn the_answer_passes_no_rule_and_opens_nothing() {
    // What a reject makes is not judged: from the other side it would be refused.
    let mut node = Node::new(REJECT);
    node.send("lan", "udp 10.0.0.5:1234 > 192.0.2.7:53");
    let (_, answer) = node.originated.remove(0);
    assert_eq!(node.frame("wan", &answer), "icmp_error_unrelated: layer 2");
    assert_eq!(node.originated.len(), 0, "an error is never answered");
}

#[test]
fn what_must_not_be_answered_is_dropped_in_silence() {
    for packet in [
        "udp 10.0.0.5:1234 > 224.0.0.251:5353",
        "udp 0.0.0.0:68 > 255.255.255.255:67",
        "icmpv6 fe80::1 > ff02::1 echo-request",
        "icmp 10.0.0.5 > 192.0.2.7 9/0 len=8",
    ] {
        let mut node = Node::new(REJECT);
        assert_eq!(node.send("lan", packet), "policy: rule no", "{packet}");
        let bytes = node.counters()["no bytes"];
        node.counted(&[
            ("received", 1),
            ("policy", 1),
            ("no packets", 1),
            ("no bytes", bytes),
        ]);
    }
    // To a group by Ethernet alone.
    let mut node = Node::new(REJECT);
    let broadcast = with(udp4((1, 2), b"x"), 0, &[0xff; 6]);
    assert_eq!(node.frame("lan", &broadcast), "policy: rule no");
    assert_eq!(node.originated.len(), 0);
    // Only what a rule rejects: not what no rule matches, what is broken or has no session.
    let mut node = Node::new("");
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn");
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack");
    assert_eq!(node.originated.len(), 0);
}

#[test]
fn the_rate_is_kept_and_what_it_costs_is_counted() {
    let mut node = Node::new(&rate("10/s"));
    let flood: Vec<_> = (0..50)
        .map(|n| {
            (
                "lan",
                VecPacket::new(frame(&format!("udp 10.0.0.5:{} > 192.0.2.7:53", 1 + n))),
            )
        })
        .collect();
    let moved = [
        ("received", 50),
        ("policy", 50),
        ("originated", 10),
        ("rejects_suppressed", 40),
        ("no packets", 50),
        ("no bytes", 50 * 28),
    ];
    node.changes(&moved, |node| node.burst(&flood));
    node.wait(Nanos::from_millis(500));
    node.burst(&flood);
    assert_eq!(node.originated.len(), 15, "half a second's worth more");
    node.wait_secs(3600);
    node.burst(&flood);
    assert_eq!(
        node.originated.len(),
        25,
        "an hour saves up no more than a second's worth"
    );
}

#[test]
fn an_applied_rate_counts_at_once() {
    let mut node = Node::new(&rate("1000/s"));
    node.apply(&rate("2/s"));
    let flood: Vec<_> = (0..50)
        .map(|_| ("lan", VecPacket::new(frame("udp 10.0.0.5:1 > 192.0.2.7:53"))))
        .collect();
    node.burst(&flood);
    assert_eq!(node.originated.len(), 2);
}

#[test]
fn without_buffers_packets_are_refused_in_silence() {
    let mut node = Node::new(REJECT);
    node.buffers = Some(1);
    let packets: Vec<_> = (0..3)
        .map(|_| ("lan", VecPacket::new(frame("udp 10.0.0.5:1 > 192.0.2.7:53"))))
        .collect();
    let verdicts = node.burst(&packets);
    assert!(verdicts.iter().all(|v| v == "policy: rule no"));
    assert_eq!(
        (
            node.counters()["originated"],
            node.counters()["rejects_suppressed"]
        ),
        (1, 2)
    );
}
