//! What the fragments of an honest datagram may do: as much as the datagram in one piece.

use haechi::packet::VecPacket;

use super::cut::*;
use crate::frames::*;
use crate::node::{ALLOW_ALL, Node};

#[test]
fn a_datagram_is_judged_once_and_its_fragments_leave_as_they_came() {
    for v6 in BOTH {
        let mut node = Node::new(&rule("udp/53"));
        let query = Cut::udp(v6, (1000, 53), 100);
        let pieces = query.pieces(40);
        assert_eq!(
            all(&mut node, "lan", &pieces),
            ["held", "held", "to wan: session"]
        );
        assert_eq!(
            released(&mut node),
            ["to wan: new session by one", "to wan: session"]
        );
        assert_eq!(leave(&mut node), pieces);
        // The session knows one packet, as long as the whole datagram (in IPv6 with its fragment header).
        let headers = if v6 { 48 } else { 20 };
        node.counted(&[
            ("received", 3),
            ("forwarded", 3),
            ("fragments", 3),
            ("fragments_reassembled", 1),
            ("sessions_created", 1),
            ("one sessions", 1),
            ("one packets", 1),
            ("one bytes", 108 + headers),
        ]);
        // The answer, in fragments, is the session's. (Its checksum is right: the sum of both addresses is the same.)
        let mut answer = Cut::udp(v6, (53, 1000), 1000);
        answer.back = true;
        let pieces = answer.pieces(400);
        assert_eq!(
            all(&mut node, "wan", &pieces),
            ["held", "held", "to lan: session"]
        );
        assert_eq!(leave(&mut node), pieces);
    }
}

#[test]
fn any_order_of_arrival_is_as_good() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for v6 in BOTH {
            let pieces = Cut::udp(v6, (1000, 53), 100).pieces(40);
            let shuffled: Vec<_> = order.iter().map(|place| pieces[*place].clone()).collect();
            let mut node = Node::new(&rule("udp/53"));
            // One by one, and in one burst.
            assert_eq!(
                all(&mut node, "lan", &shuffled),
                ["held", "held", "to wan: session"]
            );
            assert_eq!(leave(&mut node), shuffled, "in order of arrival");
            let burst: Vec<_> = shuffled
                .iter()
                .map(|frame| ("lan", VecPacket::new(frame.clone())))
                .collect();
            assert_eq!(node.burst(&burst), ["held", "held", "to wan: session"]);
            assert_eq!(leave(&mut node), shuffled);
        }
    }
}

#[test]
fn every_protocol_in_fragments_finds_its_rule() {
    for v6 in BOTH {
        let icmp = if v6 { "icmpv6/128" } else { "icmp/echo-request" };
        let gre = Cut {
            protocol: 47,
            body: vec![1; 99],
            ..Cut::udp(v6, (0, 0), 0)
        };
        for (service, other, cut, size) in [
            ("udp/53", "udp/54", Cut::udp(v6, (1000, 53), 65_000), 1480),
            (icmp, "udp", Cut::echo(v6, 65_507), 1480),
            ("proto/47", "proto/48", gre, 48),
        ] {
            let pieces = cut.pieces(size);
            let mut node = Node::new(&rule(service));
            let last = all(&mut node, "lan", &pieces).pop();
            assert_eq!(last.as_deref(), Some("to wan: session"), "{service} {v6}");
            assert_eq!(leave(&mut node), pieces);
            let mut node = Node::new(&rule(other));
            let last = all(&mut node, "lan", &pieces).pop();
            assert_eq!(last.as_deref(), Some("policy: no rule"), "{service} {v6}");
            assert!(
                released(&mut node)
                    .iter()
                    .all(|verdict| verdict == "policy: no rule")
            );
            assert_eq!(node.counters()["policy"], pieces.len() as u64);
            assert_eq!((leave(&mut node).len(), node.engine.table().len()), (0, 0));
        }
    }
}

/// A TCP connection all of whose data is fragmented: the tracker sees whole segments.
#[test]
fn tcp_windows_count_whole_segments() {
    for v6 in BOTH {
        let mut node = Node::new(&rule("tcp/80"));
        let (a, b) = if v6 {
            ("[2001:db8::5]", "[2001:db8:1::7]")
        } else {
            ("10.0.0.5", "192.0.2.7")
        };
        for (port, text) in [
            ("lan", format!("tcp {a}:1000 > {b}:80 syn seq=999")),
            (
                "wan",
                format!("tcp {b}:80 > {a}:1000 syn,ack seq=1999 ack=1000 win=4000"),
            ),
            ("lan", format!("tcp {a}:1000 > {b}:80 ack seq=1000 ack=2000")),
        ] {
            assert!(node.send(port, &text).starts_with("to "), "{text}");
        }
        // `tcp()` writes seq=1000 ack=2000.
        let segment = Cut::tcp(v6, (1000, 80), 0x18, &[7; 3000]);
        let verdicts = all(&mut node, "lan", &segment.pieces(1400));
        assert_eq!(verdicts, ["held", "held", "to wan: session"]);
        // Whoever acknowledges more than that has not seen it (III of van Rooij's bounds); less would be the first piece alone.
        let next = |ack: u32| format!("tcp {b}:80 > {a}:1000 ack seq=2000 ack={ack} win=4000");
        assert_eq!(node.send("wan", &next(4001)), "tcp_out_of_window: session");
        assert_eq!(node.send("wan", &next(4000)), "to lan: session");
    }
}

#[test]
fn a_rejected_datagram_is_answered_once() {
    const REJECT: &str = "[[rule]]\nname = \"no\"\naction = \"reject\"\n";
    for v6 in BOTH {
        let mut node = Node::new(REJECT);
        let pieces = Cut::udp(v6, (1000, 53), 100).pieces(40);
        let verdicts = all(&mut node, "lan", &pieces);
        assert_eq!(verdicts, ["held", "held", "policy: rule no"]);
        let [(port, answer)] = &node.originated[..] else {
            panic!("{:?}", node.originated)
        };
        assert_eq!(port, "lan");
        crate::checked::checked(answer);
        // It quotes the first fragment as it came.
        let quoted = &pieces[0][14..];
        let at = answer.windows(quoted.len()).position(|bytes| bytes == quoted);
        assert_eq!(at, Some(if v6 { 14 + 48 } else { 14 + 28 }));
        node.originated.clear();

        // A RST that acknowledges the whole segment.
        let syn = Cut::tcp(v6, (1000, 80), 2, &[1; 30]).pieces(24);
        assert_eq!(all(&mut node, "lan", &syn)[1..], ["held", "policy: rule no"]);
        let (_, reset) = node.originated.pop().unwrap();
        let reset = crate::checked::checked_tcp(&reset);
        assert_eq!((reset.rst, reset.acknowledgment_number), (true, 1000 + 1 + 30));
        node.changes(
            &[
                ("received", 2),
                ("fragments", 2),
                ("fragments_reassembled", 1),
                ("policy", 2),
                ("rejects_suppressed", 1),
                ("no packets", 1),
                ("no bytes", 108 + if v6 { 48 } else { 20 }),
            ],
            |node| {
                node.buffers = Some(0);
                let cut = Cut::udp(v6, (1000, 53), 100);
                all(node, "lan", &cut.pieces(96));
            },
        );
    }
}

#[test]
fn datagrams_are_told_apart_by_all_that_identifies_them() {
    let cut = Cut::udp(false, (1000, 53), 100);
    let (first, last) = (cut.part(0, 80), cut.part(80, 108));
    let other_id = Cut { id: 7, ..cut.clone() }.part(80, 108);
    let mut other_source = last.clone();
    other_source[29] ^= 1;
    let other_protocol = Cut {
        protocol: 18,
        ..cut.clone()
    }
    .part(80, 108);
    for other in [
        other_id,
        fixed(other_source),
        other_protocol,
        tagged(0x8100, 5, &last),
    ] {
        let mut node = Node::new(ALLOW_ALL);
        assert_eq!(node.frame("lan", &first), "held");
        assert_eq!(node.frame("lan", &other), "held");
        // By the other side of the pair, or another pair.
        assert_eq!(node.frame("wan", &last), "held");
        assert_eq!(node.frame("dmz", &last), "held");
        assert_eq!(node.frame("lan", &last), "to wan: session");
    }
    // IPv6: of the protocol only the first fragment's word counts (RFC 8200, section 4.5).
    let cut = Cut::udp(true, (1000, 53), 100);
    let odd = Cut {
        protocol: 99,
        ..cut.clone()
    };
    let mut node = Node::new(&rule("udp/53"));
    assert_eq!(node.frame("lan", &odd.part(80, 108)), "held");
    assert_eq!(node.frame("lan", &cut.part(0, 80)), "to wan: session");
    // With one session scope for the whole node a datagram's pieces may come by several ports of a zone.
    let scope = format!("[transparent]\nsession_scope = \"node\"\n{ALLOW_ALL}");
    let mut node = Node::new(&scope);
    let cut = Cut::udp(false, (1000, 53), 100);
    assert_eq!(node.frame("wan", &cut.part(0, 80)), "held");
    assert_eq!(node.frame("lan", &cut.part(80, 108)), "held");
    assert_eq!(node.frame("net", &cut.part(80, 108)), "to dmz: session");
    assert_eq!(released(&mut node), ["to lan: new session by all"]);
}

#[test]
fn tagged_fragments_follow_vlan() {
    let cut = Cut::udp(false, (1000, 53), 100);
    let pieces: Vec<_> = cut
        .pieces(40)
        .iter()
        .map(|frame| tagged(0x88a8, 6, &tagged(0x8100, 5, frame)))
        .collect();
    let mut node = Node::new(ALLOW_ALL);
    let verdicts = all(&mut node, "lan", &pieces);
    assert_eq!(verdicts, ["held", "held", "to wan: session"]);
    assert_eq!(leave(&mut node), pieces);
    // Tags that are not looked into any more when the rest comes.
    let mut node = Node::new(ALLOW_ALL);
    assert_eq!(node.frame("lan", &pieces[0]), "held");
    node.apply(&format!("[transparent]\nvlan = \"drop\"\n{ALLOW_ALL}"));
    assert_eq!(node.frame("lan", &pieces[1]), "vlan_tagged: layer 2");
    node.changes(&[("held", -1), ("fragment_timeout", 1)], |node| {
        node.wait_secs(15)
    });
}

#[test]
fn atomic_fragments_are_whole_packets() {
    // RFC 6946: also while fragments with the same identification wait.
    let atomic = Ip6::new(17).extension(44, &[0, 0, 0, 0, 0, 0, 0x12, 0x34]);
    let frame = over6(&atomic, udp((1000, 53), b"whole"), 6);
    let mut node = Node::new(ALLOW_ALL);
    let cut = Cut::udp(true, (1000, 53), 100);
    assert_eq!(node.frame("lan", &cut.part(0, 80)), "held");
    assert_eq!(node.frame("lan", &frame), "to wan: new session by all");
    assert_eq!(node.frame("lan", &cut.part(80, 108)), "to wan: session");
    assert_eq!(node.counters()["fragments"], 2);
}

#[test]
fn extension_headers_behind_the_fragment_header_are_looked_through() {
    let ip = Ip6::new(17);
    let l4 = udp((1000, 53), &[3; 60]);
    let l4 = summed(&ip.pseudo(l4.len()), l4, 6);
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let cut = Cut {
        v6: true,
        protocol: 60,
        body: [&options[..], &l4].concat(),
        ..Cut::udp(true, (1000, 53), 0)
    };
    let mut node = Node::new(&rule("udp/53"));
    assert_eq!(
        all(&mut node, "lan", &cut.pieces(40)),
        ["held", "to wan: session"]
    );
    // An error about it looks through them, too.
    let mut ip = Ip6::new(58);
    (ip.source, ip.destination) = (B6, A6);
    let error = icmp(1, 4, [0; 4], &cut.part(0, 40)[14..]);
    assert_eq!(node.frame("wan", &over6(&ip, error, 2)), "to lan: related");
    // One of them is not whole in the first fragment (RFC 7112).
    let long = [17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cut = Cut {
        body: [&long[..], &l4].concat(),
        ..cut
    };
    let mut node = Node::new(&rule("udp/53"));
    assert_eq!(node.frame("lan", &cut.part(0, 8)), "malformed: layer 2");
    assert_eq!(node.counters()["malformed tiny_fragment"], 1);
}

#[test]
fn an_error_about_a_first_fragment_belongs_to_the_datagrams_session() {
    for v6 in BOTH {
        let mut node = Node::new(&rule("udp/53"));
        let cut = Cut::udp(v6, (1000, 53), 3000);
        let pieces = cut.pieces(1400);
        assert_eq!(all(&mut node, "lan", &pieces)[2], "to wan: session");
        let quoted = &pieces[0][14..14 + 200];
        let (error, later) = if v6 {
            let error = |quoted: &[u8]| {
                let mut ip = Ip6::new(58);
                (ip.source, ip.destination) = (B6, A6);
                over6(&ip, icmp(2, 0, [0, 0, 5, 0], quoted), 2)
            };
            (error(quoted), error(&pieces[1][14..214]))
        } else {
            let error = |quoted: &[u8]| {
                let mut ip = Ip4::new(1);
                (ip.source, ip.destination) = (B4, A4);
                ip.frame(&summed(&[], icmp(3, 4, [0, 0, 5, 0], quoted), 2))
            };
            (error(quoted), error(&pieces[1][14..214]))
        };
        assert_eq!(node.frame("wan", &error), "to lan: related");
        // A later fragment has no ports.
        assert_eq!(node.frame("wan", &later), "icmp_error_unrelated: layer 2");
    }
}

#[test]
fn an_error_in_fragments_is_related_by_its_first_one() {
    let mut node = Node::new(&rule("udp/53"));
    assert!(
        node.frame("lan", &udp4((1000, 53), &[5; 600]))
            .starts_with("to wan")
    );
    let quoted = Ip4::new(17).packet(&udp((1000, 53), &[5; 600]));
    let error = Cut {
        protocol: 1,
        body: summed(&[], icmp(3, 1, [0; 4], &quoted), 2),
        back: true,
        ..Cut::udp(false, (0, 0), 0)
    };
    let pieces = error.pieces(304);
    assert_eq!(
        all(&mut node, "wan", &pieces),
        ["held", "held", "to lan: related"]
    );
    assert_eq!(leave(&mut node)[1..], pieces);
}
