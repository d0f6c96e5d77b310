//! `antispoof`: a source that belongs behind another zone, or not behind this one, opens no session and answers in none.

use crate::node::{ALLOW_ALL, Node};

/// `lan` has its networks, with a part of them in `dmz`; `wan` has none, and takes nothing of theirs.
const ZONES: &str = "[[zone]]\nname = \"lan\"\nnetworks = [\"10.0.0.0/8\", \"@v6\"]\nantispoof = true\n\
    [[zone]]\nname = \"dmz\"\nnetworks = [\"10.9.0.0/16\", \"192.168.0.0/16\"]\n\
    [[zone]]\nname = \"wan\"\nantispoof = true\n\
    [address_sets]\nv6 = [\"fd00::/8\"]\n";

fn node() -> Node {
    Node::new(&format!("{ZONES}{ALLOW_ALL}"))
}

#[test]
fn sources_of_other_zones_and_of_none_are_dropped() {
    let mut node = node();
    for (port, source) in [
        // Behind dmz, and behind nobody.
        ("lan", "10.9.0.5"),
        ("lan", "192.168.1.1"),
        ("lan", "198.51.100.1"),
        ("lan", "8.8.8.8"),
        ("lan", "172.16.0.1"),
        // Behind lan and dmz, from outside.
        ("wan", "10.0.0.5"),
        ("wan", "10.255.255.255"),
        ("wan", "10.9.255.255"),
        ("wan", "192.168.0.1"),
        // The other port of the same zone.
        ("net", "10.0.0.5"),
    ] {
        for packet in [
            format!("udp {source}:1 > 203.0.113.7:2"),
            format!("tcp {source}:1 > 203.0.113.7:2 syn"),
            format!("tcp {source}:1 > 203.0.113.7:2 seq=1 ack=1"),
            format!("icmp {source} > 203.0.113.7 echo-request"),
        ] {
            node.changes(&[("received", 1), ("spoofed_source", 1)], |node| {
                assert_eq!(
                    node.send(port, &packet),
                    "spoofed_source: no rule",
                    "{packet} by {port}"
                );
            });
        }
    }
    for (port, source) in [("lan", "2001:db8::5"), ("wan", "fd00::5"), ("net", "fdff::1")] {
        let packet = format!("udp [{source}]:1 > [2001:db8:9::7]:2");
        assert_eq!(
            node.send(port, &packet),
            "spoofed_source: no rule",
            "{packet} by {port}"
        );
    }
    assert_eq!(node.sessions(), [""; 0]);
}

#[test]
fn sources_that_belong_where_they_come_from_pass() {
    for (port, peer, packet) in [
        ("lan", "wan", "udp 10.0.0.5:1 > 203.0.113.7:2"),
        ("lan", "wan", "udp 10.8.255.255:1 > 10.9.0.1:2"),
        ("lan", "wan", "udp 10.10.0.0:1 > 203.0.113.7:2"),
        ("lan", "wan", "udp [fd00::5]:1 > [2001:db8::7]:2"),
        ("wan", "lan", "udp 203.0.113.7:2 > 10.0.0.5:1"),
        ("wan", "lan", "udp [2001:db8::7]:1 > [fd00::5]:2"),
        ("net", "dmz", "udp 203.0.113.7:2 > 10.9.0.5:1"),
        // A zone without `antispoof` is not asked.
        ("dmz", "net", "udp 10.9.0.5:1 > 203.0.113.7:2"),
        ("dmz", "net", "udp 10.0.0.5:1 > 203.0.113.7:2"),
        ("dmz", "net", "udp 203.0.113.7:1 > 10.0.0.5:2"),
        // Of the link, whose prefix nobody lists: DHCP, IGMP, link-local.
        ("lan", "wan", "udp 0.0.0.0:68 > 255.255.255.255:67"),
        ("lan", "wan", "proto/2 0.0.0.0 > 224.0.0.22"),
        ("lan", "wan", "udp 169.254.7.7:5353 > 224.0.0.251:5353"),
        ("lan", "wan", "udp [fe80::5]:546 > [ff02::1:2]:547"),
    ] {
        let mut node = node();
        assert_eq!(
            node.send(port, packet),
            format!("to {peer}: new session by all"),
            "{packet}"
        );
    }
}

/// Before the rules: they are not asked, do not count and do not answer.
#[test]
fn the_rules_do_not_see_spoofed_packets() {
    let mut node = Node::new(&format!("{ZONES}[[rule]]\nname = \"no\"\naction = \"reject\"\n"));
    node.changes(&[("received", 1), ("spoofed_source", 1)], |node| {
        node.send("wan", "tcp 10.0.0.5:1 > 10.0.0.6:2 syn");
    });
    assert!(node.originated.is_empty());
}

/// Who answers has a source as well: dmz's addresses are not behind wan.
#[test]
fn answers_from_where_their_source_does_not_belong_are_dropped() {
    for (request, answer) in [
        ("udp 10.0.0.5:1 > 10.9.0.7:2", "udp 10.9.0.7:2 > 10.0.0.5:1"),
        (
            "tcp 10.0.0.5:1 > 10.9.0.7:2 syn seq=5",
            "tcp 10.9.0.7:2 > 10.0.0.5:1 syn ack seq=9 ack=6",
        ),
        (
            "tcp 10.0.0.5:1 > 10.9.0.7:2 syn seq=5",
            "tcp 10.9.0.7:2 > 10.0.0.5:1 rst ack=6",
        ),
        (
            "icmp 10.0.0.5 > 10.9.0.7 echo-request",
            "icmp 10.9.0.7 > 10.0.0.5 echo-reply",
        ),
        (
            "icmp 10.0.0.5 > 10.9.0.7 timestamp-request",
            "icmp 10.9.0.7 > 10.0.0.5 timestamp-reply",
        ),
        ("proto/47 10.0.0.5 > 10.9.0.7", "proto/47 10.9.0.7 > 10.0.0.5"),
    ] {
        let mut node = node();
        assert_eq!(node.send("lan", request), "to wan: new session by all");
        for _ in 0..2 {
            node.changes(&[("received", 1), ("spoofed_source", 1)], |node| {
                assert_eq!(node.send("wan", answer), "spoofed_source: session", "{answer}");
            });
        }
        // Without `antispoof` it passes, and goes on; with it, what has answered is looked at again.
        node.apply(ALLOW_ALL);
        assert_eq!(node.send("wan", answer), "to lan: session");
        // (A SYN after the RST would open another one.)
        if !answer.contains("rst") {
            assert!(node.send("lan", request).starts_with("to wan: "));
        }
        node.apply(&format!("{ZONES}{ALLOW_ALL}"));
        assert_eq!(node.send("wan", answer), "spoofed_source: rule all", "{answer}");
        assert_eq!(node.sessions(), [""; 0]);
    }
}

#[test]
fn packets_of_a_session_are_not_asked_again() {
    let mut node = node();
    assert!(
        node.send("wan", "udp 203.0.113.7:2 > 10.0.0.5:1")
            .starts_with("to lan")
    );
    assert_eq!(
        node.send("lan", "udp 10.0.0.5:1 > 203.0.113.7:2"),
        "to wan: session"
    );
    // By the wrong side it is refused as such, whatever its source.
    assert_eq!(
        node.send("wan", "udp 10.0.0.5:1 > 203.0.113.7:2"),
        "wrong_port: session"
    );
}

#[test]
fn icmp_errors_have_a_source_as_well() {
    let mut node = node();
    assert!(
        node.send("lan", "udp 10.0.0.5:1000 > 203.0.113.7:53")
            .starts_with("to wan")
    );
    // A router's error about that packet.
    let error = |router: [u8; 4]| {
        let inner = crate::node::frame("udp 10.0.0.5:1000 > 203.0.113.7:53")[14..42].to_vec();
        let mut ip = crate::frames::Ip4::new(1);
        (ip.source, ip.destination) = (router, [10, 0, 0, 5]);
        ip.frame(&crate::frames::summed(
            &[],
            crate::frames::icmp(11, 0, [0; 4], &inner),
            2,
        ))
    };
    assert_eq!(node.frame("wan", &error([203, 0, 113, 1])), "to lan: related");
    node.changes(&[("received", 1), ("spoofed_source", 1)], |node| {
        assert_eq!(
            node.frame("wan", &error([10, 7, 7, 7])),
            "spoofed_source: no rule"
        );
    });
}

#[test]
fn an_apply_ends_sessions_that_it_makes_spoofed() {
    let mut node = Node::new(ALLOW_ALL);
    let packet = "udp 10.0.0.5:1 > 10.0.0.6:2";
    assert!(node.send("wan", packet).starts_with("to lan"));
    node.apply(&format!("{ZONES}{ALLOW_ALL}"));
    let moved = [
        ("received", 1),
        ("spoofed_source", 1),
        ("sessions_ended", 1),
        ("all sessions", -1),
        ("all packets", 1),
        ("all bytes", 28),
    ];
    node.changes(&moved, |node| {
        assert_eq!(node.send("wan", packet), "spoofed_source: rule all")
    });
    assert_eq!(node.send("wan", packet), "spoofed_source: no rule");
}
