//! Each hostile case with the reason that it is dropped for and the counter that moves.

use super::cut::*;
use crate::frames::*;
use crate::node::{ALLOW_ALL, Node};

#[test]
fn an_overlap_refuses_the_datagram_and_everything_that_comes_of_it() {
    for v6 in BOTH {
        let cut = Cut::udp(v6, (1000, 53), 100);
        // By 8 bytes with the one before; with the one behind; inside; around; the same place with other bytes, or another flag.
        for (name, there, hostile) in [
            ("end", (0, 48), cut.part(40, 80)),
            ("start", (40, 80), cut.piece(0, true, &cut.body[..48])),
            ("inside", (0, 48), cut.part(16, 24)),
            ("around", (16, 24), cut.part(8, 48)),
            ("other bytes", (40, 80), cut.piece(40, true, &[0xee; 40])),
            ("last or not", (40, 80), cut.piece(40, false, &cut.body[40..80])),
        ] {
            let mut node = Node::new(ALLOW_ALL);
            assert_eq!(node.frame("lan", &cut.part(there.0, there.1)), "held", "{name}");
            assert_eq!(node.frame("lan", &hostile), "fragment_overlap: layer 2", "{name}");
            assert_eq!(released(&mut node), ["fragment_overlap: layer 2"], "{name}");
            // Good pieces do not heal it.
            for piece in cut.pieces(40) {
                assert_eq!(node.frame("lan", &piece), "fragment_overlap: layer 2", "{name}");
            }
            node.counted(&[("received", 5), ("fragments", 5), ("fragment_overlap", 5)]);
            // Until its time is over.
            node.wait_secs(15);
            assert_eq!(
                all(&mut node, "lan", &cut.pieces(40)),
                ["held", "held", "to wan: session"]
            );
        }
    }
}

#[test]
fn an_exact_duplicate_is_dropped_alone() {
    for v6 in BOTH {
        let mut node = Node::new(ALLOW_ALL);
        let pieces = Cut::udp(v6, (1000, 53), 100).pieces(40);
        let order = [0, 0, 2, 2, 0, 1];
        let frames = order.map(|place: usize| pieces[place].clone());
        let duplicate = "fragment_duplicate: layer 2";
        assert_eq!(
            all(&mut node, "lan", &frames),
            ["held", duplicate, "held", duplicate, duplicate, "to wan: session"]
        );
        assert_eq!(
            leave(&mut node),
            [pieces[0].clone(), pieces[2].clone(), pieces[1].clone()]
        );
        assert_eq!(node.counters()["fragment_duplicate"], 3);
    }
}

#[test]
fn fragments_that_disagree_about_the_end_are_malformed() {
    for v6 in BOTH {
        let cut = Cut::udp(v6, (1000, 53), 100);
        let beyond = cut.piece(160, true, &[0; 8]);
        let second_end = cut.piece(160, false, &[0; 8]);
        let early_end = cut.piece(16, false, &cut.body[16..24]);
        for (there, hostile) in [
            ((80, 108), beyond),
            ((80, 108), second_end),
            ((40, 80), early_end),
        ] {
            let mut node = Node::new(ALLOW_ALL);
            assert_eq!(node.frame("lan", &cut.part(there.0, there.1)), "held");
            assert_eq!(node.frame("lan", &hostile), "malformed: layer 2");
            assert_eq!(node.frame("lan", &cut.part(0, 8)), "malformed: layer 2");
            node.counted(&[
                ("received", 3),
                ("fragments", 3),
                ("malformed", 3),
                ("malformed fragment_end", 3),
            ]);
        }
    }
}

#[test]
fn tiny_first_fragments_are_malformed() {
    for v6 in BOTH {
        let syn = Cut::tcp(v6, (1000, 80), 2, &[0; 12]);
        let mut node = Node::new(ALLOW_ALL);
        // nmap -f: the flags are in the second fragment. What is left waits in vain.
        let tiny = "malformed: layer 2";
        assert_eq!(
            all(&mut node, "lan", &syn.pieces(8)),
            [tiny, tiny, "held", "held"]
        );
        assert_eq!(node.frame("lan", &syn.part(0, 16)), tiny);
        node.wait_secs(15);
        assert_eq!(
            released(&mut node),
            ["fragment_timeout: layer 2", "fragment_timeout: layer 2"]
        );
        node.counted(&[
            ("received", 5),
            ("fragments", 2),
            ("malformed", 3),
            ("malformed tiny_fragment", 3),
            ("fragment_timeout", 2),
        ]);
        // nmap --mtu 24: the header is whole.
        assert_eq!(node.frame("lan", &syn.part(0, 24)), "held");
        assert_eq!(
            node.frame("lan", &syn.part(24, 32)),
            "tcp_out_of_window: no rule".replace("no rule", "rule all")
        );
    }
}

#[test]
fn datagrams_longer_than_can_be_are_malformed() {
    // One fragment that ends too far (the ping of death).
    for (frame, kind) in [
        (
            Cut::udp(false, (1, 2), 0).piece(65_528, false, &[0; 40]),
            "malformed ipv4_fragment",
        ),
        (
            Cut::udp(true, (1, 2), 0).piece(65_528, false, &[0; 40]),
            "malformed ipv6_fragment",
        ),
    ] {
        let mut node = Node::new(ALLOW_ALL);
        assert_eq!(node.frame("lan", &frame), "malformed: layer 2");
        node.counted(&[("received", 1), ("malformed", 1), (kind, 1)]);
    }
    // The first fragment's options make it too long; each fragment by itself fits.
    let cut = Cut {
        protocol: 253,
        body: vec![0; 65_515],
        ..Cut::udp(false, (1, 2), 0)
    };
    let mut first = Ip4::new(253);
    (first.fragment, first.options) = (0x2000, vec![1, 1, 1, 1]);
    let mut node = Node::new(ALLOW_ALL);
    assert_eq!(node.frame("lan", &first.frame(&cut.body[..32_000])), "held");
    assert_eq!(node.frame("lan", &cut.part(32_000, 65_515)), "malformed: layer 2");
    node.counted(&[
        ("received", 2),
        ("fragments", 2),
        ("fragments_reassembled", 1),
        ("malformed", 2),
        ("malformed ipv4_fragment", 2),
    ]);
    // Without them it is just as long as can be.
    let mut node = Node::new(ALLOW_ALL);
    let verdicts = all(&mut node, "lan", &cut.pieces(32_000));
    assert_eq!(verdicts, ["held", "held", "to wan: session"]);
}

#[test]
fn a_wrong_checksum_over_all_fragments_drops_them() {
    for v6 in BOTH {
        let mut wrong = Cut::udp(v6, (1000, 53), 100);
        wrong.body[101] ^= 1;
        let mut node = Node::new(ALLOW_ALL);
        assert_eq!(
            all(&mut node, "lan", &wrong.pieces(40)),
            ["held", "held", "bad_checksum: layer 2"]
        );
        node.counted(&[
            ("received", 3),
            ("fragments", 3),
            ("fragments_reassembled", 1),
            ("bad_checksum", 3),
        ]);
        let mut node = Node::new(&format!("[conntrack]\nverify_checksums = false\n{ALLOW_ALL}"));
        let last = all(&mut node, "lan", &wrong.pieces(40)).pop();
        assert_eq!(last.as_deref(), Some("to wan: session"));
        // No checksum: allowed over IPv4 alone (RFC 8200, section 8.1).
        let mut none = wrong.clone();
        none.body[6..8].fill(0);
        let mut node = Node::new(ALLOW_ALL);
        let last = all(&mut node, "lan", &none.pieces(40)).pop();
        let expected = if v6 {
            "bad_checksum: layer 2"
        } else {
            "to wan: session"
        };
        assert_eq!(last.as_deref(), Some(expected));
    }
}

#[test]
fn a_udp_length_beyond_the_datagram_is_malformed() {
    for v6 in BOTH {
        let mut cut = Cut::udp(v6, (1000, 53), 100);
        cut.body[4..6].copy_from_slice(&109_u16.to_be_bytes());
        let mut node = Node::new(ALLOW_ALL);
        assert_eq!(
            all(&mut node, "lan", &cut.pieces(80)),
            ["held", "malformed: layer 2"]
        );
        node.counted(&[
            ("received", 2),
            ("fragments", 2),
            ("fragments_reassembled", 1),
            ("malformed", 2),
            ("malformed udp_length", 2),
        ]);
    }
}

#[test]
fn an_incomplete_datagram_times_out() {
    let mut node = Node::new(ALLOW_ALL);
    let pieces = Cut::udp(false, (1000, 53), 100).pieces(40);
    assert_eq!(all(&mut node, "lan", &pieces[..2]), ["held", "held"]);
    node.changes(&[], |node| node.wait(haechi::base::Nanos::from_millis(14_999)));
    node.changes(&[("held", -2), ("fragment_timeout", 2)], |node| {
        node.wait(haechi::base::Nanos::from_millis(1))
    });
    assert_eq!(released(&mut node).len(), 2);
    // The last one came too late: it begins anew.
    assert_eq!(node.frame("lan", &pieces[2]), "held");
    // As configured, also by an apply.
    node.apply(&format!("[conntrack.fragments]\ntimeout = \"1s\"\n{ALLOW_ALL}"));
    node.changes(&[("held", -1), ("fragment_timeout", 1)], |node| node.wait_secs(1));
}

#[test]
fn what_is_held_when_the_node_stops_is_dropped_and_counted() {
    let mut node = Node::new(ALLOW_ALL);
    let pieces = Cut::udp(false, (1000, 53), 100).pieces(40);
    assert_eq!(all(&mut node, "lan", &pieces[..2]), ["held", "held"]);
    node.stop();
    node.counted(&[("received", 2), ("fragments", 2), ("fragment_timeout", 2)]);
}

#[test]
fn a_full_table_of_datagrams_evicts_the_oldest() {
    let mut node = Node::new(&format!("[conntrack.fragments]\nmax_datagrams = 3\n{ALLOW_ALL}"));
    let cut = |id| Cut {
        id,
        ..Cut::udp(false, (1000, 53), 100)
    };
    for id in 1..=3 {
        assert_eq!(node.frame("lan", &cut(id).part(0, 80)), "held");
    }
    node.changes(
        &[("received", 1), ("fragments", 1), ("fragment_evicted", 1)],
        |node| node.frame("lan", &cut(4).part(0, 80)),
    );
    assert_eq!(released(&mut node), ["fragment_evicted: layer 2"]);
    // The first is gone; its rest evicts the second. The third is still there.
    assert_eq!(node.frame("lan", &cut(1).part(80, 108)), "held");
    assert_eq!(released(&mut node), ["fragment_evicted: layer 2"]);
    assert_eq!(node.frame("lan", &cut(3).part(80, 108)), "to wan: session");
    assert_eq!(node.frame("lan", &cut(4).part(80, 108)), "to wan: session");
}

#[test]
fn a_quarter_of_the_buffers_is_held_at_most() {
    // 512 buffers: 128 of them.
    let text = crate::node::config(ALLOW_ALL)
        .replace("name = \"t\"", "name = \"t\"\npacket_buffers = 512")
        .replace("zone = ", "rx_descriptors = 32\ntx_descriptors = 32\nzone = ");
    let mut node = Node::of_text(&text, 100);
    let cut = |id| Cut {
        id,
        ..Cut::udp(false, (1000, 53), 1000)
    };
    for id in 0..16 {
        for start in 0..8 {
            assert_eq!(node.frame("lan", &cut(id).part(start * 8, start * 8 + 8)), "held");
        }
    }
    assert_eq!(node.engine.held(), 128);
    node.changes(
        &[
            ("received", 1),
            ("fragments", 1),
            ("fragment_evicted", 8),
            ("held", -7),
        ],
        |node| node.frame("lan", &cut(99).part(0, 8)),
    );
}

#[test]
fn a_datagram_in_more_than_128_fragments_is_refused() {
    for v6 in BOTH {
        let mut node = Node::new(ALLOW_ALL);
        let pieces = Cut::udp(v6, (1000, 53), 129 * 8 - 8).pieces(8);
        let verdicts = all(&mut node, "lan", &pieces);
        assert_eq!(verdicts[127..], ["held", "fragment_excess: layer 2"]);
        node.counted(&[("received", 129), ("fragments", 129), ("fragment_excess", 129)]);
        let mut node = Node::new(ALLOW_ALL);
        let pieces = Cut::udp(v6, (1000, 53), 128 * 8 - 8).pieces(8);
        let last = all(&mut node, "lan", &pieces).pop();
        assert_eq!(last.as_deref(), Some("to wan: session"));
    }
}

#[test]
fn martians_in_fragments_make_no_session() {
    let mut cut = Cut::udp(false, (1000, 53), 100).pieces(80);
    for piece in &mut cut {
        // From the destination's own address.
        let destination: [u8; 4] = piece[30..34].try_into().unwrap();
        *piece = fixed(with(piece.clone(), 26, &destination));
    }
    let mut node = Node::new(&format!("[conntrack]\nverify_checksums = false\n{ALLOW_ALL}"));
    assert_eq!(all(&mut node, "lan", &cut), ["held", "spoofed_source: no rule"]);
    assert_eq!(node.counters()["spoofed_source"], 2);
}

#[test]
fn discovery_in_fragments_is_discarded() {
    // RFC 6980.
    let mut ip = Ip6::new(58);
    (ip.source, ip.hop_limit) = (LINK, 255);
    let message = icmp(136, 0, [0x20, 0, 0, 0], &B6);
    let message = summed(&ip.pseudo(message.len()), message, 2);
    let piece = |field: u8, part: &[u8]| {
        let mut ip = ip.clone();
        ip = ip.extension(44, &[0, 0, 0, field, 0, 0, 0, 1]);
        ip.frame(part)
    };
    let mut node = Node::new(ALLOW_ALL);
    assert_eq!(node.frame("lan", &piece(1, &message[..16])), "held");
    assert_eq!(
        node.frame("lan", &piece(16, &message[16..])),
        "malformed: layer 2"
    );
    assert_eq!(node.counters()["malformed neighbour_discovery"], 2);
}
