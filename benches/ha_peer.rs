//! What an update costs from one node to the other: offered, packed, sealed, opened, taken in, acknowledged. Both nodes' parts are
//! done by one thread, so a node that only sends, or only receives, pays about a half.
//!
//! `cargo bench --no-default-features --bench ha_peer`; times are for one update.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use haechi::base::Nanos;
use haechi::flow::image::{BUCKETS, Birth, Image};
use haechi::flow::{FlowKey, KeyClass, SessionState};
use haechi::ha::peer::{Event, Peer, PeerConfig};
use haechi::ha::seal::PairKey;
use haechi::ha::{NodeId, Outgoing, Update};

/// Updates of a round: some datagrams.
const ROUND: u32 = 256;

fn session(id: u32) -> Image {
    let mut low = [0; 16];
    low[10..12].fill(0xff);
    let mut high = low;
    low[12..].copy_from_slice(&(0x0a00_0000 | id).to_be_bytes());
    high[12..].copy_from_slice(&0xc0ff_ffff_u32.to_be_bytes());
    Image {
        key: FlowKey {
            low,
            high,
            low_port: 1024,
            high_port: 443,
            protocol: 6,
            class: KeyClass::Ports,
            ..FlowKey::default()
        },
        birth: Birth(u64::from(id)),
        state: SessionState::Established,
        ..Image::default()
    }
}

struct Pair {
    nodes: [Peer; 2],
    now: Nanos,
    taken: u64,
    out: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let key = PairKey::generate::<()>(|key| {
            key.fill(7);
            Ok(())
        });
        let key = key.unwrap();
        let now = Nanos::from_secs(1);
        let node = |n| Peer::new(PeerConfig::new(NodeId(n)), &key, now, [n; 32]);
        let mut pair = Self {
            nodes: [node(1), node(2)],
            now,
            taken: 0,
            out: Vec::with_capacity(2048),
        };
        for _ in 0..200 {
            pair.now = pair.now.plus(Nanos::MILLISECOND);
            pair.exchange();
        }
        pair
    }

    /// Everything that the nodes have for each other.
    fn exchange(&mut self) {
        loop {
            let mut idle = true;
            for from in [0, 1] {
                self.nodes[from].handle_timeout(self.now);
                self.take_events(from);
                while let Some(path) = self.nodes[from].poll_transmit(self.now, &mut self.out) {
                    self.nodes[1 - from].handle_datagram(self.now, path, &mut self.out);
                    self.take_events(1 - from);
                    idle = false;
                }
            }
            if idle {
                return;
            }
        }
    }

    fn take_events(&mut self, n: usize) {
        while let Some(event) = self.nodes[n].poll_event() {
            let node = &mut self.nodes[n];
            match event {
                Event::Update(update) => {
                    black_box(&update);
                    self.taken += 1;
                }
                // As if nothing had been told before: the sums of no sessions.
                Event::Cut { round } => node.cut(self.now, round, &[0; BUCKETS]),
                Event::Digests { barrier } => node.answer_digests(self.now, barrier, &[0; BUCKETS]),
                Event::Walk { resync, .. } => node.walked(self.now, resync),
                _ => {}
            }
        }
    }

    fn round(&mut self, images: &[Image]) {
        let before = self.taken;
        for (id, image) in (0..).zip(images) {
            let outgoing = Outgoing {
                worker: 0,
                handle: id,
                update: Update::Session(*image),
                awaited: false,
            };
            assert!(self.nodes[0].offer(self.now, outgoing));
        }
        // Nothing lingers, and all acknowledgements come.
        self.now = self.now.plus(Nanos(700_000));
        self.exchange();
        assert_eq!(self.taken - before, images.len() as u64);
    }
}

fn updates(c: &mut Criterion) {
    let mut group = c.benchmark_group("ha_peer");
    group.throughput(Throughput::Elements(u64::from(ROUND)));
    let images: Vec<_> = (0..ROUND).map(session).collect();
    group.bench_function("update_there", |bench| {
        let mut pair = Pair::new();
        bench.iter(|| pair.round(&images));
    });
    group.finish();
}

criterion_group!(benches, updates);
criterion_main!(benches);
