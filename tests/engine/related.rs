//! ICMP errors: each passes to the end that sent what it is about, or nowhere.

use std::net::IpAddr;

use etherparse::PacketBuilder;

use crate::node::{ALLOW_ALL, Node, frame};

const OUT: &str = "[[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n";
const SYN: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100";
const SYN_ACK: &str = "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn,ack seq=500 ack=101";
const ACK: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501";
const UNRELATED: &str = "icmp_error_unrelated: layer 2";

/// An error of `router` to `to` about a packet, of which the error holds `length` bytes.
fn error(router: &str, to: &str, (icmp_type, code): (u8, u8), about: &str, length: usize) -> Vec<u8> {
    let about = frame(about);
    let about = &about[14..(14 + length).min(about.len())];
    let ends: [IpAddr; 2] = [router, to].map(|address| address.parse().unwrap());
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 8]);
    let rest = [0, 0, 5, 0];
    let mut out = Vec::new();
    match ends {
        [IpAddr::V4(a), IpAddr::V4(b)] => builder
            .ipv4(a.octets(), b.octets(), 60)
            .icmpv4_raw(icmp_type, code, rest)
            .write(&mut out, about),
        [IpAddr::V6(a), IpAddr::V6(b)] => builder
            .ipv6(a.octets(), b.octets(), 60)
            .icmpv6_raw(icmp_type, code, rest)
            .write(&mut out, about),
        _ => unreachable!(),
    }
    .unwrap();
    out
}

fn about(text: &str) -> Vec<u8> {
    error("198.51.100.1", "10.0.0.5", (3, 4), text, 28)
}

fn established() -> Node {
    let mut node = Node::new(OUT);
    for (port, packet) in [("lan", SYN), ("wan", SYN_ACK), ("lan", ACK)] {
        assert!(node.send(port, packet).starts_with("to "));
    }
    node
}

#[test]
fn errors_about_packets_of_a_session_pass_and_keep_it_not_alive() {
    let mut node = established();
    let before = node.sessions();
    let moved = [
        ("received", 1),
        ("forwarded", 1),
        ("out packets", 1),
        ("out bytes", 56),
    ];
    node.changes(&moved, |node| {
        assert_eq!(
            node.frame(
                "wan",
                &about("tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501 len=100")
            ),
            "to lan: related"
        );
    });
    assert_eq!(
        node.sessions(),
        before,
        "neither packets nor bytes nor the state of the session"
    );
    // To the other end about its own packets, from any router; every type that means something to an end.
    for kind in [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)] {
        let frame = error(
            "10.0.0.1",
            "192.0.2.7",
            kind,
            "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=501 ack=101",
            28,
        );
        assert_eq!(node.frame("lan", &frame), "to wan: related", "{kind:?}");
    }
}

#[test]
fn other_protocols_and_ipv6() {
    for (opening, to, kind, v6) in [
        ("udp 10.0.0.5:5000 > 192.0.2.7:53", "10.0.0.5", (3, 3), false),
        (
            "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7",
            "10.0.0.5",
            (11, 0),
            false,
        ),
        ("icmp 10.0.0.5 > 192.0.2.7 13/0 len=12", "10.0.0.5", (3, 1), false),
        (
            "udp [2001:db8::5]:5000 > [2001:db8:1::7]:53",
            "2001:db8::5",
            (1, 4),
            true,
        ),
        (
            "icmpv6 2001:db8::5 > 2001:db8:1::7 echo-request id=9",
            "2001:db8::5",
            (3, 0),
            true,
        ),
        (
            "tcp [2001:db8::5]:5000 > [2001:db8:1::7]:80 syn",
            "2001:db8::5",
            (2, 0),
            true,
        ),
    ] {
        let (router, length) = if v6 {
            ("2001:db8:ffff::1", 48)
        } else {
            ("198.51.100.1", 28)
        };
        let mut node = Node::new(OUT);
        assert_eq!(
            node.frame("wan", &error(router, to, kind, opening, length)),
            UNRELATED,
            "{opening}"
        );
        assert_eq!(node.send("lan", opening), "to wan: new session by out");
        assert_eq!(
            node.frame("wan", &error(router, to, kind, opening, length)),
            "to lan: related",
            "{opening}"
        );
        // With VLAN tags it is another conversation.
        let tagged = error(router, to, kind, opening, length);
        let tagged = [&tagged[..12], &[0x81, 0, 0, 5], &tagged[12..]].concat();
        assert_eq!(node.frame("wan", &tagged), UNRELATED, "{opening}");
    }
}

#[test]
fn what_belongs_to_no_session_is_dropped() {
    let mut node = established();
    let before = node.sessions();
    for (what, frame) in [
        (
            "another port",
            about("tcp 10.0.0.5:1235 > 192.0.2.7:80 seq=101 ack=501"),
        ),
        (
            "the other direction, to the wrong end",
            about("tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=501 ack=101"),
        ),
        (
            "a number that was never sent",
            about("tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=200 ack=501"),
        ),
        (
            "a number from long ago",
            about("tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=4294900000 ack=501"),
        ),
        ("another protocol", about("udp 10.0.0.5:1234 > 192.0.2.7:80")),
        (
            "to somebody else",
            error(
                "198.51.100.1",
                "10.0.0.6",
                (3, 4),
                "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101",
                28,
            ),
        ),
        (
            "a redirect",
            error(
                "198.51.100.1",
                "10.0.0.5",
                (5, 1),
                "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101",
                28,
            ),
        ),
        (
            "a source quench",
            error(
                "198.51.100.1",
                "10.0.0.5",
                (4, 0),
                "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101",
                28,
            ),
        ),
        ("an error about an error", about("icmp 10.0.0.5 > 192.0.2.7 3/3")),
    ] {
        node.changes(&[("received", 1), ("icmp_error_unrelated", 1)], |node| {
            assert_eq!(node.frame("wan", &frame), UNRELATED, "{what}");
        });
    }
    // A later fragment says nothing of ports.
    let mut later = about("tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501");
    later[14 + 28 + 7] = 1;
    let mut node_without_checksums = Node::new(&format!("{OUT}[conntrack]\nverify_checksums = false\n"));
    for (port, packet) in [("lan", SYN), ("wan", SYN_ACK)] {
        assert!(node_without_checksums.send(port, packet).starts_with("to "));
    }
    assert_eq!(node_without_checksums.frame("wan", &later), UNRELATED);
    assert_eq!(node.sessions(), before);
}

#[test]
fn an_error_comes_in_where_its_session_s_packets_do_and_under_todays_rules() {
    let mut node = Node::new(ALLOW_ALL);
    for (port, packet) in [("lan", SYN), ("wan", SYN_ACK), ("lan", ACK)] {
        assert!(node.send(port, packet).starts_with("to "));
    }
    let error = about("tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501");
    assert_eq!(node.frame("lan", &error), "wrong_port: session");
    assert_eq!(node.frame("net", &error), UNRELATED, "another pair");
    assert_eq!(node.frame("wan", &error), "to lan: related");
    node.apply("");
    assert_eq!(node.frame("wan", &error), "policy: no rule");
    assert_eq!(node.sessions(), [""; 0]);
    assert_eq!(node.frame("wan", &error), UNRELATED);
}

#[test]
fn an_error_about_an_echo_must_be_about_one_that_was_sent() {
    let mut node = Node::new(OUT);
    node.send("lan", "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7 seq=100");
    for (seq, fate) in [(100, "to lan: related"), (101, UNRELATED)] {
        let about = about(&format!("icmp 10.0.0.5 > 192.0.2.7 echo-request id=7 seq={seq}"));
        assert_eq!(node.frame("wan", &about), fate, "{seq}");
    }
}
