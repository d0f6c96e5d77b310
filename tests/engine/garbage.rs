//! Anything at all into the engine: it lives, every packet has a verdict, and the next good packet passes.

use haechi::packet::{ChecksumStatus, RxChecksum, VecPacket};
use proptest::prelude::*;

use crate::frames::*;
use crate::node::{ALLOW_ALL, Node, PORTS, frame};

/// Rules that lead everywhere: allow, drop, reject and nothing.
const MIXED: &str = r#"
[[rule]]
name = "drop-tcp"
service = ["tcp/1-100"]
action = "drop"
[[rule]]
name = "reject-udp"
service = ["udp/1-100", "proto/47"]
action = "reject"
[[rule]]
name = "allow"
service = ["tcp/101-65535", "udp/101-65535", "icmp", "icmpv6"]
action = "allow"
"#;

/// SYNs are answered, and nobody brings a cookie back.
const COOKIES: &str = "[[rule]]\nname = \"all\"\naction = \"allow\"\nsyn_protection = \"always\"\n";

/// A flow's packets and frames of all kinds, to be spoiled.
fn seeds() -> Vec<Vec<u8>> {
    let quoted4 = Ip4::new(17).packet(&udp((1, 2), b"12345678"));
    let mut seeds: Vec<_> = [
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn",
        "tcp 10.0.0.5:1234 > 192.0.2.7:443 syn",
        "tcp 192.0.2.7:443 > 10.0.0.5:1234 syn,ack",
        "tcp 10.0.0.5:1234 > 192.0.2.7:443 ack len=20",
        "tcp 10.0.0.5:1234 > 192.0.2.7:443 rst",
        "tcp 10.0.0.5:1234 > 192.0.2.7:443 fin,ack vlan=5",
        "udp 10.0.0.5:1234 > 192.0.2.7:53",
        "udp [2001:db8::5]:1234 > [2001:db8::7]:5353 len=20",
        "icmp 10.0.0.5 > 192.0.2.7 echo-request",
        "icmpv6 2001:db8::5 > 2001:db8::7 echo-reply",
        "proto/47 10.0.0.5 > 192.0.2.7 len=20",
    ]
    .iter()
    .map(|text| frame(text))
    .collect();
    seeds.extend([
        arp(1, SOURCE_MAC),
        neighbour_solicitation(),
        mld_report(),
        icmp4(3, 3, [0; 4], &quoted4),
        ethernet(0x88cc, &[2, 7, 4]),
    ]);
    seeds
}

fn packet() -> impl Strategy<Value = (usize, VecPacket)> {
    let spoiled = (
        prop::sample::select(seeds()),
        prop::collection::vec((0_usize..90, any::<u8>()), 0..3),
        0_usize..200,
    )
        .prop_map(|(mut frame, changes, len)| {
            for (at, byte) in changes {
                if let Some(b) = frame.get_mut(at) {
                    *b = byte;
                }
            }
            // Two of three keep their length.
            if len < 66 {
                frame.truncate(len);
            }
            frame
        });
    let bytes = prop::collection::vec(any::<u8>(), 0..100);
    let status = || {
        prop::sample::select(vec![
            ChecksumStatus::Unknown,
            ChecksumStatus::Good,
            ChecksumStatus::Bad,
        ])
    };
    let frame = prop_oneof![4 => spoiled, 1 => bytes];
    (0..PORTS.len(), frame, status(), status()).prop_map(|(port, frame, ip, l4)| {
        (
            port,
            VecPacket {
                frame,
                checksum: RxChecksum::new(ip, l4),
                hash: None,
            },
        )
    })
}

fn rules() -> impl Strategy<Value = String> {
    let transparent = (
        prop::sample::select(vec!["inspect", "drop", "pass"]),
        prop::sample::select(vec!["drop", "pass"]),
        prop::sample::select(vec!["pair-vlan", "pair", "node"]),
        any::<bool>(),
        prop::sample::select(vec![MIXED, ALLOW_ALL, COOKIES, ""]),
    );
    transparent.prop_map(|(vlan, non_ip, scope, verify, rules)| {
        format!(
            "[conntrack]\nverify_checksums = {verify}\n[transparent]\nvlan = \"{vlan}\"\nnon_ip = \"{non_ip}\"\nsession_scope = \"{scope}\"\n{rules}"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// `Node::burst` checks the balance of every burst; here also that the engine is as good as new afterwards.
    #[test]
    fn garbage_leaves_the_engine_whole(
        rules in rules(), bursts in prop::collection::vec((prop::collection::vec(packet(), 0..64), 0_u64..40), 1..8), other in rules(),
    ) {
        let mut node = Node::with_table(&rules, 64);
        for (place, (burst, seconds)) in bursts.iter().enumerate() {
            let packets: Vec<_> = burst.iter().map(|(port, packet)| (PORTS[*port].0, packet.clone())).collect();
            node.burst(&packets);
            node.wait_secs(*seconds);
            if place == bursts.len() / 2 {
                node.apply(&other);
            }
        }
        // Everything idles out, and counts are back at nothing.
        node.wait_secs(3 * 3600);
        prop_assert_eq!(node.engine.table().len(), 0);
        prop_assert!(node.rules().iter().all(|rule| rule.sessions == 0));
        node.apply(ALLOW_ALL);
        prop_assert_eq!(node.send("lan", "udp 10.9.9.9:1000 > 192.0.2.7:1000"), "to wan: new session by all");
    }

    /// A burst is what its packets are one by one, whatever they are.
    #[test]
    fn bursts_are_their_packets_in_order(rules in rules(), packets in prop::collection::vec(packet(), 1..64), other in rules()) {
        let packets: Vec<_> = packets.iter().map(|(port, packet)| (PORTS[*port].0, packet.clone())).collect();
        let (mut whole, mut single) = (Node::with_table(&rules, 1000), Node::with_table(&rules, 1000));
        for again in 0..2 {
            let verdicts = whole.burst(&packets);
            let singly: Vec<_> = packets.iter().map(|packet| single.burst(std::slice::from_ref(packet)).remove(0)).collect();
            prop_assert_eq!(verdicts, singly);
            prop_assert_eq!(whole.sessions(), single.sessions());
            prop_assert_eq!(whole.counters(), single.counters());
            if again == 0 {
                whole.apply(&other);
                single.apply(&other);
            }
        }
    }
}
