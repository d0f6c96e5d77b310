//! Random fragments against an oracle that assembles byte arrays.

use haechi::packet::VecPacket;
use proptest::prelude::*;

use super::cut::*;
use crate::node::{ALLOW_ALL, Node};

/// What the reassembly must say of pieces that come in this order: it keeps every byte, and looks at all of them each time.
#[derive(Default)]
struct Oracle {
    pieces: Vec<(usize, usize, bool, Vec<u8>)>,
    refused: Option<&'static str>,
}

impl Oracle {
    fn piece(&mut self, start: usize, more: bool, bytes: &[u8]) -> &'static str {
        if let Some(refused) = self.refused {
            return refused;
        }
        let end = start + bytes.len();
        let this = (start, end, more, bytes.to_vec());
        if self.pieces.contains(&this) {
            return "fragment_duplicate: layer 2";
        }
        self.pieces.push(this);
        let mut taken = vec![0; 70_000];
        for (start, end, ..) in &self.pieces {
            taken[*start..*end].iter_mut().for_each(|count| *count += 1);
        }
        let ends: Vec<_> = self.pieces.iter().filter(|p| !p.2).map(|p| p.1).collect();
        let furthest = self.pieces.iter().map(|p| p.1).max().unwrap_or(0);
        if taken.iter().any(|count| *count > 1) {
            self.refused = Some("fragment_overlap: layer 2");
        } else if ends.len() > 1 || ends.first().is_some_and(|end| furthest > *end) {
            self.refused = Some("malformed: layer 2");
        }
        match self.refused {
            Some(refused) => refused,
            None if ends
                .first()
                .is_some_and(|end| taken[..*end].iter().all(|count| *count == 1)) =>
            {
                self.pieces.clear();
                "complete"
            }
            None => "held",
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Random cuts, orders, repetitions and strangers: the same verdict as an oracle that assembles byte arrays, the datagram's
    /// own when it is complete, and no piece lost (`Node` counts them).
    #[test]
    fn reassembly_does_what_the_oracle_says(
        v6: bool,
        length in 16_usize..400,
        cuts in prop::collection::btree_set(1_usize..50, 0..8),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..24),
        strangers in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..50, 1_usize..8, any::<bool>(), any::<u8>()), 0..3),
    ) {
        let cut = Cut::udp(v6, (1000, 53), length);
        let total = cut.body.len();
        let mut bounds: Vec<_> = std::iter::once(0).chain(cuts.iter().map(|at| at * 8)).filter(|at| *at < total).collect();
        bounds.push(total);
        // In pieces, or it is no fragment at all.
        prop_assume!(bounds.len() > 2);
        let pieces: Vec<_> = bounds.windows(2).map(|w| (w[0], w[1] < total, cut.body[w[0]..w[1]].to_vec())).collect();
        // All of them in an order that repeats some, and strangers in between.
        let mut sent: Vec<_> = order.iter().map(|ix| pieces[ix.index(pieces.len())].clone()).collect();
        for (n, piece) in pieces.iter().enumerate() {
            sent.insert(order[n % order.len()].index(sent.len() + 1), piece.clone());
        }
        for (at, start, len, more, byte) in strangers {
            // A first fragment of another kind would be another datagram altogether.
            let start = start.max(1) * 8;
            let bytes = vec![byte; if more { len * 8 } else { len }];
            sent.insert(at.index(sent.len() + 1), (start, more, bytes));
        }
        let mut node = Node::new(&rule("udp/53"));
        let mut oracle = Oracle::default();
        let mut complete = 0;
        for (start, more, bytes) in &sent {
            let said = node.frame("lan", &cut.piece(*start, *more, bytes));
            let expected = oracle.piece(*start, *more, bytes);
            if expected == "complete" {
                complete += 1;
                // A stranger that fits exactly makes its checksum wrong.
                prop_assert!(["to wan: session", "bad_checksum: layer 2"].contains(&&*said) || said.starts_with("malformed"), "{said}");
                if node.forwarded.len() == pieces.len() {
                    let mut left = leave(&mut node);
                    left.sort();
                    let mut came: Vec<_> = pieces.iter().map(|(start, more, bytes)| cut.piece(*start, *more, bytes)).collect();
                    came.sort();
                    if said == "to wan: session" { prop_assert_eq!(left, came); }
                }
            } else {
                prop_assert_eq!(said, expected, "piece at {} of {:?}", start, bounds);
            }
        }
        prop_assert_eq!(node.counters().get("fragments_reassembled").copied().unwrap_or(0), complete);
        node.wait_secs(15);
        prop_assert_eq!(node.engine.held(), 0);
        node.wait_secs(3600);
        // As good as new.
        let last = all(&mut node, "lan", &cut.pieces(16)).pop();
        prop_assert_eq!(last.as_deref(), Some("to wan: session"));
    }

    /// Bursts of random fragments of few datagrams under narrow bounds: `Node` checks that none is lost, and everything ends.
    #[test]
    fn narrow_bounds_lose_no_piece(
        packets in prop::collection::vec((0_u32..9, 0_usize..12, any::<bool>(), any::<bool>()), 1..300),
        datagrams in 1_u32..5,
    ) {
        let text = format!("[conntrack.fragments]\nmax_datagrams = {datagrams}\n{ALLOW_ALL}");
        let mut node = Node::new(&text);
        for burst in packets.chunks(20) {
            let burst: Vec<_> = burst.iter().map(|(id, at, v6, long)| {
                let cut = Cut { id: *id, ..Cut::udp(*v6, (1000, 53), 88) };
                let end = (at * 8 + if *long { 16 } else { 8 }).min(96);
                ("lan", VecPacket::new(cut.part(at * 8, end)))
            }).collect();
            node.burst(&burst);
            prop_assert!(node.engine.held() <= u64::from(datagrams) * 12);
        }
        node.wait_secs(15);
        prop_assert_eq!(node.engine.held(), 0);
        prop_assert_eq!(node.send("lan", "udp 10.0.0.9:1 > 192.0.2.7:2"), "to wan: new session by all");
    }
}
