//! What no rule is asked about: ARP, neighbour discovery, other protocols, tags, broken frames.

use crate::frames::*;
use crate::node::{ALLOW_ALL, Node};

fn section(text: &str) -> String {
    format!("[transparent]\n{text}\n")
}

#[test]
fn arp_neighbour_discovery_and_mld_cross_without_a_rule() {
    for frame in [
        arp(1, SOURCE_MAC),
        arp(2, SOURCE_MAC),
        neighbour_solicitation(),
        mld_report(),
    ] {
        for frame in [
            frame.clone(),
            tagged(0x8100, 5, &frame),
            tagged(0x88a8, 7, &tagged(0x8100, 5, &frame)),
        ] {
            let mut node = Node::new("");
            assert_eq!(node.frame("wan", &frame), "to lan: layer 2");
            node.counted(&[("received", 1), ("forwarded", 1)]);
        }
    }
}

#[test]
fn broken_arp_and_discovery_are_dropped_whatever_the_rules() {
    let mut routed = neighbour_solicitation();
    routed[21] = 254;
    for (frame, how) in [
        (arp(1, DESTINATION_MAC), "malformed arp_sender"),
        (with(arp(1, SOURCE_MAC), 19, &[16]), "malformed arp_format"),
        (arp(1, SOURCE_MAC)[..41].to_vec(), "malformed arp_truncated"),
        (routed, "malformed neighbour_discovery"),
        (with(mld_report(), 21, &[64]), "malformed mld"),
    ] {
        let mut node = Node::new(ALLOW_ALL);
        assert_eq!(node.frame("wan", &frame), "malformed: layer 2");
        node.counted(&[("received", 1), ("malformed", 1), (how, 1)]);
    }
}

#[test]
fn other_multicast_and_broadcast_need_a_rule() {
    let echo_to_all = "icmpv6 fe80::1 > ff02::1 echo-request";
    let dhcp = "udp 0.0.0.0:68 > 255.255.255.255:67 len=240";
    let mdns = "udp 10.0.0.5:5353 > 224.0.0.251:5353 len=40";
    for packet in [echo_to_all, dhcp, mdns] {
        assert_eq!(Node::new("").send("lan", packet), "policy: no rule");
        assert_eq!(
            Node::new(ALLOW_ALL).send("lan", packet),
            "to wan: new session by all"
        );
    }
}

#[test]
fn frames_that_are_not_ip_follow_the_configuration() {
    for frame in [
        ethernet(0x88cc, &[2, 7, 4]),
        ethernet(38, &[0x42, 0x42, 3]),
        ethernet(0x8847, &[0; 50]),
    ] {
        let mut node = Node::new(ALLOW_ALL);
        assert_eq!(node.frame("lan", &frame), "non_ip: layer 2");
        node.counted(&[("received", 1), ("non_ip", 1)]);
        let mut node = Node::new(&section("non_ip = \"drop\""));
        assert_eq!(node.frame("lan", &frame), "non_ip: layer 2");
        let mut node = Node::new(&section("non_ip = \"pass\""));
        assert_eq!(node.frame("lan", &frame), "to wan: layer 2");
        assert_eq!(node.frame("wan", &tagged(0x8100, 5, &frame)), "to lan: layer 2");
        node.counted(&[("received", 2), ("forwarded", 2)]);
    }
    // Passing what is not IP is not passing what is broken.
    let mut node = Node::new(&section("non_ip = \"pass\""));
    assert_eq!(node.frame("lan", &ethernet(0x0800, &[])), "malformed: layer 2");
    assert_eq!(node.frame("lan", &[0; 13]), "malformed: layer 2");
    assert_eq!(node.frame("lan", &udp4((1, 2), b"x")), "policy: no rule");
}

#[test]
fn tags_follow_the_configuration() {
    let inner = udp4((1234, 53), b"query");
    let one = tagged(0x8100, 5, &inner);
    let two = tagged(0x88a8, 6, &one);
    let three = tagged(0x8100, 7, &two);
    let arp = tagged(0x8100, 5, &arp(1, SOURCE_MAC));
    let broken = tagged(0x8100, 5, &ethernet(0x0800, &[0x45, 0]));

    let mut inspect = Node::new(&format!("{}{ALLOW_ALL}", section("vlan = \"inspect\"")));
    assert_eq!(inspect.frame("lan", &one), "to wan: new session by all");
    assert_eq!(inspect.frame("lan", &two), "to wan: new session by all");
    assert_eq!(inspect.frame("lan", &three), "malformed: layer 2");
    assert_eq!(inspect.frame("lan", &broken), "malformed: layer 2");
    assert_eq!(inspect.frame("lan", &arp), "to wan: layer 2");
    assert_eq!(
        inspect.sessions(),
        [
            "udp 10.0.0.5:1234 > 192.0.2.7:53 vlan 5 udp_new by all lan>wan packets [1, 0] bytes [33, 0]",
            "udp 10.0.0.5:1234 > 192.0.2.7:53 vlan 6005 udp_new by all lan>wan packets [1, 0] bytes [33, 0]",
        ]
    );

    let mut drop = Node::new(&format!("{}{ALLOW_ALL}", section("vlan = \"drop\"")));
    for frame in [&one, &two, &three, &arp, &broken] {
        assert_eq!(drop.frame("lan", frame), "vlan_tagged: layer 2");
    }
    assert_eq!(drop.frame("lan", &inner), "to wan: new session by all");
    assert_eq!(
        (drop.counters()["vlan_tagged"], drop.engine.table().len()),
        (5, 1)
    );

    let mut pass = Node::new(&section("vlan = \"pass\""));
    for frame in [&one, &two, &three, &arp, &broken] {
        assert_eq!(pass.frame("lan", frame), "to wan: layer 2");
    }
    assert_eq!(pass.frame("lan", &inner), "policy: no rule");
    pass.counted(&[
        ("received", 6),
        ("forwarded", 5),
        ("policy", 1),
        ("no rule packets", 1),
        ("no rule bytes", 33),
    ]);
}

#[test]
fn bad_checksums_and_malformed_packets_are_dropped_with_their_reason() {
    let wrong = |frame: Vec<u8>, at: usize| {
        let byte = frame[at];
        with(frame, at, &[!byte])
    };
    for (frame, reason, more) in [
        (wrong(tcp4((1, 2), 2, &[], &[]), 25), "bad_checksum", None),
        (wrong(tcp4((1, 2), 2, &[], &[]), 45), "bad_checksum", None),
        (wrong(udp6((1, 2), b"data"), 63), "bad_checksum", None),
        (
            tcp4((1, 2), 2, &[], &[])[..40].to_vec(),
            "malformed",
            Some("malformed ipv4_total_length"),
        ),
        (
            tcp4((1, 2), 2, &[2, 9, 0, 0], &[]),
            "malformed",
            Some("malformed tcp_options"),
        ),
        (vec![], "malformed", Some("malformed ethernet_truncated")),
    ] {
        let mut node = Node::new(ALLOW_ALL);
        assert_eq!(node.frame("lan", &frame), format!("{reason}: layer 2"));
        let mut expected = vec![("received", 1), (reason, 1)];
        expected.extend(more.map(|how| (how, 1)));
        node.counted(&expected);
    }
}

#[test]
fn verification_can_be_turned_off_for_l4_and_never_for_the_header() {
    let frame = udp4((1234, 53), b"query");
    let wrong_l4 = with(frame.clone(), 45, b"Q");
    let wrong_header = with(frame, 24, &[0xab, 0xcd]);
    let mut node = Node::new(&format!("[conntrack]\nverify_checksums = false\n{ALLOW_ALL}"));
    assert_eq!(node.frame("lan", &wrong_l4), "to wan: new session by all");
    assert_eq!(node.frame("lan", &wrong_header), "bad_checksum: layer 2");
    let mut node = Node::new(ALLOW_ALL);
    assert_eq!(node.frame("lan", &wrong_l4), "bad_checksum: layer 2");
}

#[test]
fn a_devices_word_on_checksums_is_taken() {
    use haechi::packet::{ChecksumStatus, RxChecksum, VecPacket};
    let frame = udp4((1234, 53), b"query");
    let wrong = with(frame.clone(), 45, b"Q");
    let says = |frame: &[u8], l4| VecPacket {
        frame: frame.to_vec(),
        checksum: RxChecksum::new(ChecksumStatus::Good, l4),
        hash: None,
    };
    let mut node = Node::new(ALLOW_ALL);
    let verdicts = node.burst(&[
        ("lan", says(&wrong, ChecksumStatus::Good)),
        ("lan", says(&frame, ChecksumStatus::Bad)),
        ("lan", says(&wrong, ChecksumStatus::Unknown)),
        ("lan", says(&frame, ChecksumStatus::Unknown)),
    ]);
    let expected = [
        "to wan: new session by all",
        "bad_checksum: layer 2",
        "bad_checksum: layer 2",
        "to wan: session",
    ];
    assert_eq!(verdicts, expected);
}
