//! Frames as they are: what crosses does so unchanged and in order, what does not is counted under its reason.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use lab::api::Counters;
use lab::frames::{DOT1AD, DOT1Q, Ends, Random, tagged, tcp};
use lab::{Capture, Config, Host, Lab, Node};

/// Frames that cross one after the other.
fn assert_cross(from: &Host, to: &mut Capture, frames: &[Vec<u8>]) {
    for (i, frame) in frames.iter().enumerate() {
        from.send(frame);
        let got = to.collect(1);
        assert!(
            got == [frame.clone()],
            "frame {i} changed:\n sent {frame:02x?}\n got  {:02x?}",
            got[0]
        );
    }
}

/// Frames that are dropped for a reason; none of them may show up on the other side.
fn assert_dropped(node: &Node, from: &Host, to: &mut Capture, reason: &str, frames: &[Vec<u8>]) {
    for (i, frame) in frames.iter().enumerate() {
        let before = node.counters();
        from.send(frame);
        let after = node.settled_after(&before, 1);
        let mut expected = before.clone();
        expected.rx_packets += 1;
        *expected.drops.entry(reason.into()).or_default() += 1;
        // What was wrong with it is the parser's tests' business; that there is a kind to it is this one's.
        expected.malformed.clone_from(&after.malformed);
        assert_eq!(after.malformed.values().sum::<u64>(), after.drop_of("malformed"));
        assert_eq!(after, expected, "frame {i}: {frame:02x?}");
    }
    assert_eq!(to.drain(), Vec::<Vec<u8>>::new(), "dropped frames came out");
}

#[test]
fn frames_of_every_kind_leave_as_they_came() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let node = lab.start(Config::allow_all());
    let (mut at_a, mut at_b) = (a.capture(), b.capture());
    let big = vec![0x5a; 1400];
    for ends in [Ends::v4(&a, &b), Ends::v6(&a, &b)] {
        let padded = |frame: Vec<u8>| [frame, vec![0; 20]].concat();
        assert_cross(
            &a,
            &mut at_b,
            &[
                ends.udp(1000, 53, b"query"),
                padded(ends.udp(1000, 53, b"x")),
                ends.ttl(1).udp(1001, 53, b"the last hop"),
                ends.ttl(255).udp(1001, 53, b""),
                ends.udp(1002, 53, &big),
                ends.tcp((1003, 80), tcp::SYN, 1, 0, b""),
                ends.echo_request(7, 1, b"0123456789"),
            ],
        );
        // Replies to all of them, and TCP as it goes on.
        let back = ends.reply().ttl(63);
        assert_cross(
            &b,
            &mut at_a,
            &[
                back.udp(53, 1000, b"answer"),
                back.udp(53, 1002, &big),
                back.tcp((80, 1003), tcp::SYN | tcp::ACK, 900, 2, b""),
            ],
        );
        assert_cross(
            &a,
            &mut at_b,
            &[
                ends.tcp((1003, 80), tcp::ACK, 2, 901, b""),
                ends.tcp((1003, 80), tcp::ACK | tcp::PSH, 2, 901, b"GET / HTTP/1.0\r\n\r\n"),
            ],
        );
    }
    // A protocol without ports, IPv4 options (router alert), an unusual but correct MAC.
    let mut ends = Ends::v4(&a, &b);
    ends.mac[0] = [0x02, 0xff, 0xff, 0xff, 0xff, 0xfe];
    let mut gre = Vec::new();
    etherparse::PacketBuilder::ethernet2(ends.mac[0], ends.mac[1])
        .ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                options: [0x94, 0x04, 0, 0].into(),
                ..etherparse::Ipv4Header::new(0, 9, etherparse::IpNumber::GRE, [10, 9, 1, 1], [10, 9, 1, 2])
                    .unwrap()
            },
            etherparse::Ipv4Extensions::default(),
        ))
        .write(&mut gre, etherparse::IpNumber::GRE, &[0, 0, 8, 0, 0x45, 1, 2, 3])
        .unwrap();
    assert_cross(&a, &mut at_b, &[gre]);
    assert_eq!(node.balance().dropped(), 0);
}

#[test]
fn non_ip_frames_follow_the_configuration() {
    for (setting, pass) in [("drop", false), ("pass", true)] {
        let mut lab = Lab::new();
        let (a, b) = lab.raw_pair("lan", "wan");
        let node = lab.start(Config::new("").transparent(&format!("non_ip = \"{setting}\"")));
        let mut at_b = b.capture();
        let mut ends = Ends::v4(&a, &b);
        // Spanning tree is 802.3 with LLC, to its own group; LLDP and an EtherType for local experiments.
        let mut frames = vec![ends.ethernet(0x88b5, &[1; 50])];
        ends.mac[1] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
        frames.push(ends.ethernet(0x88cc, &[2, 7, 4, 1, 2, 3, 4, 5, 6, 0, 0]));
        ends.mac[1] = [0x01, 0x80, 0xc2, 0, 0, 0];
        frames.push(ends.ethernet(38, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]));
        if pass {
            assert_cross(&a, &mut at_b, &frames);
        } else {
            assert_dropped(&node, &a, &mut at_b, "non_ip", &frames);
        }
    }
}

#[test]
fn arp_crosses_only_in_shape() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let node = lab.start(Config::new(""));
    let mut at_b = b.capture();
    let ends = Ends::v4(&a, &b);
    let request = |sender: [u8; 6]| {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
        arp.extend(sender);
        arp.extend([10, 9, 1, 1, 0, 0, 0, 0, 0, 0, 10, 9, 1, 2]);
        arp
    };
    let good = ends.ethernet(0x0806, &request(a.mac));
    assert_cross(
        &a,
        &mut at_b,
        &[good.clone(), [good.clone(), vec![0; 18]].concat()],
    );
    let mut wrong_length = request(a.mac);
    wrong_length[5] = 16;
    assert_dropped(
        &node,
        &a,
        &mut at_b,
        "malformed",
        &[
            ends.ethernet(0x0806, &wrong_length),
            ends.ethernet(0x0806, &request(a.mac)[..20]),
            // Who asks is not who sends.
            ends.ethernet(0x0806, &request([0x02, 9, 9, 9, 9, 9])),
        ],
    );
}

#[test]
fn tags_are_looked_through_kept_or_refused() {
    let tags = [
        vec![(DOT1Q, 7)],
        vec![(DOT1AD, 5), (DOT1Q, 7)],
        vec![(DOT1Q, 5), (DOT1Q, 0xe007)],
        vec![(DOT1AD, 0x3005)],
        // Priority only: no VLAN of its own.
        vec![(DOT1Q, 0xa000)],
    ];
    for (setting, udp, arp) in [
        ("inspect", true, true),
        ("pass", true, true),
        ("drop", false, false),
    ] {
        let mut lab = Lab::new();
        let (a, b) = lab.raw_pair("lan", "wan");
        let rules = "[[rule]]\nname = \"dns\"\nservice = [\"udp/53\"]\naction = \"allow\"\n";
        let node = lab.start(Config::new(rules).transparent(&format!("vlan = \"{setting}\"")));
        let mut at_b = b.capture();
        let ends = Ends::v4(&a, &b);
        let request = [
            &[0, 1, 8, 0, 6, 4, 0, 1][..],
            &a.mac,
            &[10, 9, 1, 1, 0, 0, 0, 0, 0, 0, 10, 9, 1, 2],
        ]
        .concat();
        let each = |frame: &[u8]| tags.iter().map(|t| tagged(frame, t)).collect::<Vec<_>>();
        for (frame, cross) in [
            (ends.udp(1000, 53, b"q"), udp),
            (ends.ethernet(0x0806, &request), arp),
        ] {
            if cross {
                assert_cross(&a, &mut at_b, &each(&frame));
            } else {
                assert_dropped(&node, &a, &mut at_b, "vlan_tagged", &each(&frame));
            }
        }
        // What the rules refuse inside is refused inside a tag too, unless nobody looks.
        let refused = ends.udp(1000, 54, b"q");
        match setting {
            "inspect" => assert_dropped(&node, &a, &mut at_b, "policy", &each(&refused)),
            "pass" => assert_cross(&a, &mut at_b, &each(&refused)),
            _ => assert_dropped(&node, &a, &mut at_b, "vlan_tagged", &each(&refused)),
        }
        // More than two tags are malformed where they are looked at.
        let three = tagged(&ends.udp(1000, 53, b"q"), &[(DOT1AD, 5), (DOT1Q, 6), (DOT1Q, 7)]);
        if setting == "inspect" {
            assert_dropped(&node, &a, &mut at_b, "malformed", &[three]);
        }
        // Untagged frames are none of its business.
        assert_cross(&a, &mut at_b, &[ends.udp(2000, 53, b"q")]);
    }
}

#[test]
fn one_five_tuple_in_two_pairs_and_two_vlans_is_four_sessions_under_their_own_rules() {
    let mut lab = Lab::new();
    let (lan, wan) = lab.raw_pair("lan", "wan");
    let (lan2, wan2) = lab.raw_pair("lan2", "wan2");
    let node = lab.start(Config::new(
        r#"
        [[rule]]
        name = "first"
        from = "lan"
        to = "wan"
        action = "allow"
        [[rule]]
        name = "second"
        from = "lan2"
        to = "wan2"
        action = "allow"
        "#,
    ));
    let (mut at_wan, mut at_wan2) = (wan.capture(), wan2.capture());
    let (mut at_lan, mut at_lan2) = (lan.capture(), lan2.capture());
    // The same packet everywhere: only the pair and the tag tell them apart.
    let ends = Ends::v4(&lan, &wan);
    let question = ends.udp(4000, 53, b"who am I?");
    let answer = ends.reply().udp(53, 4000, b"you");
    let tags = [
        vec![],
        vec![(DOT1Q, 7)],
        vec![(DOT1Q, 8)],
        vec![(DOT1AD, 7), (DOT1Q, 8)],
    ];
    for tag in &tags {
        assert_cross(&lan, &mut at_wan, &[tagged(&question, tag)]);
        assert_cross(&lan2, &mut at_wan2, &[tagged(&question, tag)]);
    }
    let sessions = node.api.sessions("source_port=4000");
    assert_eq!(sessions.len(), 8, "{sessions:?}");
    for rule in ["first", "second"] {
        let mut vlans: Vec<_> = sessions
            .iter()
            .filter(|s| s["rule"] == rule)
            .map(|s| s["vlan"].to_string())
            .collect();
        vlans.sort();
        assert_eq!(vlans, ["[7,8]", "[7]", "[8]", "[]"], "{sessions:?}");
    }
    for tag in &tags {
        assert_cross(&wan, &mut at_lan, &[tagged(&answer, tag)]);
        assert_cross(&wan2, &mut at_lan2, &[tagged(&answer, tag)]);
    }
    for session in node.api.sessions("source_port=4000") {
        assert_eq!(session["packets"], serde_json::json!([1, 1]), "{session}");
    }
    // An answer in a VLAN or pair that has not asked is nobody's.
    assert_dropped(
        &node,
        &wan,
        &mut at_lan,
        "policy",
        &[tagged(&answer, &[(DOT1Q, 9)])],
    );
    assert_eq!(at_lan2.drain(), Vec::<Vec<u8>>::new());
    // The rules differ too: what one pair's zone may, the other's may not.
    node.api.post(
        "/v1/apply",
        &apply_request(&lab, &node, |text| {
            text.replace("name = \"second\"", "name = \"second\"\nservice = [\"tcp\"]")
        }),
    );
    let before = node.counters();
    for from in [&lan, &lan2] {
        from.send(&tagged(&ends.udp(4001, 53, b"again"), &tags[1]));
    }
    let after = node.settled_after(&before, 2);
    assert_eq!(after.drop_of("policy") - before.drop_of("policy"), 1);
    at_wan.collect(1);
    assert_eq!(at_wan2.drain(), Vec::<Vec<u8>>::new());
}

fn apply_request(lab: &Lab, node: &Node, change: impl Fn(String) -> String) -> serde_json::Value {
    let text = change(std::fs::read_to_string(node.file()).unwrap());
    let path = lab.file("changed.toml", &text);
    serde_json::json!({ "files": [{ "path": path, "text": text }] })
}

#[test]
fn session_scope_decides_what_tells_sessions_apart() {
    for (scope, sessions) in [("pair-vlan", 4), ("pair", 2), ("node", 1)] {
        let mut lab = Lab::new();
        let (lan, wan) = lab.raw_pair("lan", "wan");
        let (lan2, wan2) = lab.raw_pair("lan2", "wan2");
        let node = lab.start(Config::allow_all().transparent(&format!("session_scope = \"{scope}\"")));
        let (mut at_wan, mut at_wan2) = (wan.capture(), wan2.capture());
        let question = Ends::v4(&lan, &wan).udp(4000, 53, b"?");
        for tag in [vec![], vec![(DOT1Q, 7)]] {
            assert_cross(&lan, &mut at_wan, &[tagged(&question, &tag)]);
            let before = node.counters();
            lan2.send(&tagged(&question, &tag));
            let after = node.settled_after(&before, 1);
            if scope == "node" {
                // The session's side of the first pair: this port is the wrong one.
                assert_eq!(
                    after.drop_of("wrong_port") - before.drop_of("wrong_port"),
                    1,
                    "{after:?}"
                );
            } else {
                at_wan2.collect(1);
            }
        }
        assert_eq!(node.api.sessions("").len(), sessions, "{scope}");
    }
}

#[test]
fn packets_of_a_flow_stay_in_order() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let node = lab.start(Config::allow_all());
    let (mut at_a, mut at_b) = (a.capture(), b.capture());
    let (there, back) = (Ends::v4(&a, &b), Ends::v6(&b, &a));
    let flow = |ends: &Ends, n: u32| ends.udp(1000, 2000, &n.to_be_bytes());
    let mut number = 0;
    // In waves that fit a receive ring: nothing may be lost, so that everything can be compared.
    for _ in 0..20 {
        let wave: Vec<u32> = (number..number + 256).collect();
        number += 256;
        for n in &wave {
            a.send(&flow(&there, *n));
            b.send(&flow(&back, *n));
        }
        for (capture, ends) in [(&mut at_b, &there), (&mut at_a, &back)] {
            for (frame, n) in capture.collect(wave.len()).iter().zip(&wave) {
                assert!(*frame == flow(ends, *n), "not number {n}: {frame:02x?}");
            }
        }
    }
    assert_eq!(node.balance().dropped(), 0);
}

/// Good frames to start from, for the mutations.
fn originals(a: &Host, b: &Host) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for ends in [Ends::v4(a, b), Ends::v6(a, b)] {
        frames.push(ends.udp(1000, 53, b"a query of some length"));
        frames.push(ends.tcp((1001, 80), tcp::SYN, 1, 0, b""));
        frames.push(ends.tcp((1001, 80), tcp::ACK | tcp::PSH, 2, 2, b"some data"));
        frames.push(ends.echo_request(1, 1, &[7; 56]));
    }
    let more: Vec<_> = frames.iter().map(|f| tagged(f, &[(DOT1Q, 7)])).collect();
    frames.extend(more);
    let double = tagged(&frames[0], &[(DOT1AD, 5), (DOT1Q, 7)]);
    frames.push(double);
    let request = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &a.mac,
        &[10, 9, 1, 1, 0, 0, 0, 0, 0, 0, 10, 9, 1, 2],
    ]
    .concat();
    frames.push(Ends::v4(a, b).ethernet(0x0806, &request));
    frames
}

#[test]
fn a_hundred_thousand_mutated_frames_leave_it_alive_and_counted() {
    const FRAMES: u64 = 100_000;
    let mut random = Random::seeded("mutated frames");
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    // What looks like a fragment is held until its time is over.
    let config = Config::allow_all().conntrack("[conntrack.fragments]\ntimeout = \"1s\"\n");
    let node = lab.start(config);
    let originals = originals(&a, &b);
    let start = node.counters();
    let mut sent = 0;
    while sent < FRAMES {
        // In waves that fit a receive ring.
        for _ in 0..500 {
            let original = random.below(originals.len());
            let frame = random.mutate(&originals[original], 1514);
            a.send(&frame);
            sent += 1;
        }
        lab::wait_for("a wave is taken in", || {
            let taken = node.counters().rx_packets - start.rx_packets;
            if taken >= sent {
                Ok(())
            } else {
                Err(format!("{taken} of {sent}"))
            }
        });
    }
    let counters = node.balance();
    assert_eq!(counters.rx_packets - start.rx_packets, FRAMES);
    for reason in ["malformed", "bad_checksum", "non_ip", "no_session"] {
        assert!(counters.drop_of(reason) > 0, "{reason}: {counters:?}");
    }
    println!("{:?}", counters.drops);
    let mut at_b = b.capture();
    assert_cross(
        &a,
        &mut at_b,
        &[Ends::v4(&a, &b).udp(60_000, 60_001, b"still there?")],
    );
}

#[test]
fn truncated_and_oversized_frames_are_dropped_and_counted() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    // The wire takes longer frames than the ports are configured for.
    for host in [&a, &b] {
        host.set_mtu(&lab.firewall, 3000);
    }
    let node = lab.start(Config::allow_all());
    let mut at_b = b.capture();
    for ends in [Ends::v4(&a, &b), Ends::v6(&a, &b)] {
        let good = ends.tcp((1001, 80), tcp::SYN, 1, 0, b"");
        let cut: Vec<_> = (15..good.len()).map(|length| good[..length].to_vec()).collect();
        assert_dropped(&node, &a, &mut at_b, "malformed", &cut);
        // The longest that an MTU of 1500 allows, with and without two tags; and longer than all that.
        let header = if ends.ip[0].is_ipv4() { 28 } else { 48 };
        let longest = ends.udp(1002, 53, &vec![1; 1500 - header]);
        assert_cross(
            &a,
            &mut at_b,
            &[longest.clone(), tagged(&longest, &[(DOT1AD, 5), (DOT1Q, 7)])],
        );
        for length in [1501, 2900] {
            let before: Counters = node.counters();
            a.send(&ends.udp(1003, 53, &vec![1; length - header]));
            let after = node.settled_after(&before, 1);
            assert_eq!(
                after.drop_of("frame_too_long") - before.drop_of("frame_too_long"),
                1,
                "{after:?}"
            );
        }
        assert_cross(&a, &mut at_b, &[ends.udp(1004, 53, b"the next good packet")]);
    }
}
